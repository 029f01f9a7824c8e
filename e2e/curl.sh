#!/usr/bin/env bash
# Login, refresh, logout and verification with curl; e2e/run calls it with the server's URL and DATA.
#
#   e2e/curl.sh contract     every answer
#   e2e/curl.sh expired      against a server whose tokens live one second
set -euo pipefail
cd "$(dirname "$0")"
. ./lib.sh

json=(-H 'Content-Type: application/json')

# What the documentation shows: its curl command, and its JSON blocks on one line each.
documented_curl() {
    sed -n '/^curl /,/package main/p' logout.txt | sed 's/package main$//'
}
documented_json() {
    awk '/^\{$/ && !depth { text = "" }
         /^\{$/ || depth { line = $0
                           sub(/^ +/, "", line)
                           if (line ~ /^\}/) line = "}"
                           depth += gsub(/\{/, "{", line) - gsub(/\}/, "}", line)
                           text = text line
                           if (!depth) { gsub(/": /, "\":", text); print text } }' logout.txt
}
documented_error() {
    documented_json | grep -F "\"message\":\"$1\""
}
# The documented command as it stands, but for host and token.
documented_logout() {
    documented_curl | sed -e "s|{{host}}|$URL|" -e "s|eyJhbGciOiJIUzI1NiIs\.\.\.|$1|" >"$WORK/command"
    bash "$WORK/command" 2>/dev/null
}

contract() {
    create billing
    local key=$KEY secret=$SECRET id=$ID first second access refresh

    first=$(login "$key" "$secret")
    access=$(field access_token <<<"$first")
    refresh=$(field refresh_token <<<"$first")
    shape='^200 \{"success":true,"data":\{"access_token":"eyJhbGciOiJIUzI1NiIs[^"]+","refresh_token":"eyJhbGciOiJIUzI1NiIs[^"]+","access_expires_at":"[0-9-]{10}T[0-9:]{8}Z","refresh_expires_at":"[0-9-]{10}T[0-9:]{8}Z","client_id":'$id'\}\}$'
    like 'login' "$shape" "$first"
    expect 'login is not stored' no-store "$(header cache-control)"
    expect 'login is JSON' application/json "$(header content-type)"
    like 'an answer has an id' '^[0-9A-Za-z]{27}$' "$(header x-request-id)"

    expect 'verify' '200 ' "$(answer "$URL/verify" -H "Authorization: Bearer $access")"
    expect 'verify tells the client' "$id" "$(header x-rescind-client)"

    second=$(answer "$URL/auth/refresh" "${json[@]}" -d "{\"refresh_token\":\"$refresh\"}")
    like 'refresh' "$shape" "$second"
    expect 'the access token of the old pair stands' '200 ' "$(answer "$URL/verify" -H "Authorization: Bearer $access")"

    expect "logout by the documentation's command" \
        "$(documented_json | grep success)" "$(documented_logout "$(field access_token <<<"$second")")"
    invalid=$(error 401 UnauthorizedError UNAUTHORIZED 'Invalid token')
    for token in "$access" "$(field access_token <<<"$second")"; do
        expect 'after logout: verify' "$invalid" "$(answer "$URL/verify" -H "Authorization: Bearer $token")"
        expect 'after logout: challenge' \
            'Bearer realm="rescind", error="invalid_token", error_description="revoked: get a new token"' \
            "$(header www-authenticate)"
        expect 'after logout: logout' "$(documented_error 'Invalid token')" "$(documented_logout "$token")"
    done
    for token in "$refresh" "$(field refresh_token <<<"$second")"; do
        expect 'after logout: refresh' "$invalid" \
            "$(answer "$URL/auth/refresh" "${json[@]}" -d "{\"refresh_token\":\"$token\"}")"
    done
    first=$(login "$key" "$secret")
    like 'login again' "$shape" "$first"
    expect 'verify again' '200 ' "$(answer "$URL/verify" -H "Authorization: Bearer $(field access_token <<<"$first")")"

    token_errors "$(field access_token <<<"$first")" "$(field refresh_token <<<"$first")"
    body_errors "$key" "$secret"
    address_errors "$key" "$secret" "$id" "$(field access_token <<<"$first")" "$(field refresh_token <<<"$first")"
    http_errors
    limits
}

