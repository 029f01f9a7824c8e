"""What must hold through every proxy. Numbers in brackets are those of the project's security checks."""

import os
import re
import sys
import time

from programs import Proxy, wait_for
from traffic import Traffic
from wire import Client, Impostor, ask, bearer

NAME = "Büro & Söhne"
SCOPES = "orders:read orders:write"
IDENTITY = ["x-rescind-client", "x-rescind-client-name", "x-rescind-scopes", "x-rescind-session"]
FORGED = "forged"
# The names of the identity headers, and what an upstream of the CGI kind takes for them.
ALIASES = [
    *IDENTITY, *[name.title() for name in IDENTITY], *[name.replace("-", "_") for name in IDENTITY],
    *[name.replace("-", ".") for name in IDENTITY], "X_Rescind-Client", "X-Rescind_Client",
    "X.Rescind_Client", "X!Rescind!Client", "X~Rescind-Session", "X-Rescind-Client.Name",
]
# Longer than any proxy waits for Rescind, and than Traefik does.
SLOW, SLOW_TRAEFIK = 8, 35
LOGOUT_SECONDS = 240


class World:
    """The clients and tokens that every check starts from."""

    def __init__(self, rescind, upstream, folder):
        self.rescind, self.upstream, self.folder = rescind, upstream, folder
        # A token's life is written in it, so it stays short once the service is back to an hour.
        rescind.start(RESCIND_TOKENS__ACCESS_TTL="1s")
        self.client = rescind.create_client(NAME, "--scope", "orders:read", "--scope", "orders:write")
        self.plain = rescind.create_client("plain")
        self.listed = rescind.create_client("listed", "--allow", "127.0.0.2/32")
        self.streaming = rescind.create_client("streaming")
        self.expired = rescind.login(self.client)
        rescind.stop()
        rescind.start()
        wait_for("expiry", lambda: b"Token expired" in self.verify(self.expired).body)

    def verify(self, token):
        return ask(self.rescind.port, "GET", "/verify", [bearer(token), self.rescind.caller])


