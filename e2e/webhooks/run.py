#!/usr/bin/env python3
"""Webhooks at a receiver that verifies them with the library of Standard Webhooks.

    e2e/webhooks/run.py BINARY

What requirements.txt pins is kept in E2E_CACHE, by default rescind-e2e in the user's cache folder. Prints a line for each check
and closes on "N passed, N failed".
"""

import base64
import http.server
import json
import os
import pathlib
import queue
import ssl
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "proxies"))

from pinned import python  # noqa: E402

# The rest of this program runs with the packages of requirements.txt.
PYTHON = str(python(HERE))
if sys.executable != PYTHON:
    os.execv(PYTHON, [PYTHON, *sys.argv])

from standardwebhooks.webhooks import Webhook, WebhookVerificationError  # noqa: E402

from programs import Child, free_port  # noqa: E402

PATIENCE = 300


def certificate(folder):
    """A certificate for 127.0.0.1 that an authority has signed; with its key, and the authority's certificate."""
    made, key, authority = (str(folder / name) for name in ("tls.crt", "tls.key", "ca.crt"))
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30".split()
    ends = ["-subj", "/CN=authority", "-out", authority, "-keyout", str(folder / "ca.key")]
    subprocess.run([*new, *ends], check=True, capture_output=True)
    ends = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", authority, "-CAkey", str(folder / "ca.key"), "-out", made, "-keyout", key]
    subprocess.run([*new, *ends], check=True, capture_output=True)
    return made, key, authority


class Receiver:
    """Answers every request with what the test has put there, and notes the request."""

    def __init__(self, files):
        self.requests, self.answers = queue.Queue(), queue.Queue()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.requests.put((self.path, dict(self.headers), body))
                status, headers = (204, {}) if outer.answers.empty() else outer.answers.get()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files[:2])
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self):
        return self.requests.get(timeout=PATIENCE)


class Run:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def tell(self, what, good, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok     ' if good else 'FAILED '}{what}" + ("" if good else f": {detail}"), flush=True)


def verified(secret, request):
    """The event, if the library verifies the request."""
    _, headers, body = request
    return Webhook(secret).verify(body, {name.lower(): value for name, value in headers.items()})


def refused(secret, request):
    try:
        verified(secret, request)
        return False
    except WebhookVerificationError:
        return True


def run(binary, folder):
    told = Run()
    files = certificate(folder)
    receiver = Receiver(files)
    secret = "whsec_" + base64.b64encode(os.urandom(32)).decode()
    (folder / "secret").write_text(secret + "\n")
    (folder / "secret").chmod(0o600)
    port, config, data = free_port(), folder / "rescind.toml", folder / "data"
    config.write_text(f"""
[server]
listen = "127.0.0.1:0"
management_listen = "127.0.0.1:{port}"
data_dir = "{data}"

[[webhook]]
name = "siem"
url = "https://127.0.0.1:{receiver.port}/hook?token=canary"
events = ["client_created", "client_suspended"]
secret_file = "{folder / "secret"}"
ca = "{files[2]}"
""")

    def rescind(*arguments):
        command = [binary, "--config", config, "--json", "--yes", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return json.loads(done.stdout) if done.stdout else done

    def serve():
        return Child([binary, "serve", "--config", config], port, folder)

    server = serve()
    try:
        tested = rescind("webhook", "test", "siem")
        if not tested["accepted"]:
            raise RuntimeError(tested["error"])
        request = receiver.next()
        told.tell("a test is verified by the library", verified(secret, request)["kind"] == "webhook_test", request)
        told.tell("the URL's query is sent", request[0] == "/hook?token=canary", request[0])

        rescind("client", "create", "--name", "Nord")
        request = receiver.next()
        event = verified(secret, request)
        listed = [e for e in rescind("audit", "list") if e["kind"] == "client_created"]
        told.tell("an event is what the audit log shows", [event] == listed, (event, listed))
        other = "whsec_" + base64.b64encode(os.urandom(32)).decode()
        told.tell("another secret verifies nothing", refused(other, request))
        changed = (request[0], request[1], request[2].replace(b"Nord", b"Sued"))
        told.tell("a changed body is refused", refused(secret, changed))

        receiver.answers.put((302, {"Location": f"https://127.0.0.1:{receiver.port}/elsewhere"}))
        rescind("client", "suspend", "1")
        first = receiver.next()
        again = receiver.next()
        told.tell("a redirect is not followed; the event is sent again", again[0] == first[0], again)
        told.tell("with the same id and body", (again[1]["webhook-id"], again[2]) == (first[1]["webhook-id"], first[2]))
        told.tell("and verified", verified(secret, again)["kind"] == "client_suspended")

        server.stop()
        rescind("client", "create", "--name", "while stopped")
        server = serve()
        event = verified(secret, receiver.next())
        told.tell("what happened while it was stopped is sent after the start", event["detail"] == "while stopped", event)
        log = pathlib.Path(server.log).read_text()
        told.tell("neither the secret nor the query is in the log", secret not in log and "canary" not in log)
        shown = json.dumps(rescind("webhook", "list"))
        told.tell("nor in the list", secret not in shown and "canary" not in shown and "siem" in shown, shown)
    finally:
        server.stop()
    print(f"{told.passed} passed, {told.failed} failed")
    return told.failed


def main():
    for name in [name for name in os.environ if name.startswith("RESCIND_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(1 if run(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(folder)) else 0)


if __name__ == "__main__":
    main()