token_errors() {
    local access=$1 refresh=$2 none invalid
    none="401 $(documented_error 'Authorization header required')"
    invalid="401 $(documented_error 'Invalid token')"
    for path in "-X POST $URL/auth/logout" "$URL/verify"; do
        # shellcheck disable=SC2086
        set -- $path
        expect "$path: no header" "$none" "$(answer "$@")"
        expect "$path: challenge" 'Bearer realm="rescind"' "$(header www-authenticate)"
        expect "$path: another scheme" "$none" "$(answer "$@" -H 'Authorization: Basic eDp5')"
        expect "$path: no token" "$none" "$(answer "$@" -H 'Authorization: Bearer ')"
        expect "$path: no such token" "$invalid" "$(answer "$@" -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiIs...')"
        expect "$path: challenge" 'Bearer realm="rescind", error="invalid_token"' "$(header www-authenticate)"
        expect "$path: a refresh token" "$invalid" "$(answer "$@" -H "Authorization: Bearer $refresh")"
        expect "$path: cut short" "$invalid" "$(answer "$@" -H "Authorization: Bearer ${access%?}")"
        expect "$path: two headers" "$invalid" \
            "$(answer "$@" -H "Authorization: Bearer $access" -H "Authorization: Bearer $access")"
    done
    expect 'an access token is no refresh token' "$invalid" \
        "$(answer "$URL/auth/refresh" "${json[@]}" -d "{\"refresh_token\":\"$access\"}")"
    expect 'none of it changed anything' '200 ' "$(answer "$URL/verify" -H "Authorization: bearer $access")"
}

body_errors() {
    local key=$1 secret=$2 required wrong
    required=$(error 400 ValidationException VALIDATION_FAILURE 'Username and password are required')
    for body in '{}' "{\"username\":\"$key\"}" "{\"password\":\"$secret\"}" \
        "{\"username\":\"\",\"password\":\"$secret\"}" "{\"username\":\"$key\",\"password\":\"\"}"; do
        expect 'login: something is missing' "$required" "$(answer "$URL/auth/login" "${json[@]}" -d "$body")"
    done
    required=$(error 400 ValidationException VALIDATION_FAILURE 'Refresh token is required')
    for body in '{}' '{"refresh_token":""}'; do
        expect 'refresh: nothing to refresh' "$required" "$(answer "$URL/auth/refresh" "${json[@]}" -d "$body")"
    done
    wrong=$(error 401 UnauthorizedError UNAUTHORIZED 'Invalid credentials')
    expect 'login: unknown key' "$wrong" "$(login rk_nobody "$secret")"
    expect 'login: wrong secret' "$wrong" "$(login "$key" rs_wrong)"
    for body in '' '{' '[]' 'null' '{"username":1,"password":"x"}' '{"username":"a","username":"b","password":"c"}'; do
        kind "login: body '$body'" 400 ValidationException VALIDATION_FAILURE \
            "$(answer "$URL/auth/login" "${json[@]}" -d "$body")"
    done
    kind 'login: a form' 415 UnsupportedMediaTypeError UNSUPPORTED_MEDIA_TYPE \
        "$(answer "$URL/auth/login" -d "username=$key")"
    head -c 2000000 /dev/zero | tr '\0' ' ' >"$WORK/large"
    kind 'login: 2 MB' 413 PayloadTooLargeError PAYLOAD_TOO_LARGE \
        "$(answer "$URL/auth/login" "${json[@]}" --data-binary "@$WORK/large")"
}

