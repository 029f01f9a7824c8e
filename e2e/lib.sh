# What the scripts here share. Sourced, with WORK set to a scratch folder.

failures=0

fail() {
    printf 'FAILED %s\n' "$*" >&2
    failures=$((failures + 1))
}

# expect WHAT WANTED GOT
expect() {
    if [ "$2" = "$3" ]; then
        printf 'ok     %s\n' "$1"
    else
        fail "$(printf '%s\n  wanted %s\n  got    %s' "$1" "$2" "$3")"
    fi
}

# like WHAT REGEX GOT
like() {
    if [[ $3 =~ $2 ]]; then
        printf 'ok     %s\n' "$1"
    else
        fail "$(printf '%s\n  wanted %s\n  got    %s' "$1" "$2" "$3")"
    fi
}

# answer CURL_ARGUMENTS...: "STATUS BODY"; the answer's head is left in $WORK/head.
answer() {
    local status
    status=$(curl -s --max-time 120 -D "$WORK/head" -o "$WORK/body" -w '%{http_code}' "$@") || true
    printf '%s %s' "$status" "$(cat "$WORK/body")"
}

# header NAME: its value in the last answer.
header() {
    tr -d '\r' <"$WORK/head" | sed -n "s/^$1: //Ip"
}

# field NAME: a text field of the JSON on standard input.
field() {
    sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"
}

# error STATUS NAME CODE MESSAGE: the answer that the contract has for it.
error() {
    printf '%s {"error":{"name":"%s","code":"%s","message":"%s"}}' "$@"
}

# login BODY: what login answers to {"username": KEY, "password": SECRET}.
login() {
    answer "$URL/auth/login" -H 'Content-Type: application/json' -d "{\"username\":\"$1\",\"password\":\"$2\"}"
}

# create NAME ARGUMENTS...: a new client; sets KEY, SECRET and ID.
# shellcheck disable=SC2034
create() {
    local created
    created=$("$RESCIND" client create --json --data-dir "$DATA" --name "$@")
    KEY=$(field api_key <<<"$created")
    SECRET=$(field api_secret <<<"$created")
    ID=$(sed -n 's/.*"client_id":\([0-9]*\).*/\1/p' <<<"$created")
}

finish() {
    [ "$failures" -eq 0 ] || exit 1
}
