"""What passes through a proxy besides plain requests, and which way it goes: a part of the checks."""

import os
import posixpath
import socket
import subprocess
import threading
import time
import urllib.parse

from wire import ask_2, bearer

STREAM_SECONDS = 40
UPGRADE = (
    "Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
UPLOAD = os.urandom(10 * 1024 * 1024)


class Traffic:
    def locations(self):
        scoped, plain = self.rescind.login(self.world.client), self.rescind.login(self.world.plain)
        for path in ("/", "/other/orders", "/.well-known/x", "/a%20b?next=//x/../%2f;", "/caf%C3%A9"):
            self.is_(f"{path} needs no scope", self.send(plain, path=path).status, 200)
        for path in ("/orders", "/orders/", "/orders/7?x", "/orders.json", "/orders?scope=x", "/orders?"):
            self.refused(f"{path} needs one", self.send(plain, path=path), 403, 'error="insufficient_scope"')
            self.let(f"{path} passes with it", self.send(scoped, path=path))
        for path in (
            "/x/../orders", "//orders", "/./orders", "/%6frders", "/%4F", "/x;/../orders", "/;x/orders", "/x%2f..%2forders",
            "/%2e%2e/orders", "/x/%2e%2e/orders", "/x\\..\\orders", "/x%5c..%5corders", "/%2forders", "/orders/..", "/x#/../orders",
            "/orders#x", "/x//../orders", "/..;/orders", "/x/..%3b/orders",
        ):
            self.send(plain, path=path)
            # What arrives, as an upstream that is generous may read it.
            arrived = self.upstream.seen[self.reached:]
            read = [urllib.parse.unquote(request["path"]).split("?")[0].replace("\\", "/") for request in arrived]
            read = [posixpath.normpath("/".join(part.split(";")[0] for part in path.split("/"))) for path in read]
            self.is_(f"{path} without a scope reaches no orders", [path for path in read if path.lstrip("/").startswith("orders")], [])

    def tls(self, run):
        """A proxy that reaches Rescind by TLS, and one that is told of another authority."""
        folder = os.path.join(self.world.folder, "tls")
        os.makedirs(folder)
        for name in ("ca", "other"):
            openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=DNS:localhost", "-keyout", "server.key", "-out", "server.csr")
        openssl(folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2",
                "-copy_extensions", "copy", "-out", "server.pem")
        good, revoked = self.rescind.login(self.world.client), self.rescind.login(self.world.plain)
        self.rescind.logout(revoked)
        address = socket.getaddrinfo("localhost", self.rescind.port, type=socket.SOCK_STREAM)[0][4][0]
        self.rescind.stop()
        self.rescind.start(
            RESCIND_SERVER__LISTEN=f"[{address}]:{self.rescind.port}" if ":" in address else f"{address}:{self.rescind.port}",
            RESCIND_SERVER__TRUSTED_PROXIES="127.0.0.1/32,::1/128",
            RESCIND_TLS__CERTIFICATE=f"{folder}/server.pem", RESCIND_TLS__KEY=f"{folder}/server.key",
        )
        for name in ("ca", "other"):
            ends = ["--rescind", f"https://localhost:{self.rescind.port}", "--rescind-ca", f"{folder}/{name}.pem"]
            with run(f"tls-{name}", *ends) as proxy:
                self.port = proxy.port
                if name == "ca":
                    self.let("a good token passes, asked by TLS", self.send(good))
                    self.refused("a revoked token is 401, asked by TLS", self.send(revoked), 401, 'error="invalid_token"')
                else:
                    self.denied("a certificate of another authority opens nothing", self.send(good), (500, 502, 503))
        self.rescind.stop()
        self.rescind.start()

    def upgrades(self):
        for upgrade in ("h2c", "x", "websocket, h2c", "tls/1.2"):
            tricks = [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", upgrade), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")]
            answer = self.send(self.token, tricks)
            if (self.kind, answer.status) in (("haproxy", 400), ("envoy", 403)):
                self.unmoved(f"a request for {upgrade} is refused", answer)
                continue
            self.let(f"a request for {upgrade} passes", answer)
            at_upstream = [value.lower() for value in self.headers("upgrade") if value.lower() != "websocket"]
            # Traefik drops HTTP/2, in which nobody would ask Rescind again, and passes what it does not know.
            known = [value for value in at_upstream if self.kind != "traefik" or "h2" in value]
            self.is_("  as one for no other protocol", known, [])

    def upload(self):
        for what, token, wanted in (("good", self.token, 200), ("bad", "nonsense", 401)):
            self.reached = len(self.upstream.seen)
            with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
                head = f"POST /upload HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n"
                connection.sendall(f"{head}Content-Length: {len(UPLOAD)}\r\n\r\n".encode())
                first = connection.recv(12).decode("latin-1")
                if first.endswith(" 100"):
                    connection.sendall(UPLOAD)
                    text = b""
                    while b" 200 " not in text and b" 4" not in text and (read := connection.recv(4096)):
                        text += read
                    first += text.decode("latin-1")
                status = 100 if wanted == 401 and " 100" in first[:12] else wanted if f" {wanted}" in first else 0
            self.is_(f"10 MB with Expect: a {what} token is {wanted}, before the body if that is no", status, wanted)
        arrived = self.upstream.seen[self.reached - 1]
        self.is_("10 MB arrive whole", (arrived["path"], arrived["body"] == UPLOAD), ("/upload", True))
        self.is_("and those with a bad token not at all", len(self.upstream.seen), self.reached)
        self.facts["upload"] = "asked first" if status == 401 else "not asked first"

    def http_2(self):
        def send(token, headers=(), method="GET", path="/", body=None):
            self.reached = len(self.upstream.seen)
            return ask_2(self.port, method, path, ([bearer(token)] if token else []) + list(headers), body)

        answer = send(self.token, path="/orders/7?a=1&scope=openid")
        self.let("HTTP/2: a good token passes", answer)
        self.facts["http2"] = "passes" if answer.status == 200 else str(answer.status)
        self.refused("HTTP/2: no token is 401", send(None), 401, "Bearer")
        self.refused("HTTP/2: a bad token is 401", send("nonsense"), 401, 'error="invalid_token"')
        self.refused("HTTP/2: an expired token is 401", send(self.world.expired), 401, 'error="invalid_token"')
        for name in ("x-rescind-client", "x_rescind_client", "x.rescind.client", "x-rescind-scopes", "x_rescind-session"):
            self.let(f"HTTP/2: forged {name} does not arrive", send(self.token, [(name, "forged")]))
        two = [bearer("nonsense"), bearer(self.token)]
        self.denied("HTTP/2: two Authorization headers", send(None, two), (400, 401))
        self.let("HTTP/2: a POST of 10 MB passes", send(self.token, method="POST", body=UPLOAD))
        self.is_("  and arrives whole", self.last()["body"] == UPLOAD, True)

    def preflight(self):
        """A browser's question before it sends a token: it has none itself, and is refused like any other request."""
        asked = [
            ("Origin", "https://app.example"), ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ]
        self.denied("a CORS preflight is 401", self.send(None, asked, method="OPTIONS"), (401,))
        self.facts["preflight"] = str(self.answer.status)

    def bounded(self, run, version):
        """The settings of docs/forward-auth.md that end a WebSocket though it is in use."""
        if self.kind == "envoy":
            change = ("timeout: 0s }", "timeout: 0s, max_stream_duration: { max_stream_duration: 1s } }")
        elif self.kind == "caddy" and version >= (2, 7):
            upstream = f"reverse_proxy 127.0.0.1:{self.upstream.port}"
            change = (f"{upstream}\n", f"{upstream} {{\n stream_timeout 1s\n }}\n")
        else:
            return
        with run("bounded", change=change) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port), 20) as connection:
                connection.settimeout(10)
                connection.sendall(request("/socket", self.token, UPGRADE))
                text = b""
                while part := connection.recv(4096):
                    text += part
            self.is_("a WebSocket with a bound is ended", text[:12], b"HTTP/1.1 101")

    # What stays open while the other checks run, Rescind is stopped and the client logs out.

    def streams(self):
        token = self.rescind.login(self.world.streaming)
        done = {}

        def follow(name, path, events):
            def read():
                started, connection = time.monotonic(), None
                try:
                    connection = socket.create_connection(("127.0.0.1", self.port), 20)
                    connection.settimeout(STREAM_SECONDS + 20)
                    connection.sendall(request(path, token))
                    text = b""
                    while b"\r\n0\r\n" not in text and (part := connection.recv(4096)):
                        if b"data: 0\n" in text + part and b"data: 0\n" not in text:
                            opened.release()
                        text += part
                    ended = [f"data: {number}\n".encode() in text for number in range(events)] == [True] * events
                    done[name] = (ended and b"\r\n0\r\n" in text, f"{time.monotonic() - started:.1f} s, {text[-200:]!r}")
                except OSError as why:
                    done[name] = (False, why)
                finally:
                    if connection:
                        connection.close()
                    opened.release()

            return threading.Thread(target=read, daemon=True)

        def socket_idle():
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20) as connection:
                    connection.sendall(request("/socket", token, UPGRADE))
                    head = b""
                    while b"\r\n\r\n" not in head and (part := connection.recv(4096)):
                        head += part
                    opened.release()
                    said = [head.startswith(b"HTTP/1.1 101")]
                    for idle in (0, STREAM_SECONDS):
                        time.sleep(idle if said[0] else 0)
                        # A text frame, as a client masks it.
                        connection.sendall(b"\x81\x85\0\0\0\0hello")
                        said.append(connection.recv(100) == b"\x81\x85\0\0\0\0hello")
                    done["websocket"] = (all(said), (head, said))
            except OSError as why:
                done["websocket"] = (False, why)
                opened.release()

        opened = threading.Semaphore(0)
        threads = [
            follow("stream", f"/events/{STREAM_SECONDS + 1}/1", STREAM_SECONDS + 1),
            follow("silence", f"/events/2/{STREAM_SECONDS}", 2),
            threading.Thread(target=socket_idle, daemon=True),
        ]
        for thread in threads:
            thread.start()
        for _ in threads:
            opened.acquire(timeout=120)
        self.rescind.logout(token)
        self.denied("their token is refused from now on", self.send(token), (401,))
        return threads, done

    def streamed(self, streams):
        threads, done = streams
        for thread in threads:
            thread.join(STREAM_SECONDS + 30)
        names = {
            "stream": f"a stream of {STREAM_SECONDS} s with an event each second arrives whole",
            "silence": f"a stream that is silent for {STREAM_SECONDS} s arrives whole",
            "websocket": f"a WebSocket that is idle for {STREAM_SECONDS} s goes on",
        }
        for name, what in names.items():
            good, got = done.get(name, (False, "not ended"))
            self.tell(what, good, got)
            self.facts[name] = "stays" if good else "ends"


def request(path, token, more=""):
    return f"GET {path} HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer {token}\r\n{more}\r\n".encode()


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