address_errors() {
    local key=$1 secret=$2 id=$3 access=$4 refresh=$5 denied
    denied="403 $(documented_error 'IP address not authorized')"
    "$RESCIND" client allow add "$id" 203.0.113.0/24 --yes --data-dir "$DATA" >"$WORK/allow"
    expect 'address: login' "$denied" "$(login "$key" "$secret")"
    expect 'address: a wrong secret comes first' "$(error 401 UnauthorizedError UNAUTHORIZED 'Invalid credentials')" \
        "$(login "$key" rs_wrong)"
    expect 'address: refresh' "$denied" "$(answer "$URL/auth/refresh" "${json[@]}" -d "{\"refresh_token\":\"$refresh\"}")"
    expect 'address: verify' "$denied" "$(answer "$URL/verify" -H "Authorization: Bearer $access")"
    expect 'address: logout' "${denied#403 }" "$(documented_logout "$access")"
    expect 'address: a header is not believed' "$denied" \
        "$(answer "$URL/verify" -H "Authorization: Bearer $access" -H 'X-Forwarded-For: 203.0.113.7')"
    "$RESCIND" client allow add "$id" 127.0.0.1 --yes --data-dir "$DATA" >"$WORK/allow"
    expect 'address: none of it changed anything' '200 ' "$(answer "$URL/verify" -H "Authorization: Bearer $access")"
}

http_errors() {
    kind 'no such path' 404 NotFoundError NOT_FOUND "$(answer "$URL/auth/nothing")"
    for path in login refresh logout; do
        kind "GET /auth/$path" 405 MethodNotAllowedError METHOD_NOT_ALLOWED "$(answer "$URL/auth/$path")"
        expect "GET /auth/$path: Allow" POST "$(header allow)"
    done
    local large
    large=$(head -c 20000 /dev/zero | tr '\0' a)
    kind 'large headers' 431 HeadersTooLargeError HEADERS_TOO_LARGE "$(answer "$URL/auth/login" -H "X-Large: $large")"
    expect 'a request id of the caller comes back' my-id-1 \
        "$(answer "$URL/verify" -H 'X-Request-Id: my-id-1' >/dev/null; header x-request-id)"
}

limits() {
    create guessed
    local last seconds
    # Thirty, and one more every two seconds: a slow machine needs a few more of them.
    for _ in {1..300}; do
        last=$(login "$KEY" rs_wrong)
        case $last in 429*) break ;; esac
    done
    seconds=$(header retry-after)
    expect 'one wrong secret too many within a minute' \
        "$(error 429 TooManyRequestsError TOO_MANY_REQUESTS "Rate limit exceeded. Retry after $seconds seconds.")" "$last"
    like 'the right one is never refused' '^200 ' "$(login "$KEY" "$SECRET")"
}

expired() {
    create short
    local pair access refresh
    pair=$(login "$KEY" "$SECRET")
    access=$(field access_token <<<"$pair")
    refresh=$(field refresh_token <<<"$pair")
    for _ in $(seq 100); do
        [[ $(answer "$URL/verify" -H "Authorization: Bearer $access") == 200\ * ]] || break
        sleep 0.1
    done
    expect 'expired: verify' "401 $(documented_error 'Token expired')" "$(answer "$URL/verify" -H "Authorization: Bearer $access")"
    expect 'expired: logout' "$(documented_error 'Token expired')" "$(documented_logout "$access")"
    expect 'expired: refresh' "401 $(documented_error 'Token expired')" \
        "$(answer "$URL/auth/refresh" "${json[@]}" -d "{\"refresh_token\":\"$refresh\"}")"
}

# kind WHAT STATUS NAME CODE ANSWER: where the contract leaves the message to us.
kind() {
    like "$1" "^$2 \\{\"error\":\\{\"name\":\"$3\",\"code\":\"$4\",\"message\":\"[^\"]+" "$5"
}

case ${1:-} in
    contract) contract ;;
    expired) expired ;;
    *) echo 'usage: e2e/curl.sh contract|expired' >&2; exit 2 ;;
esac
finish
