#!/usr/bin/env python3
"""The axum example under an exact follower: e2e/axum.py RESCIND EXAMPLE

What logout has answered, the very next request meets; so does one after the example was stopped
meanwhile. With the service gone everything is refused when the lease has run out; with the service
back it recovers by itself. Then the same over TLS, with another certificate when the service is back.
Closes on "N passed, N failed".
"""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "proxies"))

from programs import certificate, free_port  # noqa: E402

WAIT = 3.6  # the longest that a logout waits, and that a lease runs
SLACK = 5.0  # for a busy machine
PATIENCE = 300.0
passed = failed = 0


def check(what, good, told=""):
    global passed, failed
    passed, failed = passed + good, failed + (not good)
    print(f"{'ok    ' if good else 'FAILED'} {what} {told}".rstrip())


def ask(port, method, path, token=None, body=None, tls=None):
    """The status and the body; None and nothing if nobody answers."""
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
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


def over_tls(rescind, example):
    folder = tempfile.TemporaryDirectory()
    public, management, api = free_port(), free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_")}
    made = []
    for which in ("first", "second"):
        os.mkdir(os.path.join(folder.name, which))
        # rustls takes no authority's certificate for a server's.
        made.append(certificate(os.path.join(folder.name, which), "-addext", "basicConstraints=critical,CA:FALSE"))
    # Each certificate is self-signed, and both are trusted.
    authorities = os.path.join(folder.name, "authorities.pem")
    with open(authorities, "w") as both:
        for name, _ in made:
            with open(name) as one:
                both.write(one.read())
    tls = ssl.create_default_context(cafile=authorities)
    config = os.path.join(folder.name, "rescind.toml")
    running = []

    def start(*command):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment)
        running.append(process)
        return process

    def serve(files):
        with open(config, "w") as text:
            text.write(f"""[server]
data_dir = "{folder.name}/data"
listen = "127.0.0.1:{public}"
management_listen = "127.0.0.1:{management}"
[tls]
certificate = "{files[0]}"
key = "{files[1]}"
management = true
""")
        server = start(rescind, "serve", "--config", config)
        seconds_until(lambda: ask(management, "GET", "/readyz", tls=tls)[0] == 200)
        return server

    def cli(*words):
        return json.loads(subprocess.check_output([rescind, *words, "--json", "--config", config], env=environment))

    def standing():
        credentials = {"username": client["api_key"], "password": client["api_secret"]}
        token = json.loads(ask(public, "POST", "/auth/login", body=credentials, tls=tls)[1])["data"]["access_token"]
        return token if seconds_until(lambda: ask(api, "GET", "/", token)[0] == 200) is not None else None

    try:
        server = serve(made[0])
        client = cli("client", "create", "--name", "billing")
        verifier = cli("verifier", "create", "--name", "api", "--share-hs256")
        follower = start(example, verifier["token"], f"https://127.0.0.1:{management}", f"127.0.0.1:{api}", authorities)
        check("over TLS: a token stands", standing() is not None)
        refused = 0
        for _ in range(20):
            token = standing()
            answered = ask(public, "POST", "/auth/logout", token, tls=tls)[0]
            refused += answered == 200 and ask(api, "GET", "/", token)[0] in (401, 503)
        check("over TLS, 20 logouts: the very next request is refused", refused == 20)
        server.terminate()
        server.wait()
        server = serve(made[1])
        check("over TLS: with another certificate it recovers by itself", standing() is not None)
        follower.send_signal(signal.SIGINT)
        follower.wait()
    finally:
        for process in running:
            process.kill()
            process.wait()


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

    def standing():
        """A token that the example accepts."""
        token = login()
        return token if seconds_until(lambda: status(token) == 200) is not None else None

    def logout(token):
        """How long it takes, answered with 200."""
        begun = time.monotonic()
        answered = ask(public, "POST", "/auth/logout", token)[0]
        return time.monotonic() - begun if answered == 200 else float("inf")

    try:
        server = serve()
        client = cli("client", "create", "--name", "billing")
        verifier = cli("verifier", "create", "--name", "api", "--share-hs256")
        command = (example, verifier["token"], f"127.0.0.1:{management}", f"127.0.0.1:{api}")
        follower = start(*command)
        token = standing()
        check("a token stands", token is not None)
        check("and says who it is", ask(api, "GET", "/", token)[1] == "Hello billing, client 1.\n")
        check("no token", status(None) == 401)

        slowest, refused = 0, 0
        for _ in range(100):
            token = standing()
            slowest = max(slowest, logout(token))
            refused += status(token) in (401, 503)
        check("100 logouts: the very next request is refused", refused == 100, f"slowest logout {slowest:.3f} s")

        token = standing()
        follower.send_signal(signal.SIGSTOP)
        took = logout(token)
        follower.send_signal(signal.SIGCONT)
        check("a stopped follower holds a logout up no longer than its lease", took < WAIT + SLACK, f"{took:.3f} s")
        check("and refuses when it goes on", status(token) in (401, 503))

        token = standing()
        server.send_signal(signal.SIGKILL)
        server.wait()
        took = seconds_until(lambda: status(token) == 503)
        check("without the service: refused when the lease has run out",
              took is not None and took < WAIT + SLACK, f"{took:.3f} s")
        server = serve()
        took = seconds_until(lambda: status(token) == 200)
        check("with the service back: it recovers by itself", took is not None, f"{took:.3f} s")
        logout(token)
        check("and knows of a logout at once again", status(token) in (401, 503))

        token = standing()
        server.send_signal(signal.SIGKILL)
        server.wait()
        follower.send_signal(signal.SIGSTOP)
        server = serve()
        took = logout(token)
        follower.send_signal(signal.SIGCONT)
        check("a service just started waits for leases that it did not give", status(token) in (401, 503),
              f"{took:.3f} s")

        token = standing()
        follower.send_signal(signal.SIGINT)
        follower.wait()
        took = logout(token)
        check("nobody waits for a follower that has left", took < 2, f"{took:.3f} s")
    finally:
        for process in running:
            process.kill()
            process.wait()
    over_tls(rescind, example)
    print(f"\n{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
