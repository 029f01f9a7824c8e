#!/usr/bin/env python3
"""The axum example under a follower: e2e/axum.py RESCIND EXAMPLE

Logout is seen within the bound; with the service gone everything is refused within the bound; with
the service back it recovers by itself. Closes on "N passed, N failed".
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

BOUND = 5.0
PATIENCE = 30.0
passed = failed = 0


def check(what, good, told=""):
    global passed, failed
    passed, failed = passed + good, failed + (not good)
    print(f"{'ok    ' if good else 'FAILED'} {what} {told}".rstrip())


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, method, path, token=None, body=None):
    """The status and the body; None and nothing if nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, body and json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError:
        return None, ""
    finally:
        connection.close()


def seconds_until(condition):
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + PATIENCE:
            return None
        time.sleep(0.005)
    return time.monotonic() - begun


def main(rescind, example):
    folder = tempfile.TemporaryDirectory()
    public, management, api = free_port(), free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_")}
    running = []

    def start(*command):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        running.append(process)
        return process

    def serve():
        server = start(rescind, "serve", "--data-dir", folder.name, "--listen", f"127.0.0.1:{public}",
                       "--management-listen", f"127.0.0.1:{management}")
        seconds_until(lambda: ask(management, "GET", "/readyz")[0] == 200)
        return server

    def cli(*words):
        command = [rescind, *words, "--json", "--data-dir", folder.name]
        return json.loads(subprocess.check_output(command, env=environment))

    def login():
        credentials = {"username": client["api_key"], "password": client["api_secret"]}
        return json.loads(ask(public, "POST", "/auth/login", body=credentials)[1])["data"]["access_token"]

    def status(token):
        return ask(api, "GET", "/", token)[0]

    try:
        server = serve()
        client = cli("client", "create", "--name", "billing")
        verifier = cli("verifier", "create", "--name", "api", "--share-hs256")
        start(example, verifier["token"], f"127.0.0.1:{management}", f"127.0.0.1:{api}")
        token = login()
        check("a token stands", seconds_until(lambda: status(token) == 200) is not None)
        check("and says who it is", ask(api, "GET", "/", token)[1] == "Hello billing, client 1.\n")
        check("no token", status(None) == 401)

        ask(public, "POST", "/auth/logout", token)
        took = seconds_until(lambda: status(token) == 401)
        check("a logout is seen within the bound", took is not None and took < BOUND, f"{took:.3f} s")
        token = login()
        check("a new login stands", seconds_until(lambda: status(token) == 200) is not None)

        server.send_signal(signal.SIGKILL)
        server.wait()
        took = seconds_until(lambda: status(token) == 503)
        check("without the service: refused within the bound", took is not None and took < BOUND + 0.5, f"{took:.3f} s")
        serve()
        took = seconds_until(lambda: status(token) == 200)
        check("with the service back: it recovers by itself", took is not None, f"{took:.3f} s")
        ask(public, "POST", "/auth/logout", token)
        took = seconds_until(lambda: status(token) == 401)
        check("and sees a logout again", took is not None and took < BOUND, f"{took:.3f} s")
    finally:
        for process in running:
            process.kill()
            process.wait()
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
