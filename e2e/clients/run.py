#!/usr/bin/env python3
"""What stock OAuth clients do after a logout, and what helps them.

    e2e/clients/run.py BINARY [--table]

Runs the libraries that requirements.txt and package.json pin, and Debian's of Go and Ruby, unmodified, each by itself: it asks an API,
its client is logged out, it asks again, and so on with its clock set ahead. Then its recipe is run, and it must work. The
table in docs/clients.md must be what was seen; --table prints it. Needs python3 with venv, node, npm, go,
golang-golang-x-oauth2-dev, ruby-oauth2, ruby-rack-oauth2, and Prometheus with its Alertmanager and blackbox_exporter. What pip and npm fetch is kept in E2E_CACHE, by default rescind-e2e in the user's cache folder.
"""

import argparse
import http.client
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading

sys.dont_write_bytecode = True

import monitors  # noqa: E402
from tools import HERE, Quiet, Rescind, compare, debian_version, environment  # noqa: E402
from pinned import node, python  # noqa: E402

HEAD = "| client | after a logout | what to run on a 401, before the request is repeated |"
PACKAGES = {
    "Go x/oauth2": "golang-golang-x-oauth2-dev",
    "Ruby oauth2": "ruby-oauth2",
    "Ruby rack-oauth2": "ruby-rack-oauth2",
}
OF_MONITORS = "| program | after a logout |"
# Debian 12's. The rows of another Debian's are only printed.
KNOWN = {"Go x/oauth2": "0.3.0", "Ruby oauth2": "1.4.4", "Ruby rack-oauth2": "1.21.3"}
# How long tokens are valid, in seconds. Go has no clock that could be set ahead.
LIFETIME, OF_GO = 300, 12


class API(http.server.BaseHTTPRequestHandler):
    """An API that asks Rescind about each request, and is also an MCP server's metadata and an Iceberg catalogue."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        here = f"http://{self.headers['Host']}"
        if self.path.startswith("/.well-known/oauth-protected-resource"):
            return self.say(200, {"resource": f"{here}/mcp", "authorization_servers": [self.server.url]})
        if self.path.startswith("/.well-known/"):
            return self.say(404, {})
        if self.path == "/seen":
            return self.say(200, {"tokens": len(self.server.tokens)})
        connection = http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=120)
        token = self.headers["Authorization"]
        self.server.tokens.add(token)
        connection.request("GET", "/verify", headers={"Authorization": token} if token else {})
        verdict = connection.getresponse()
        verdict.read()
        connection.close()
        if verdict.status != 200:
            return self.say(verdict.status, {}, verdict.headers["WWW-Authenticate"])
        self.say(200, {"defaults": {}, "overrides": {}} if self.path.startswith("/v1/config") else {"namespaces": []})

    do_GET = do_POST = answer

    def say(self, status, body, challenge=None):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if challenge:
            self.send_header("WWW-Authenticate", challenge)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    binary = os.path.abspath(options.binary)
    of_node = shutil.copy(os.path.join(HERE, "clients.mjs"), node(HERE))
    debian = {label: debian_version(package) for label, package in PACKAGES.items()}
    with tempfile.TemporaryDirectory(prefix="rescind-clients-") as folder:
        go = os.path.join(folder, "go")
        build = ["go", "build", "-o", go, os.path.join(HERE, "clients.go")]
        subprocess.run(build, env=os.environ | {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"}, check=True)
        ruby = ["ruby", os.path.join(HERE, "clients.rb"), json.dumps(debian)]
        programs = [ruby, [python(HERE), os.path.join(HERE, "clients.py")], ["node", of_node]]
        watching = monitors.rows(binary, folder)
        rows = seen(binary, folder, OF_GO, [[go, debian["Go x/oauth2"]]]) + seen(binary, folder, LIFETIME, programs)
    for row in rows:
        if "found" in row:
            recipe = f"`{row['recipe']}`" if row["recipe"] else "nothing to do"
            row["line"] = f"| {row['label']} {row['version']} | {row['found']} | {recipe} |"
            row["known"] = KNOWN.get(row["label"]) in (None, row["version"])
    if options.table:
        print("\n".join(row["line"] for row in rows + watching if "line" in row))
    sys.exit(compare("clients.md", HEAD, rows) | compare("clients.md", OF_MONITORS, watching))


def seen(binary, folder, lifetime, programs):
    """The rows that the programs print, which run beside each other, each with a client and an API of its own."""
    rescind, apis, running, rows = Rescind(binary, folder, lifetime), [], [], []
    try:
        for number, program in enumerate(programs):
            api = Quiet(API)
            api.url, api.tokens = rescind.url, set()
            apis.append(api)
            threading.Thread(target=api.serve_forever, daemon=True).start()
            names = os.path.join(folder, f"{lifetime}-{number}.json")
            known = {"url": rescind.url, "api": f"http://127.0.0.1:{api.server_port}", "lifetime": lifetime}
            # The MCP SDKs ask for a token for their API (RFC 8707), by the URL in its metadata.
            app = rescind.client("--scope", "orders:read", "--resource", f"{known['api']}/mcp")
            with open(names, "w", encoding="utf-8") as file:
                json.dump(known | {"app": app}, file)
            running.append(subprocess.Popen([*program, names], stdout=subprocess.PIPE, env=environment(), text=True))
        for program, process in zip(programs, running):
            lines, _ = process.communicate(timeout=240)
            rows += [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
            if process.returncode:
                rows.append({"label": program[-1], "failed": f"ended with {process.returncode}"})
        return rows
    finally:
        for process in running:
            process.kill()
        for api in apis:
            api.shutdown()
        rescind.stop()


if __name__ == "__main__":
    main()
