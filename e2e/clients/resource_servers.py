"""Python's libraries that ask introspection for an API, unmodified: for how long each accepts a token after its logout.
modules.py calls it with the file that names the server and the clients, and with the library."""

import importlib.metadata
import json
import logging
import os
import sys
import time
import warnings

import requests
import time_machine

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../oauth/python"))

import introspecting  # noqa: E402

warnings.simplefilter("ignore")
with open(sys.argv[1], encoding="utf-8") as file:
    NAMES = json.load(file)
URL, APP, API = NAMES["url"], NAMES["app"], NAMES["api"]


def django_oauth_toolkit(**settings):
    ask = introspecting.django_oauth_toolkit(URL, API, **settings)
    return lambda token: ask(token).status_code == 200


def authlib():
    validate = introspecting.authlib(URL, API)

    def takes(token):
        try:
            validate(token)
            return True
        except Exception as error:
            logging.debug("refused: %r", error)
            return False

    return takes


def flask_oidc():
    import flask
    from flask_oidc import OpenIDConnect

    app = flask.Flask("orders")
    secrets = {"client_id": API["api_key"], "client_secret": API["api_secret"], "issuer": URL}
    app.config.update(
        OIDC_CLIENT_SECRETS={"web": secrets}, OIDC_RESOURCE_SERVER_ONLY=True, SECRET_KEY="of a test that keeps nothing"
    )
    oidc = OpenIDConnect(app)
    app.route("/orders")(oidc.accept_token()(lambda: "orders"))
    client = app.test_client()
    return lambda token: client.get("/orders", headers={"Authorization": f"Bearer {token}"}).status_code == 200


LIBRARIES = {
    "django-oauth-toolkit": django_oauth_toolkit,
    "django-oauth-toolkit, set": lambda: django_oauth_toolkit(RESOURCE_SERVER_TOKEN_CACHING_SECONDS=1),
    "Authlib": authlib,
    "flask-oidc": flask_oidc,
}


def login():
    body = {"username": APP["api_key"], "password": APP["api_secret"]}
    return requests.post(f"{URL}/auth/login", json=body, timeout=120).json()["data"]["access_token"]


def measure(takes):
    """The seconds for which a token passes that was accepted once and then revoked."""
    token = login()
    assert takes(token), "it refuses every token"
    revoking = login()
    assert requests.post(f"{URL}/auth/logout", headers={"Authorization": f"Bearer {revoking}"}, timeout=120).status_code == 200
    if not takes(token):
        return 0
    for seconds in NAMES["kept"]:
        with time_machine.travel(time.time() + seconds - 20):
            assert seconds <= 2 or takes(token), f"it ends before {seconds} s, at none of the known times"
        with time_machine.travel(time.time() + seconds + 0.5):
            if not takes(token):
                return seconds
    raise AssertionError("it does not end")


print(json.dumps([measure(LIBRARIES[sys.argv[2]]()), importlib.metadata.version(sys.argv[2].removesuffix(", set"))]))
