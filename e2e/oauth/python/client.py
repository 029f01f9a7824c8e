"""Authlib, unmodified, against a running server. e2e/oauth/run calls it with the file that names the
server and its clients."""

import json
import math
import os
import sys
import time

from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.jwk import KeySet

# Authlib refuses http otherwise.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

failed = 0


def check(what, good, got):
    global failed
    print(f"ok     python: {what}" if good else f"FAILED python: {what}: {got!r}")
    failed += not good


def refusal(call):
    """The code of the error that a call must end in."""
    try:
        return f"none: {call()!r}"
    except OAuthError as error:
        return error.error


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        names = json.load(file)
    url, app, api = names["url"], names["app"], names["api"]

    for method in ["client_secret_basic", "client_secret_post"]:

        def session(of, **more):
            return OAuth2Session(
                of["api_key"],
                of["api_secret"],
                token_endpoint_auth_method=method,
                revocation_endpoint_auth_method=method,
                default_timeout=120,
                **more,
            )

        def fetch(session):
            return session.fetch_token(f"{url}/oauth2/token", grant_type="client_credentials")

        def introspect(session, token, **more):
            return session.introspect_token(f"{url}/oauth2/introspect", token=token, **more)

        def revoke(session, token, **more):
            return session.revoke_token(f"{url}/oauth2/revoke", token=token, **more)

        client, asking = session(app, scope="orders:read"), session(api)
        begun = time.monotonic()
        token = fetch(client)
        # No more seconds may be missing than have begun between the request and the answer.
        least = 3600 - math.ceil(time.monotonic() - begun)
        hour = token["token_type"] == "Bearer" and least <= token["expires_in"] <= 3600
        check(f"{method}: client_credentials", hour, token)
        check(f"{method}: no refresh token", "refresh_token" not in token, token)
        check(f"{method}: the scope asked for", token["scope"] == "orders:read", token)
        everything = fetch(session(app))
        check(f"{method}: every scope if none is asked for", everything["scope"] == "orders:read orders:write", everything)

        answer = client.get(f"{url}/verify?scope=orders:read")
        check(f"{method}: the session's requests pass", answer.status_code == 200, answer.text)
        answer = client.get(f"{url}/verify?scope=orders:write")
        check(f"{method}: for its scope alone", answer.status_code == 403, answer.text)

        keys = KeySet.import_key_set(client.get(f"{url}/.well-known/jwks.json", withhold_token=True).json())
        read = jwt.decode(token["access_token"], keys, algorithms=["Ed25519", "EdDSA", "ES256"])
        check(f"{method}: joserfc verifies the token", read.claims["sub"] == str(app["client_id"]), read.claims)

        told = introspect(asking, token["access_token"]).json()
        check(f"{method}: introspection: active", told["active"] is True and told["client_id"] == app["api_key"], told)
        check(f"{method}: introspection: scope", told["scope"] == "orders:read" and told["iss"] == url, told)
        check(f"{method}: introspection: no audience that nobody has set", "aud" not in told, told)
        told = introspect(asking, "x", token_type_hint="access_token").json()
        check(f"{method}: introspection: unknown", told == {"active": False}, told)
        answer = introspect(client, token["access_token"])
        check(f"{method}: introspection needs the scope", answer.status_code == 403, answer.text)

        answer = revoke(asking, token["access_token"])
        refused = answer.status_code == 400 and answer.json()["error"] == "invalid_grant"
        check(f"{method}: another's token is not revoked", refused, answer.text)
        answer = revoke(client, token["access_token"], token_type_hint="refresh_token")
        check(f"{method}: revocation", answer.status_code == 200, answer.text)
        told = introspect(asking, token["access_token"]).json()
        check(f"{method}: revoked, and inactive at once", told == {"active": False}, told)
        told = introspect(asking, everything["access_token"]).json()
        check(f"{method}: other tokens stand", told["active"] is True, told)
        answer = revoke(client, "x")
        check(f"{method}: what is unknown is revoked already", answer.status_code == 200, answer.text)

        code = refusal(lambda: fetch(session(app, scope="orders:delete")))
        check(f"{method}: invalid_scope", code == "invalid_scope", code)
        wrong = session({**app, "api_secret": "rs_wrong"})
        code = refusal(lambda: fetch(wrong))
        check(f"{method}: invalid_client", code == "invalid_client", code)
        answer = introspect(wrong, "x")
        check(f"{method}: invalid_client at introspection", answer.status_code == 401, answer.text)

        # The pair of a login is revoked as a session's tokens, by its refresh token.
        body = {"username": app["api_key"], "password": app["api_secret"]}
        pair = client.post(f"{url}/auth/login", json=body, withhold_token=True).json()["data"]
        told = introspect(asking, pair["refresh_token"], token_type_hint="refresh_token").json()
        check(f"{method}: another's refresh token is inactive", told == {"active": False}, told)
        answer = revoke(client, pair["refresh_token"])
        told = introspect(asking, pair["access_token"]).json()
        check(f"{method}: its revocation ends the access token", told == {"active": False}, told)


main()
sys.exit(failed != 0)
