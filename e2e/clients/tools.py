"""What the runners here share: a server, and the comparison with the documents."""

import http.server
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../proxies"))

from programs import Child, free_port, wait_for  # noqa: E402


def environment():
    """Nothing set outside reaches the programs, and nothing is asked by way of a proxy."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_")}
    return env | {"NO_PROXY": "*", "no_proxy": "*", "HOME": "/nonexistent"}


def debian_version(package):
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.split("-")[0]


class Rescind:
    def __init__(self, binary, folder, lifetime, scheme="http", **settings):
        self.binary, self.env = binary, environment()
        port, self.data = free_port(), os.path.join(folder, f"data-{lifetime}")
        self.url = f"{scheme}://127.0.0.1:{port}"
        settings |= {"TOKENS__ISSUER": self.url, "TOKENS__ACCESS_TTL": f"{lifetime}s", "LOG__LEVEL": "warn"}
        listeners = ["--listen", f"127.0.0.1:{port}", "--management-listen", "127.0.0.1:0"]
        env = self.env | {f"RESCIND_{name}": value for name, value in settings.items()}
        self.child = Child([binary, "serve", "--data-dir", self.data, *listeners], port, folder, env)

    def client(self, *arguments):
        command = [self.binary, "client", "create", "--json", "--data-dir", self.data, "--name", "c", *arguments]
        return json.loads(subprocess.run(command, env=self.env, check=True, capture_output=True).stdout)

    def run(self, *arguments):
        command = [self.binary, *arguments, "--data-dir", self.data]
        subprocess.run(command, env=self.env, check=True, capture_output=True)

    def stop(self):
        self.child.stop()


class Quiet(http.server.ThreadingHTTPServer):
    """Clients may end a connection at any time."""

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, *_):
        pass


def documented(path, head):
    """The rows of the one table with this head."""
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    at = lines.index(head) + 2
    end = next((n for n in range(at, len(lines)) if not lines[n].startswith("|")), len(lines))
    return lines[at:end]


def compare(name, head, rows):
    """Prints what was seen, and what of it the document has otherwise. A row whose `known` is false is only printed: another
    Debian has other versions. Returns the exit code."""
    inside = documented(os.path.join(HERE, "../../docs", name), head)
    failures = [f"{row['label']}: {row['failed']}" for row in rows if "failed" in row]
    lines = [row["line"] for row in rows if "line" in row]
    for row in rows:
        if "line" in row and row["line"] not in inside and row.get("known", True):
            failures.append(f"docs/{name} has not this row:\n       {row['line']}")
        elif "line" in row:
            print(f"ok     {row['line']}")
    if all(row.get("known", True) for row in rows):
        failures += [f"docs/{name} has a row that was not seen:\n       {line}" for line in inside if line not in lines]
    for failure in failures:
        print(f"FAILED {failure}")
    print(f"{len(lines)} seen, {len(failures)} failed")
    return 1 if failures or not rows else 0
