"""The OAuth endpoints, beside oidc-provider."""

import base64
import contextlib
import json
import shutil
import subprocess

from recipe.measure import HERE, started
from recipe.programs import ROOT, NotRun, Program, ask, free_port, needed, written

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class OidcProvider(Program):
    """One process of Node, as it is started by itself."""

    paths = {"token": "/token", "introspect": "/token/introspection", "revoke": "/token/revocation"}

    def __init__(self, bench):
        place = installed()
        node, port = needed("node", "nodejs"), free_port()
        self.who = {"api_key": "bench", "api_secret": "protects-nothing"}
        super().__init__([node, place / "server.mjs", port, *self.who.values()], port, env={"NODE_ENV": "production"})
        package = json.loads((place / "node_modules/oidc-provider/package.json").read_text())
        node_version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
        bench.versions |= {"oidc-provider": package["version"], "Node": node_version}


def installed():
    """Once, below target/."""
    place = ROOT / "target/bench/oidc-provider"
    wanted = (HERE / "oidc-provider/package.json").read_text()
    if not (place / "installed").exists() or (place / "installed").read_text() != wanted:
        npm = needed("npm", "npm")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(HERE / "oidc-provider", place)
        done = subprocess.run([npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"], cwd=place,
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotRun(f"oidc-provider could not be installed by npm: {done.stderr or done.stdout}")
        (place / "installed").write_text(wanted)
    shutil.copy(HERE / "oidc-provider/server.mjs", place)
    return place


PATHS = {"token": "/oauth2/token", "introspect": "/oauth2/introspect", "revoke": "/oauth2/revoke"}


def subjects_of(stack, bench):
    """Server, its paths and its client, by the name of the row."""
    for name, server in started(stack, bench).items():
        yield name, server, PATHS, server.client("gateway", "--scope", "introspect")
    with bench.unless_missing():
        other = stack.enter_context(OidcProvider(bench))
        yield "oidc-provider", other, OidcProvider.paths, other.who


def basic(who):
    pair = f"{who['api_key']}:{who['api_secret']}"
    return FORM | {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def warm(subjects):
    """Node compiles what has run often, which is not to be measured."""
    for sample in subjects.values():
        sample()
    return subjects


def introspect(bench):
    """Introspection of one token over 64 connections."""
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name, server, paths, who in subjects_of(stack, bench):
            headers = basic(who)
            token = ask(server.port, "POST", paths["token"], headers, "grant_type=client_credentials")[1]["access_token"]
            body = f"token={token}"
            if not ask(server.port, "POST", paths["introspect"], headers, body)[1]["active"]:
                raise RuntimeError(f"{name}: the token is not active")
            subjects[name] = lambda server=server, headers=headers, body=body, path=paths["introspect"]: bench.wrk(
                [server], server.url(path), 4, headers=headers, body=body)
        return bench.alternate(warm(subjects))


def oauth(bench):
    """Tokens by client credentials, and their revocation, over 64 connections. Rescind's are on disk.

    A revocation's step is a token and its revocation, and its times are those of the revocation."""
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name, server, paths, who in subjects_of(stack, bench):
            headers = basic(who)
            clients = written(server.folder / "client.json", [who])
            subjects[f"token: {name}"] = lambda server=server, headers=headers, path=paths["token"]: bench.wrk(
                [server], server.url(path), 3, headers=headers, body="grant_type=client_credentials")
            more = [f"--token-path={paths['token']}", f"--revoke-path={paths['revoke']}"]
            subjects[f"revocation: {name}"] = lambda server=server, clients=clients, more=more: bench.load(
                [server], server.port, "revoke", clients, 3, 64, more=more)
        return bench.alternate(warm(subjects))
