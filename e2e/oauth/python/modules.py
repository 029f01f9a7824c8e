"""Resource servers' modules, unmodified, before an API: each takes an access token and refuses the refresh
token that came with it. e2e/oauth/run calls it with the file that names the server and its clients."""

import json
import sys

import introspecting
import jwt
import requests
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt as jose
from joserfc.jwk import KeySet

AUDIENCE = "https://api.example"

failed = 0


def check(what, good, got=None):
    global failed
    print(f"ok     modules: {what}" if good else f"FAILED modules: {what}: {got!r}")
    failed += not good


def attempt(call):
    """What comes of it: whether it was taken, and what was said."""
    try:
        return True, call()
    except Exception as error:
        return False, error


def apache(names, location):
    """mod_auth_openidc and mod_oauth2, as apache.conf has them."""

    def takes(token):
        url = f"{names['apache']}/{location}/index.html"
        answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=120)
        return answer.status_code == 200, (answer.status_code, answer.text)

    return takes


def django_oauth_toolkit(names):
    """It keeps what it was told, for a second at least."""
    ask = introspecting.django_oauth_toolkit(names["url"], names["api"], RESOURCE_SERVER_TOKEN_CACHING_SECONDS=1)

    def takes(token):
        answer = ask(token)
        return answer.status_code == 200, (answer.status_code, answer.content)

    return takes


def authlib(names):
    validate = introspecting.authlib(names["url"], names["api"])
    return lambda token: attempt(lambda: validate(token))


def authlib_rfc9068(names):
    """With every claim that RFC 9068 requires."""

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return requests.get(f"{names['url']}/.well-known/jwks.json", timeout=120).json()

    validator = Validator(names["url"], AUDIENCE)

    def takes(token):
        return attempt(lambda: validator.validate_token(validator.authenticate_token(token), ["orders:read"], None))

    return takes


def pyjwt(names, algorithms):
    keys = jwt.PyJWKClient(f"{names['url']}/.well-known/jwks.json", cache_keys=False, lifespan=1)

    def takes(token):
        def decode():
            key = keys.get_signing_key_from_jwt(token)
            return jwt.decode(token, key, algorithms=algorithms, audience=AUDIENCE, issuer=names["url"])

        return attempt(decode)

    return takes


def joserfc(names, algorithms):
    keys = KeySet.import_key_set(requests.get(f"{names['url']}/.well-known/jwks.json", timeout=120).json())
    registry = jose.JWTClaimsRegistry(
        iss={"essential": True, "value": names["url"]}, aud={"essential": True, "value": AUDIENCE}
    )

    def takes(token):
        def decode():
            registry.validate(jose.decode(token, keys, algorithms=algorithms).claims)

        return attempt(decode)

    return takes


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        names = json.load(file)

    def login(client):
        body = {"username": client["api_key"], "password": client["api_secret"]}
        return requests.post(f"{names['url']}/auth/login", json=body, timeout=120).json()["data"]

    asking = {
        "mod_auth_openidc": apache(names, "mod_auth_openidc"),
        "mod_oauth2": apache(names, "mod_oauth2"),
        "django-oauth-toolkit": django_oauth_toolkit(names),
        "Authlib": authlib(names),
    }
    verifying = {}
    if names["algorithm"] != "HS256":
        verifying = {
            "joserfc": joserfc(names, ["Ed25519", "EdDSA", "ES256"]),
            "joserfc that takes HS256 as well": joserfc(names, ["Ed25519", "EdDSA", "ES256", "HS256"]),
        }
    # PyJWT does not know this name.
    if names["algorithm"] in ["EdDSA", "ES256"]:
        verifying["PyJWT"] = pyjwt(names, ["EdDSA", "ES256"])
        verifying["PyJWT that takes HS256 as well"] = pyjwt(names, ["EdDSA", "ES256", "HS256"])
    # Without a list of algorithms joserfc takes neither name of Ed25519, and Authlib gives it no list.
    if names["algorithm"] == "ES256":
        verifying["joserfc without a list of algorithms"] = joserfc(names, None)
        verifying["Authlib by RFC 9068"] = authlib_rfc9068(names)
    for name, takes in {**asking, **verifying}.items():
        pair, name = login(names["app"]), f"{names['algorithm']}: {name}"
        good, got = takes(pair["access_token"])
        check(f"{name} takes an access token", good, got)
        good, got = takes(pair["refresh_token"])
        check(f"{name} refuses a refresh token", not good, got)
        body = {"refresh_token": pair["refresh_token"]}
        answer = requests.post(f"{names['url']}/auth/refresh", json=body, timeout=120)
        check(f"{name}: which is a good one", answer.status_code == 200, answer.text)
    for name, takes in asking.items():
        # What a module does not look at, it cannot let in from anywhere.
        good, got = takes(login(names["bound"])["access_token"])
        check(f"{names['algorithm']}: {name} refuses a token with an allowlist", not good, got)


main()
sys.exit(failed != 0)
