"""Python's OAuth clients, unmodified: what each does when its token was revoked. run.py calls it with the file that names the
server, an API and a client."""

import ast
import asyncio
import importlib.metadata
import inspect
import json
import logging
import multiprocessing
import os
import sys
import time
import unittest.mock
import warnings

import httpx
import requests
import time_machine

# Authlib and oauthlib refuse http otherwise.
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)

with open(sys.argv[1], encoding="utf-8") as file:
    NAMES = json.load(file)
URL, API, KEY, SECRET = NAMES["url"], NAMES["api"], NAMES["app"]["api_key"], NAMES["app"]["api_secret"]
TOKEN_URL = f"{URL}/oauth2/token"
# Of tokens, in seconds, as run.py configures it.
LIFETIME = NAMES["lifetime"]
# How long before the end of a token a library may look for another.
EARLY = [60, 30, 20, 10, 0]

LOOP = asyncio.new_event_loop()


def awaited(result):
    return LOOP.run_until_complete(result) if inspect.isawaitable(result) else result


class Client:
    """A library's client. `call` asks the API, and returns the status; `recipe` is a line that is run before the next call,
    and has the names of `scope`."""

    def __init__(self, package, call, recipe, label=None, **scope):
        self.package, self.ask, self.recipe, self.label, self.scope = package, call, recipe, label or package, scope

    def call(self):
        try:
            return awaited(self.ask()) == 200
        except Exception:
            return False

    def help(self):
        code = compile(self.recipe, "recipe", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        awaited(eval(code, dict(self.scope)))


def status(response):
    return response.status_code


def authlib_requests():
    from authlib.integrations.requests_client import OAuth2Session

    session = OAuth2Session(KEY, SECRET, token_endpoint=TOKEN_URL, grant_type="client_credentials")
    session.fetch_token()
    return Client("Authlib", lambda: status(session.get(API)), "session.fetch_token()", "Authlib, requests", session=session)


def authlib_httpx():
    from authlib.integrations.httpx_client import OAuth2Client

    session = OAuth2Client(KEY, SECRET, token_endpoint=TOKEN_URL, grant_type="client_credentials")
    session.fetch_token()
    return Client("Authlib", lambda: status(session.get(API)), "session.fetch_token()", "Authlib, httpx", session=session)


def authlib_httpx_async():
    from authlib.integrations.httpx_client import AsyncOAuth2Client

    session = AsyncOAuth2Client(KEY, SECRET, token_endpoint=TOKEN_URL, grant_type="client_credentials")
    awaited(session.fetch_token())

    async def call():
        return status(await session.get(API))

    return Client("Authlib", call, "await session.fetch_token()", "Authlib, httpx, async", session=session)


def requests_oauthlib():
    from oauthlib.oauth2 import BackendApplicationClient
    from requests_oauthlib import OAuth2Session

    session = OAuth2Session(client=BackendApplicationClient(client_id=KEY))
    recipe = "session.fetch_token(token_url, client_secret=secret)"
    session.fetch_token(TOKEN_URL, client_secret=SECRET)
    scope = {"session": session, "token_url": TOKEN_URL, "secret": SECRET}
    return Client("requests-oauthlib", lambda: status(session.get(API)), recipe, **scope)


def httpx_auth():
    from httpx_auth import OAuth2, OAuth2ClientCredentials

    auth = OAuth2ClientCredentials(TOKEN_URL, client_id=KEY, client_secret=SECRET)
    client = httpx.Client(auth=auth)
    return Client("httpx-auth", lambda: status(client.get(API)), "OAuth2.token_cache.clear()", OAuth2=OAuth2)


def requests_oauth2client():
    from requests_oauth2client import OAuth2Client, OAuth2ClientCredentialsAuth

    client = OAuth2Client(token_endpoint=TOKEN_URL, client_id=KEY, client_secret=SECRET, testing=True)
    auth = OAuth2ClientCredentialsAuth(client)
    return Client("requests-oauth2client", lambda: status(requests.get(API, auth=auth)), "auth.forget_token()", auth=auth)


def aiohttp_oauth2_client():
    import aiohttp
    from aiohttp_oauth2_client.grant.client_credentials import ClientCredentialsGrant
    from aiohttp_oauth2_client.middleware import OAuth2Middleware

    async def start():
        grant = ClientCredentialsGrant(token_url=TOKEN_URL, client_id=KEY, client_secret=SECRET)
        await grant.__aenter__()
        return grant, aiohttp.ClientSession(middlewares=[OAuth2Middleware(grant)])

    grant, session = awaited(start())

    async def call():
        async with session.get(API) as response:
            return response.status

    return Client("aiohttp-oauth2-client", call, "await grant.fetch_token()", grant=grant)


def oauth2_client():
    from oauth2_client.credentials_manager import CredentialManager, ServiceInformation

    manager = CredentialManager(ServiceInformation(None, TOKEN_URL, KEY, SECRET, []))
    manager.init_with_client_credentials()
    return Client("oauth2-client", lambda: status(manager.get(API)), "manager.init_with_client_credentials()", manager=manager)


def dlt():
    from dlt.sources.helpers.rest_client.auth import OAuth2ClientCredentials

    plain = requests.Session()
    auth = OAuth2ClientCredentials(access_token_url=TOKEN_URL, client_id=KEY, client_secret=SECRET, session=plain)
    return Client("dlt", lambda: status(requests.get(API, auth=auth)), "auth.access_token = None", auth=auth)


def singer_sdk():
    from singer_sdk.authenticators import OAuthAuthenticator

    class Authenticator(OAuthAuthenticator):
        @property
        def oauth_request_body(self):
            return {"grant_type": "client_credentials", "client_id": self.client_id, "client_secret": self.client_secret}

    auth = Authenticator(auth_endpoint=TOKEN_URL, client_id=KEY, client_secret=SECRET)

    return Client("singer-sdk", lambda: status(requests.get(API, auth=auth)), "auth.update_access_token()", auth=auth)


def pyiceberg(label, properties, recipe):
    from pyiceberg.catalog.rest import RestCatalog

    catalog = RestCatalog("test", uri=API, **properties)

    def call():
        catalog.list_namespaces()
        return 200

    return Client("pyiceberg", call, recipe, label, catalog=catalog, RestCatalog=RestCatalog)


def pyiceberg_credential():
    properties = {"credential": f"{KEY}:{SECRET}", "oauth2-server-uri": TOKEN_URL, "scope": "orders:read"}
    return pyiceberg("PyIceberg, `credential`", properties, "")


def pyiceberg_oauth2():
    oauth2 = {"client_id": KEY, "client_secret": SECRET, "token_url": TOKEN_URL}
    recipe = "catalog._auth_manager.token_provider._refresh_token()"
    return pyiceberg("PyIceberg, `auth` of type `oauth2`", {"auth": {"type": "oauth2", "oauth2": oauth2}}, recipe)


def mcp():
    import httpx2
    from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider

    class Storage:
        tokens = client = None

        async def get_tokens(self):
            return self.tokens

        async def set_tokens(self, tokens):
            self.tokens = tokens

        async def get_client_info(self):
            return self.client

        async def set_client_info(self, client):
            self.client = client

    auth = ClientCredentialsOAuthProvider(f"{API}/mcp", Storage(), client_id=KEY, client_secret=SECRET, issuer=URL)
    client = httpx2.AsyncClient(auth=auth)

    async def call():
        return (await client.get(f"{API}/mcp")).status_code

    return Client("mcp", call, "", "MCP Python SDK")


def log_out():
    body = {"username": KEY, "password": SECRET}
    token = requests.post(f"{URL}/auth/login", json=body, timeout=120).json()["data"]["access_token"]
    answer = requests.post(f"{URL}/auth/logout", headers={"Authorization": f"Bearer {token}"}, timeout=120)
    assert answer.status_code == 200, answer.text


def seen():
    """How many tokens the API has seen."""
    return requests.get(f"{API}/seen", timeout=120).json()["tokens"]


def later(seconds, call):
    """What comes of a call that the client's clock puts so much later."""

    def monotonic():
        return time.clock_gettime(time.CLOCK_MONOTONIC) + seconds

    with time_machine.travel(time.time() + seconds), unittest.mock.patch("time.monotonic", monotonic):
        return call()


def measure(client):
    """What a client does whose token was revoked, and that the recipe ends it."""
    assert client.call(), f"{client.label}: it does not work at all"
    before = seen()
    client.call(), client.call()
    if seen() == before + 2:
        return "keeps no token: asks for one before each call"
    log_out()
    if client.call():
        return "recovers on the same call"
    if client.call():
        return "recovers on the next call"
    for early in EARLY:
        if later(LIFETIME - early - 5, client.call):
            raise AssertionError(f"{client.label}: recovers more than {early} s before the end, at none of the known times")
        if later(LIFETIME - early + 1, client.call):
            return f"dead until {early} s before the token expires" if early else "dead until the token expires"
    assert not later(LIFETIME + 3600, client.call), f"{client.label}: recovers long after the end"
    return "dead, also when the token has expired"


def row(make):
    client = make()
    found = measure(client)
    if client.recipe:
        log_out()
        client.help()
        assert client.call(), f"{client.label}: its recipe does not help"
    return {
        "label": client.label,
        "version": importlib.metadata.version(client.package),
        "found": found,
        "recipe": client.recipe,
    }


def main():
    for make in [
        authlib_requests,
        authlib_httpx,
        authlib_httpx_async,
        requests_oauthlib,
        httpx_auth,
        requests_oauth2client,
        aiohttp_oauth2_client,
        oauth2_client,
        dlt,
        singer_sdk,
        pyiceberg_credential,
        pyiceberg_oauth2,
        mcp,
    ]:
        # Some change what others use, so each has a process of its own.
        process = multiprocessing.get_context("fork").Process(target=tell, args=(make,))
        process.start()
        process.join(60)
        if process.exitcode != 0:
            process.kill()
            print(json.dumps({"label": make.__name__, "failed": f"ended with {process.exitcode}"}), flush=True)


def tell(make):
    try:
        print(json.dumps(row(make)), flush=True)
    except Exception as error:
        print(json.dumps({"label": make.__name__, "failed": repr(error)}), flush=True)


main()
