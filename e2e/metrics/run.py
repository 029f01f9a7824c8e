#!/usr/bin/env python3
"""The metrics, the alert rules and the dashboard of packaging/ in a real Prometheus: e2e/metrics/run.py BINARY

Needs Debian's prometheus, which has promtool; starts it in the foreground on a free loopback port, never as a service. Prints
a line for each check and closes on "N passed, N failed".
"""

import json
import os
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../proxies"))

from programs import Child, Rescind, free_port, wait_for  # noqa: E402
from wire import ask, bearer  # noqa: E402

PACKAGING = os.path.join(HERE, "../../packaging")
passed = failed = 0


def check(what, good, detail=""):
    global passed, failed
    passed, failed = passed + bool(good), failed + (not good)
    print(f"{'ok     ' if good else 'FAILED '}{what}" + ("" if good else f": {detail}"), flush=True)


def promtool(*arguments, text=None):
    done = subprocess.run(["promtool", *arguments], input=text, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    def __init__(self, folder, target):
        self.port = free_port()
        config = os.path.join(folder, "prometheus.yml")
        with open(config, "w") as file:
            json.dump({"global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                       "rule_files": [os.path.abspath(os.path.join(PACKAGING, "alerts.yaml"))],
                       "scrape_configs": [{"job_name": "rescind", "static_configs": [{"targets": [target]}]}]}, file)
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data", "--log.level=warn",
                   f"--web.listen-address=127.0.0.1:{self.port}"]
        self.child = Child(command, self.port, folder)
        wait_for("Prometheus", lambda: ask(self.port, "GET", "/-/ready").status == 200)

    def api(self, path, **form):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(form)}"
        with urllib.request.urlopen(url, timeout=120) as answer:
            return json.load(answer)["data"]

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def value(self, expression):
        result = self.query(expression)
        return float(result[0]["value"][1]) if result else None

    def alerts(self):
        return sorted({alert["labels"]["alertname"] for alert in self.api("alerts")["alerts"]})


def use(rescind):
    """Some of everything that a healthy node does."""
    client = rescind.create_client("client", "--scope", "orders:read")
    body = json.dumps({"username": client["api_key"], "password": client["api_secret"]}).encode()
    headers = [("Content-Type", "application/json"), rescind.caller]
    pair = json.loads(ask(rescind.port, "POST", "/auth/login", headers, body).body)["data"]
    body = json.dumps({"refresh_token": pair["refresh_token"]}).encode()
    ask(rescind.port, "POST", "/auth/refresh", headers, body)
    for token in (pair["access_token"], "no token"):
        ask(rescind.port, "GET", "/verify", [bearer(token), rescind.caller])
    rescind.logout(pair["access_token"])


def main(binary):
    for what in (("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")):
        status, said = promtool(*what[:2], os.path.join(PACKAGING, what[2]))
        check(f"promtool {' '.join(what)}", status == 0, said)
    with tempfile.TemporaryDirectory(prefix="rescind-metrics-") as folder:
        rescind = Rescind(os.path.abspath(binary), folder, "nginx")
        rescind.start()
        prometheus = None
        try:
            rescind.run("db", "backup", os.path.join(folder, "backup"))
            use(rescind)
            answer = ask(rescind.management, "GET", "/metrics")
            status, said = promtool("check", "metrics", text=answer.body.decode())
            check("promtool check metrics", status == 0 and not said, said)
            os.mkdir(os.path.join(folder, "prometheus"))
            prometheus = Prometheus(os.path.join(folder, "prometheus"), f"127.0.0.1:{rescind.management}")
            wait_for("four scrapes", lambda: (prometheus.value('count_over_time(rescind_ready[1m])') or 0) >= 4)
            use(rescind)
            after = prometheus.value("sum(rescind_logins_total)")
            wait_for("the second use", lambda: prometheus.value("sum(rescind_logins_total)") > after)
            observe(prometheus)
            rescind.stop()
            wait_for("RescindDown", lambda: "RescindDown" in prometheus.alerts())
            check("a stopped node raises RescindDown", prometheus.alerts() == ["RescindDown"], prometheus.alerts())
        finally:
            if prometheus:
                prometheus.child.stop()
            rescind.stop()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


def observe(prometheus):
    rules = [rule for group in prometheus.api("rules")["groups"] for rule in group["rules"]]
    check(f"all {len(rules)} rules are evaluated", rules and all(rule["health"] == "ok" for rule in rules),
          [rule.get("lastError") for rule in rules])
    check("a healthy node raises no alert", prometheus.alerts() == [], prometheus.alerts())
    with open(os.path.join(PACKAGING, "grafana.json")) as file:
        panels = json.load(file)["panels"]
    for panel in panels:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "30s").replace("$job", "rescind")
            result = prometheus.query(expression)
            # Its description says why a panel may be empty.
            check(f"dashboard: {panel['title']}", result or "description" in panel, expression)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
