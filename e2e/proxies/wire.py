"""HTTP as a client may write it: any header, any number of times, from any loopback address."""

import http.client
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DEADLINE = 15


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
                text = b"upstream"
                self.send_response(200)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_OPTIONS = do_PATCH = handle_any

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