class Checks(Traffic):
    def __init__(self, label):
        self.label, self.passed, self.failed, self.facts = label, 0, 0, {}

    def direct(self, world):
        """What the proxies count on, asked of Rescind itself."""
        token = world.rescind.login(world.client)
        for path in ("/verify", "/verify/", "/verify/orders/7", "/verify?path=/orders"):
            for method in ("GET", "HEAD", "POST"):
                answer = ask(world.rescind.port, method, path, [bearer(token), world.rescind.caller])
                got = (answer.status, answer.body, [len(answer.all(name)) for name in IDENTITY])
                self.is_(f"{method} {path} is 200, empty, with the whole identity", got, (200, b"", [1] * 4))
                self.is_(f"{method} {path} without a token is 401", ask(world.rescind.port, method, path).status, 401)
        for path in ("/verify?scope", "/verify?scope=", "/verify?scopes=x", "/verify?Scope=x", "/verify?scope=x&path=/y"):
            answer = ask(world.rescind.port, "GET", path, [bearer(token), world.rescind.caller])
            self.is_(f"{path} is 403 (105)", answer.status, 403)
        answer = ask(world.rescind.port, "GET", "/verify", [bearer(token)])
        self.is_("a proxy that names no caller is 403 (106)", answer.status, 403)
        for name in [*ALIASES, "X-Rescind-Admin"]:
            answer = ask(world.rescind.port, "GET", "/verify", [bearer(token), (name, FORGED)], source="127.0.0.3")
            self.is_(f"{name} from a stranger is 403", answer.status, 403)

    def proxy(self, program, world, logouts, turn):
        """`turn` is held while the processor is needed, so that not all proxies need it at once."""
        self.kind, self.world, self.rescind, self.upstream = program.kind, world, world.rescind, world.upstream

        def run(name, *arguments, **options):
            folder = os.path.join(world.folder, name)
            proxy = Proxy(program, self.rescind, self.upstream, folder, *arguments, **options)
            self.is_(f"{name}: the configuration is valid", proxy.validate(), "")
            return proxy

        with turn, run("scope", "--scope", "orders:read", "--scope", "orders:write") as scoped:
            self.port = scoped.port
            self.scope()
        with turn, run("locations", "--location", "/orders=orders:read") as located:
            self.port = located.port
            self.locations()
        with turn:
            self.tls(run)
            self.token = self.rescind.login(world.client)
        with turn, run("http-2", http_2=True) as proxy:
            self.port = proxy.port
            self.http_2()
        self.bounded(run, tuple(map(int, program.version.split("."))))
        with run("proxy") as proxy:
            self.port = proxy.port
            streams = self.streams()
            with turn:
                for check in (
                    self.good, self.bad_tokens, self.addresses, self.forged_identity, self.hop_by_hop, self.upgrades,
                    self.methods, self.upload, self.preflight,
                ):
                    check()
            self.slow()
            with turn:
                for check in (self.away, self.not_rescind, self.back):
                    check()
                self.logouts(logouts)
            self.streamed(streams)
            if self.kind == "traefik":
                # One is about upstreams, and left to whoever knows them.
                warnings = [line for line in proxy.said().splitlines() if "WRN" in line and "encoded characters" not in line]
                self.is_("it warns of nothing", warnings, [])

    # The checks

    def scope(self):
        scoped = self.rescind.login(self.world.client)
        self.let("a token with the scope passes", self.send(scoped))
        plain = self.rescind.login(self.world.plain)
        for path in ("/", "/?scope=", "/?", "/x?scope=none&a"):
            answer = self.send(plain, path=path)
            self.refused(f"{path}: a token without the scope is 403 (21)", answer, 403, 'error="insufficient_scope"')
        for query in ("scope=admin&aud=x", "a=1&scope=openid", "path=/&scope=x", "&scope", "scope=orders:read"):
            self.let(f"the client's own query {query} decides nothing (61)", self.send(scoped, path=f"/?{query}"))
            self.is_("  and arrives", self.last()["path"], f"/?{query}")

    def good(self):
        answer = self.send(self.token, path="/orders/7?a=1&scope=admin&aud=x")
        self.let("a good token passes, with its identity", answer)
        self.is_("path and query arrive as sent", self.last()["path"], "/orders/7?a=1&scope=admin&aud=x")
        self.is_("X-Forwarded-For is the caller", self.headers("x-forwarded-for"), ["127.0.0.1"])

    def bad_tokens(self):
        head, payload, mac = self.token.split(".")
        revoked = self.rescind.login(self.world.plain)
        self.rescind.logout(revoked)
        self.refused("no token is 401", self.send(None), 401, 'Bearer realm="rescind"')
        self.is_("no token: no error code (19)", "error=" in str(self.answer.all("www-authenticate")), False)
        for what, token in [
            ("malformed", "nonsense"), ("cut", self.token[:-1]), ("unsigned", f"{head}.{payload}."),
            ("resigned", f"{head}.{payload}.{mac[::-1]}"), ("expired", self.world.expired), ("revoked", revoked),
            ("garbage \\xff", "\xff\xfe"), ("long", "a" * 6000),
        ]:
            self.refused(f"{what} token is 401", self.send(token), 401, 'error="invalid_token"')
        self.refused("Basic is 401", self.send(None, [("Authorization", "Basic QTpC")]), 401, "Bearer")
        good, bad = bearer(self.token), bearer("nonsense")
        for what, pair in [("good, bad", (good, bad)), ("bad, good", (bad, good)), ("good, good", (good, good))]:
            self.denied(f"two Authorization headers: {what} (24)", self.send(None, pair), (400, 401))
        if self.kind == "nginx":
            self.denied("the location that asks is out of reach", self.send(self.token, path="/_rescind_verify"), (404,))

    def addresses(self):
        token = self.rescind.login(self.world.listed, source="127.0.0.2")
        self.send(token, source="127.0.0.2")
        self.is_("an address on the allowlist passes", self.answer.status, 200)
        forgeries = [
            [], [("X-Forwarded-For", "127.0.0.2")], [("x-forwarded-for", "127.0.0.2")] * 2,
            [("X-Forwarded-For", "127.0.0.2"), ("Connection", "X-Forwarded-For")],
            [("X-Real-IP", "127.0.0.2")], [("Forwarded", "for=127.0.0.2")], [("X_Forwarded_For", "127.0.0.2")],
            [("True-Client-IP", "127.0.0.2")],
        ]
        for source in ("127.0.0.3", "127.0.0.1"):
            for forged in forgeries:
                answer = self.send(token, forged, source=source)
                # Envoy takes no Connection header that names this one.
                refusals = (400, 403) if self.kind == "envoy" and len(forged) > 1 else (403,)
                self.denied(f"{source} is 403, whatever it says: {forged}", answer, refusals)
        answer = self.send(token, [("X-Forwarded-For", "203.0.113.9")], source="127.0.0.2")
        self.is_("a forged address does no harm to its sender", answer.status, 200)
        self.is_("and does not reach the upstream", self.headers("x-forwarded-for"), ["127.0.0.2"])
        claimed = [(name, "203.0.113.9") for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded")]
        self.let("an address that the client claims", self.send(self.token, claimed))
        self.is_("  reaches the upstream under no name", "203.0.113.9" in str(self.last()["headers"]), False)

    def forged_identity(self):
        for name in ALIASES:
            self.let(f"forged {name} does not arrive (60)", self.send(self.token, [(name, FORGED)]))
        self.let("all of them at once", self.send(self.token, [(name, FORGED) for name in ALIASES]))
        # nginx knows no pattern for names: of those without a meaning it strips the aliases alone.
        if self.kind != "nginx":
            self.let("forged X-Rescind-Admin does not arrive", self.send(self.token, [("X-Rescind-Admin", FORGED)]))
        forged = [("X-Rescind-Scopes", FORGED), ("X_Rescind_Scopes", FORGED)]
        answer = self.send(self.rescind.login(self.world.plain), forged)
        self.is_("a token without scopes passes", answer.status, 200)
        self.is_("and keeps no forged ones (CVE-2026-30851)", self.headers("x-rescind-scopes") in ([], [""]), True)
        self.is_("nor their aliases (CVE-2025-64484)", FORGED in str(self.last()["headers"]), False)

    def hop_by_hop(self):
        for lines in [
            ["Authorization, X-Forwarded-For"], ["X-Rescind-Client"], [", ".join(IDENTITY)], ["close, X-Rescind-Client"],
            ["keep-alive, Authorization"], ["upgrade, X-Rescind-Session, Authorization"],
            ["Upgrade", "X-Rescind-Client"], ["X-Rescind-Client", "upgrade"],
        ]:
            tricks = [("Connection", line) for line in lines] + [("Upgrade", "x")] * ("pgrade" in str(lines))
            if self.kind == "envoy" and "pgrade" in str(lines):
                self.denied(f"Connection: {' | '.join(lines)} with another Upgrade than a WebSocket is refused", self.send(self.token, tricks))
                continue
            if self.kind in ("traefik", "envoy") and "Authorization" in str(lines):
                what = f"Connection: {' | '.join(lines)} takes the token away"
                self.denied(what, self.send(self.token, tricks), (400, 401))
                if "X-Forwarded-For" not in str(lines):
                    self.facts["connection"] = str(self.answer.status)
                continue
            if "Authorization" in str(lines):
                self.facts["connection"] = "passes"
            self.let(f"Connection: {' | '.join(lines)} strips nothing (59, CVE-2024-45410, GHSA-w9mr-28mw-j8hg)", self.send(self.token, tricks))
            at_upstream = ",".join(self.headers("connection")).lower()
            self.is_("  nor is it passed on", re.sub(r"close|keep-alive|upgrade|[ ,]", "", at_upstream), "")
            self.is_("  X-Forwarded-For is the caller", self.headers("x-forwarded-for"), ["127.0.0.1"])
            self.denied("  and it opens nothing", self.send("nonsense", tricks), (401,))

    def methods(self):
        for method, body in [("GET", None), ("DELETE", None), ("OPTIONS", None), ("POST", b"x" * 100_000), ("PUT", b"{}")]:
            self.let(f"{method} passes", self.send(self.token, method=method, body=body))
            self.is_(f"{method} arrives whole", (self.last()["method"], self.last()["body"]), (method, body or b""))
            self.denied(f"{method} without a token is 401", self.send(None, method=method, body=body), (401,))
        chunked = [("Transfer-Encoding", "chunked")]
        self.let("chunked POST passes", self.send(self.token, chunked, method="POST", body=b"3\r\nabc\r\n0\r\n\r\n"))
        self.is_("chunked POST arrives whole", self.last()["body"], b"abc")
        self.send(self.token, method="HEAD")
        self.is_("HEAD passes", (self.answer.status, self.last()["method"]), (200, "HEAD"))
        self.denied("HEAD without a token is 401", self.send(None, method="HEAD"), (401,))
        self.let("98 headers pass", self.send(self.token, [(f"X-Client-Info-{number}", "x") for number in range(96)]))

    def slow(self):
        self.rescind.child.pause()
        try:
            started = time.monotonic()
            answer = self.send(self.token)
            took = time.monotonic() - started
            self.denied(f"Rescind too slow: denied after {took:.1f} s (CVE-2024-23324)", answer)
            limit, most = (30, SLOW_TRAEFIK) if self.kind == "traefik" else (2, SLOW)
            self.is_("  that is, in time", limit - 0.1 < took < most, True)
            # On a machine with other work an answer may come a little after the limit.
            self.facts["hung"] = f"{answer.status} after {limit} s"
        finally:
            self.rescind.child.resume()
        self.let("and passes once it answers again", self.send(self.token))

    def away(self):
        self.rescind.stop()
        for what, token in [("good token", self.token), ("bad token", "nonsense"), ("no token", None)]:
            self.denied(f"Rescind away: {what} denied (CVE-2024-23324)", self.send(token))
        self.facts["stopped"] = str(self.answer.status)

    def not_rescind(self):
        for status in (201, 202, 204, 206, 207, 299, 302, 304, 400, 404, 429, 500, 503):
            identity = "".join(f"{name}: 1\r\n" for name in IDENTITY)
            head = f"HTTP/1.1 {status} X\r\n{identity}Location: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            with Impostor(self.rescind.port, head.encode()):
                answer = self.send(self.token)
                # Traefik cannot be told that 200 is the only yes.
                if self.kind != "traefik" or status > 299:
                    self.unmoved(f"the answer {status} opens nothing", answer)
            if status == 503:
                self.facts["503"] = str(answer.status)
        for what, text in [("nothing", b""), ("garbage", b"yes\r\n\r\n"), ("half a head", b"HTTP/1.1 200 OK\r\nX-Resc")]:
            with Impostor(self.rescind.port, text):
                self.denied(f"{what} for an answer opens nothing", self.send(self.token))
        with Impostor(self.rescind.port, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"):
            before = len(self.upstream.seen)
            self.send(self.token, [(name, FORGED) for name in ALIASES])
            names = [self.plain_name(n) for r in self.upstream.seen[before:] for n, _ in r["headers"]]
            self.is_("200 without an identity leaves none", [n for n in names if n.startswith("x-rescind")], [])

    def back(self):
        self.rescind.start()
        wait_for("Rescind behind the proxy", lambda: self.send(self.token).status == 200)
        self.let("passes again once Rescind is back", self.send(self.token))

    def logouts(self, count):
        """What the project is for: after a logout's 200, the very next request is refused."""
        through, service = Client(self.port), Client(self.rescind.port)
        started, done, wrong = time.monotonic(), 0, []
        while done < count and time.monotonic() - started < LOGOUT_SECONDS and len(wrong) < 5:
            token = self.rescind.login(self.world.client, connection=service)
            before = through.ask("GET", "/", [bearer(token)]).status
            reached = len(self.upstream.seen)
            self.rescind.logout(token, connection=service)
            after = through.ask("GET", "/", [bearer(token)]).status
            if (before, after, len(self.upstream.seen)) != (200, 401, reached):
                wrong.append((done, before, after))
            done += 1
        took = time.monotonic() - started
        self.facts["logouts"] = f"{len(wrong)} of {done}"
        self.is_(f"{done} logouts in {took:.1f} s, the very next request refused each time", (done, wrong), (count, []))

    # How they are made and told

    def send(self, token, headers=(), method="GET", path="/", body=None, source="127.0.0.1"):
        self.reached = len(self.upstream.seen)
        headers = ([bearer(token)] if token is not None else []) + list(headers)
        self.answer = ask(self.port, method, path, headers, body, source)
        return self.answer

    def last(self):
        return self.upstream.seen[-1] if self.upstream.seen else {"method": "", "path": "", "headers": [], "body": b""}

    def headers(self, name):
        return [value for have, value in self.last()["headers"] if have == name]

    @staticmethod
    def plain_name(name):
        return re.sub(r"[^a-z0-9]", "-", name.lower())

    def let(self, what, answer):
        """200 from the upstream, which got the identity of the token and nothing like it besides."""
        if answer.status != 200 or len(self.upstream.seen) != self.reached + 1:
            return self.tell(what, False, answer)
        got = [(name, v) for name, v in self.last()["headers"] if self.plain_name(name).startswith("x-rescind")]
        client = str(self.world.client["client_id"])
        expected = [client, NAME.encode().decode("latin-1"), SCOPES]
        whole = [name for name, _ in sorted(got)] == IDENTITY
        self.tell(what, whole and [v for _, v in sorted(got)][:3] == expected and sorted(got)[3][1].isdigit(), got)

    def unmoved(self, what, answer):
        """The upstream knows nothing of it."""
        untouched = len(self.upstream.seen) == self.reached
        self.tell(what, untouched and not (answer.status == 200), (answer, "the upstream was reached" * (not untouched)))

    def denied(self, what, answer, statuses=(401, 403, 500, 502, 503, 504)):
        if answer.status in statuses:
            self.unmoved(what, answer)
        else:
            self.tell(what, False, answer)

    def refused(self, what, answer, status, challenge):
        """Rescind's own no, with one challenge."""
        challenges = answer.all("www-authenticate")
        if len(challenges) == 1 and challenge in challenges[0]:
            self.denied(what, answer, (status,))
        else:
            self.tell(what, False, answer)

    def is_(self, what, got, wanted):
        self.tell(what, got == wanted, f"{got!r} instead of {wanted!r}")
        return got == wanted

    def tell(self, what, good, got):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        # In one piece: others write too.
        line = f"ok     {self.label}: {what}\n" if good else f"FAILED {self.label}: {what}\n       {got}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
