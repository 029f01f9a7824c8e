"""What Prometheus, Alertmanager and blackbox_exporter do after a logout, Debian's, unmodified. They have no clock that could
be set ahead, so tokens are short, and what the API sees is measured."""

import base64
import http.server
import json
import os
import threading
import time
import urllib.error
import urllib.request

from tools import Child, Quiet, Rescind, debian_version, environment, free_port, wait_for

LIFETIME = 13
EARLY = [0, 10, 20, 30, 60]
# Debian 12's. The rows of another Debian's are only printed.
KNOWN = {"prometheus": "2.42.0+ds", "prometheus-alertmanager": "0.25.0", "prometheus-blackbox-exporter": "0.23.0"}
OAUTH2 = 'oauth2: {{client_id: "{api_key}", client_secret: "{api_secret}", token_url: "{url}/oauth2/token"}}'
PROMETHEUS = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}
scrape_configs:
- {{job_name: api, static_configs: [{{targets: ["{api}"]}}], {oauth2}}}
"""
ALERTMANAGER = """
route: {{receiver: api, group_wait: 0s, group_interval: 200ms, repeat_interval: 200ms}}
receivers:
- name: api
  webhook_configs: [{{url: "http://{api}/hook", http_config: {{{oauth2}}}}}]
"""
BLACKBOX = "modules: {{api: {{prober: http, http: {{{oauth2}}}}}}}"


class API(http.server.BaseHTTPRequestHandler):
    """Asks Rescind about each request, and records when it accepted or refused which token."""

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers["Authorization"] or ""
        request = urllib.request.Request(f"{self.server.rescind.url}/verify", headers={"Authorization": token})
        try:
            status = urllib.request.urlopen(request, timeout=120).status
        except urllib.error.HTTPError as error:
            status = error.code
        self.server.seen.append((time.time(), token, status))
        self.send_response(status)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(b"a 1\n")

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class World:
    def __init__(self, binary, folder):
        self.folder, self.rescind = folder, Rescind(binary, folder, LIFETIME)
        self.api = Quiet(API)
        self.api.rescind, self.api.seen = self.rescind, []
        threading.Thread(target=self.api.serve_forever, daemon=True).start()

    def start(self, name, template, *options):
        """A program with a client of its own."""
        folder, self.port = os.path.join(self.folder, name), free_port()
        os.mkdir(folder)
        app = self.rescind.client()
        config, self.client, self.api.seen = os.path.join(folder, "config.yml"), app["client_id"], []
        oauth2 = OAUTH2.format(url=self.rescind.url, **app)
        with open(config, "w") as file:
            file.write(template.format(api=f"127.0.0.1:{self.api.server_port}", oauth2=oauth2))
        listen = f"--web.listen-address=127.0.0.1:{self.port}"
        return Child([name, f"--config.file={config}", listen, *options], self.port, folder, environment())

    def wait(self, what, status):
        seen = self.api.seen
        wait_for(what, lambda: any(found == status for _, _, found in seen))

    def early(self):
        """How many seconds before the end of the token that was revoked another one is used."""
        self.wait("a first token is accepted", 200)
        self.rescind.run("client", "logout", str(self.client), "--yes")
        self.wait("the token is refused", 401)
        at = next(n for n, (_, _, status) in enumerate(self.api.seen) if status == 401)
        wait_for("another token is accepted", lambda: any(status == 200 for _, _, status in self.api.seen[at:]))
        recovered = next(when for when, _, status in self.api.seen[at:] if status == 200)
        payload = self.api.seen[at][1].split(".")[1]
        expires = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        # Whole seconds of the server, and the time between two requests of the program.
        return next(early for early in EARLY if abs(expires - recovered - early) < 1.5)

    def stop(self):
        self.api.shutdown()
        self.rescind.stop()


def prometheus(world):
    child = world.start("prometheus", PROMETHEUS, f"--storage.tsdb.path={world.folder}/tsdb")
    try:
        return f"the target is down until {world.early()} s before the token expires"
    finally:
        child.stop()


def alertmanager(world):
    options = [f"--storage.path={world.folder}/alertmanager", "--cluster.listen-address="]
    child = world.start("prometheus-alertmanager", ALERTMANAGER, *options)
    try:
        alert = json.dumps([{"labels": {"alertname": "a"}}]).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{world.port}/api/v2/alerts", alert, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=120)
        return f"each notification fails until {world.early()} s before the token expires"
    finally:
        child.stop()


def blackbox(world):
    child = world.start("prometheus-blackbox-exporter", BLACKBOX)
    probe = f"http://127.0.0.1:{world.port}/probe?module=api&target=http://127.0.0.1:{world.api.server_port}/"
    try:
        for n in range(3):
            with urllib.request.urlopen(probe, timeout=120) as answer:
                assert b"\nprobe_success 1" in answer.read(), f"probe {n} fails"
            world.rescind.run("client", "logout", str(world.client), "--yes")
        assert len({token for _, token, _ in world.api.seen}) == 3, "a token was used twice"
        return "none of its probes fails: it takes a new token for every one"
    finally:
        child.stop()


PROGRAMS = [
    ("Prometheus", "prometheus", "`oauth2` of a scrape job", prometheus),
    ("Alertmanager", "prometheus-alertmanager", "`oauth2` of a webhook", alertmanager),
    ("blackbox_exporter", "prometheus-blackbox-exporter", "`oauth2` of a module", blackbox),
]


def rows(binary, folder):
    world, seen = World(binary, folder), []
    try:
        for label, package, where, run in PROGRAMS:
            version = debian_version(package)
            try:
                line = f"| {label} {version.removesuffix('+ds')}, {where} | {run(world)} |"
                seen.append({"line": line, "known": version == KNOWN[package]})
            except Exception as error:
                seen.append({"label": label, "failed": repr(error)})
        return seen
    finally:
        world.stop()
