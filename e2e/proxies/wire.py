"""HTTP as a client may write it: any header, any number of times, from any loopback address."""

import base64
import hashlib
import http.client
import json
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Of a request that arrives here; Python's own limit is 100.
http.client._MAXHEADERS = 1000
# Traefik waits 30 s.
DEADLINE = 40


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = [(name.lower(), value) for name, value in response.getheaders()]
        self.body = response.read()

    @classmethod
    def none(cls, why):
        """No answer, or none that can be read."""
        answer = cls.__new__(cls)
        answer.status, answer.headers, answer.body = 0, [], repr(why).encode()
        return answer

    def all(self, name):
        return [value for have, value in self.headers if have == name]

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:200]!r}"


class Client:
    """A connection that stays open. `source` is the loopback address that the peer sees."""

    def __init__(self, port, source="127.0.0.1"):
        self.address, self.source, self.socket = ("127.0.0.1", port), source, None

    def ask(self, method, path, headers=(), body=None):
        lines = [f"{method} {path} HTTP/1.1", "Host: api.example"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body is not None and not any(name.lower() == "transfer-encoding" for name, _ in headers):
            lines.append(f"Content-Length: {len(body)}")
        request = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")
        if self.socket is None:
            self.socket = socket.create_connection(self.address, DEADLINE, (self.source, 0))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket.sendall(request)
            response = http.client.HTTPResponse(self.socket, method=method)
            response.begin()
            answer = Answer(response)
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if response.will_close:
            self.close()
        return answer

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def ask(port, method, path, headers=(), body=None, source="127.0.0.1"):
    """One request on a connection of its own."""
    client = Client(port, source)
    try:
        return client.ask(method, path, headers, body)
    except (OSError, http.client.HTTPException) as why:
        return Answer.none(why)
    finally:
        client.close()


def ask_2(port, method, path, headers=(), body=None):
    """The same over HTTP/2, on a port without TLS: curl knows how."""
    command = ["curl", "-sS", "--http2-prior-knowledge", "-m", str(DEADLINE), "-X", method, "-D", "-", "-o", "/dev/null"]
    for name, value in headers:
        command += ["-H", f"{name}: {value}"]
    if body is not None:
        command += ["--data-binary", "@-"]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}{path}"], input=body or b"", capture_output=True)
    lines = done.stdout.decode("latin-1").strip().split("\r\n")
    answer = Answer.none(done.stderr.decode())
    if lines[0].startswith("HTTP/2 "):
        answer.status = int(lines[0].split()[1])
        answer.headers = [tuple(line.split(": ", 1)) for line in lines[1:] if ": " in line]
    return answer


def bearer(token):
    return ("Authorization", f"Bearer {token}")


class Upstream:
    """What is protected: remembers each request that got through."""

    def __init__(self):
        self.seen = []
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self):
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                seen.append(
                    {"method": self.command, "path": self.path, "headers": headers, "body": self.read_body()}
                )
                if self.path == "/socket":
                    return self.echo()
                if self.path.startswith("/events/"):
                    return self.events(*map(float, self.path.split("/")[2:]))
                text = b"upstream"
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = handle_any

            def echo(self):
                """A WebSocket, as far as a proxy can tell. Without an upgrade it is no more than a 400."""
                if self.headers.get("Upgrade", "").lower() != "websocket":
                    return self.send_error(400)
                self.send_response(101)
                self.send_header("Upgrade", "websocket")
                self.send_header("Connection", "Upgrade")
                key = self.headers.get("Sec-WebSocket-Key", "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
                self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
                self.end_headers()
                self.close_connection = True
                while read := self.connection.recv(1000):
                    self.connection.sendall(read)

            def events(self, count, pause):
                """As many server-sent events, with a pause between them."""
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("X-Accel-Buffering", "no")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for number in range(int(count)):
                    if number:
                        time.sleep(pause)
                    event = f"data: {number}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.write(b"0\r\n\r\n")

            def read_body(self):
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_):
                pass

        self.server, self.port = serve(Handler, 0)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Impostor:
    """Something else where Rescind should be, answering everything with the same bytes."""

    def __init__(self, port, answer):
        class Handler(BaseHTTPRequestHandler):
            def handle(self):
                while self.rfile.readline().strip():
                    pass
                self.wfile.write(answer)

        self.server, _ = serve(Handler, port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def serve(handler, port):
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_):
            pass

    server = Server(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server, server.server_address[1]


def data(answer):
    """The `data` of a success."""
    if answer.status != 200:
        raise RuntimeError(f"expected 200: {answer}")
    return json.loads(answer.body)["data"]
