#!/usr/bin/env python3
"""Two nodes of Rescind on three PostgreSQL servers that Patroni 4.1 leads, with synchronous_mode_strict: a switchover, the
loss of the leader's machine, and a leader that hangs.

    e2e/patroni/run.py BINARY

Needs Debian's postgresql, etcd-server and python3-venv. Installs Patroni in a scratch folder. All the time clients log in and
out; what a logout that was answered 200 has revoked must never be accepted again. Prints a line for each check and closes on
"N passed, N failed". Takes about two minutes: Patroni takes 20 s at least for a leader's death.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "poolers"))

from servers import BINARIES, SUPERUSER, USER, Answer, Child, Node, as_owner, folder_for, free_port, run, wait_for, write  # noqa: E402

PATRONI = ["patroni[etcd3]==4.1.5", "psycopg[binary]==3.3.9"]
# The least that Patroni takes for the first.
TTL, LOOP_WAIT, RETRY_TIMEOUT = 20, 2, 3
# Until both nodes serve, after another server was promoted.
RECOVERY = 15


def family(process):
    """A process, and all that it has started."""
    try:
        with open(f"/proc/{process}/task/{process}/children") as children:
            return [process, *(each for child in children.read().split() for each in family(int(child)))]
    except FileNotFoundError:
        return []


class Member:
    """PostgreSQL and the Patroni that runs it."""

    def __init__(self, name, patroni, folder, etcd):
        self.name, self.patroni, self.folder = name, patroni, folder_for(name, folder)
        self.port, self.api, self.data = free_port(), free_port(), f"{self.folder}/data"
        here = {"listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}"}
        api = {"listen": f"127.0.0.1:{self.api}", "connect_address": f"127.0.0.1:{self.api}"}
        shared = {
            "ttl": TTL,
            "loop_wait": LOOP_WAIT,
            "retry_timeout": RETRY_TIMEOUT,
            "synchronous_mode": True,
            "synchronous_mode_strict": True,
            "postgresql": {"use_pg_rewind": True, "parameters": {"wal_log_hints": "on", "max_connections": 100}},
        }
        server = {
            **here,
            "data_dir": self.data,
            "bin_dir": BINARIES,
            "pgpass": f"{self.folder}/pgpass",
            "authentication": {"superuser": {"username": SUPERUSER}, "replication": {"username": "replicator"}},
            "parameters": {"unix_socket_directories": ""},
            "pg_hba": ["host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
        }
        initdb = [{"encoding": "UTF8"}, {"locale": "C"}, {"auth": "trust"}, "no-sync"]
        self.config = write(
            f"{self.folder}/patroni.yml",
            # JSON is YAML too.
            json.dumps(
                {
                    "scope": "rescind",
                    "name": name,
                    "restapi": api,
                    "etcd3": {"host": f"127.0.0.1:{etcd}"},
                    "bootstrap": {"dcs": shared, "initdb": initdb},
                    "postgresql": server,
                }
            ),
        )
        self.child = None

    def start(self):
        self.child = Child(as_owner([self.patroni, self.config]), self.api, self.folder)

    def signal(self, number):
        """To every process of this machine, as it were."""
        first = [self.child.process.pid]
        with contextlib.suppress(OSError), open(f"{self.data}/postmaster.pid") as file:
            first.append(int(file.readline()))
        for process in [each for process in first for each in family(process)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)

    def ask(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.api}{path}", body and json.dumps(body).encode())
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(request, timeout=300 if body else 1) as answer:
            return json.loads(answer.read()) if path == "/cluster" else answer.status

    def stop(self):
        if self.child:
            self.signal(signal.SIGKILL)
            self.child.stop()


class Cluster:
    def __init__(self, folder, begin):
        # Debian's own: its user must be able to run it.
        subprocess.run(["/usr/bin/python3", "-m", "venv", f"{folder}/patroni"], check=True)
        pip = [f"{folder}/patroni/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PATRONI], check=True)
        client, peer = free_port(), free_port()
        at = f"http://127.0.0.1:{client}"
        with_peer = ["--listen-peer-urls", f"http://127.0.0.1:{peer}", "--data-dir", f"{folder}/etcd"]
        begin(Child(["etcd", "--listen-client-urls", at, "--advertise-client-urls", at, *with_peer], client, folder))
        self.members = [Member(name, f"{folder}/patroni/bin/patroni", folder, client) for name in ("db1", "db2", "db3")]
        for member in self.members:
            begin(member)
            member.start()
        self.wait_until_whole()

    def roles(self):
        for member in self.members:
            if shown := member.ask("/cluster"):
                return {each["name"]: (each["role"], each["state"]) for each in shown["members"]}
        return {}

    def named(self, role, but=()):
        names = [name for name, (has, state) in self.roles().items() if has == role and name not in but]
        return next((member for member in self.members if member.name in names), None)

    def wait_until_whole(self):
        def whole():
            shown = sorted(self.roles().values())
            roles = [role for role, state in shown if state in ("running", "streaming")]
            return roles == ["leader", "replica", "sync_standby"]

        wait_for("a leader, a synchronous stand-by and another one", whole, 120)

    def url(self):
        return f"postgres://{USER}@{','.join(f'127.0.0.1:{member.port}' for member in self.members)}/{USER}"


class Load:
    """Clients that log in and out, and the tokens that were revoked for sure."""

    def __init__(self, nodes):
        self.nodes, self.revoked, self.accepted, self.done = nodes, [], [], threading.Event()
        clients = [nodes[0].create_client() for _ in range(4)]
        self.threads = [threading.Thread(target=self.work, args=(client,)) for client in clients]
        for thread in self.threads:
            thread.start()

    def work(self, client):
        while not self.done.wait(0.05):
            one, other = random.sample(self.nodes, 2)
            tokens = one.login(client)
            if not isinstance(tokens, Answer) and other.logout(tokens) == 200:
                self.revoked.append(tokens)
            tokens = random.choice(self.revoked) if self.revoked else None
            if tokens and random.choice(self.nodes).verify(tokens) == 200:
                self.accepted.append(tokens)

    def stop(self):
        self.done.set()
        for thread in self.threads:
            thread.join()


class Checks:
    def __init__(self):
        self.passed = self.failed = 0

    def tell(self, what, good, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {what}" + (f": {detail}" if detail else ""), flush=True)

    def run(self, binary):
        with tempfile.TemporaryDirectory(prefix="rescind-patroni-") as folder, contextlib.ExitStack() as stack:
            os.chmod(folder, 0o755)

            def begin(started):
                stack.callback(started.stop)
                return started

            cluster = Cluster(folder, begin)
            leader = cluster.named("leader")
            for sql in (f"CREATE ROLE {USER} LOGIN", f"CREATE DATABASE {USER} OWNER {USER}"):
                run("psql", "-h", "127.0.0.1", "-p", str(leader.port), "-U", SUPERUSER, "-d", "postgres", "-Atqc", sql)
            nodes = [
                begin(Node(binary, folder, name, cluster.url(), RESCIND_CLUSTER__NODE_NAME=name)).start()
                for name in ("one", "two")
            ]
            self.client = nodes[0].create_client()
            load = begin(Load(nodes))
            for name in ("switchover", "failover", "hung"):
                before = len(load.revoked)
                wait_for("some logouts", lambda: len(load.revoked) > before + 10)
                getattr(self, name)(cluster, nodes)
                # All that was ever revoked, at each node.
                again = [tokens for tokens in load.revoked for node in nodes if node.verify(tokens) == 200]
                self.tell(f"{name}: of {len(load.revoked)} logouts none is undone", not (again or load.accepted))
                cluster.wait_until_whole()

    def served(self, what, cluster, nodes, old, strike):
        """Until each node renews its lease, counted from the promotion."""
        strike()
        wait_for("another leader", lambda: cluster.named("leader", but=[old.name]), 90)
        promoted = time.monotonic()
        wait_for("both nodes serve", lambda: all(node.ready().status == 200 for node in nodes), 60)
        took = time.monotonic() - promoted
        for node in nodes:
            node.logs_in(self.client)
        self.tell(f"{what}: both nodes serve", took < RECOVERY, f"{took:.1f} s after the new leader was seen")

    def switchover(self, cluster, nodes):
        old, candidate = cluster.named("leader"), cluster.named("sync_standby")
        plan = {"leader": old.name, "candidate": candidate.name}
        self.served("switchover", cluster, nodes, old, lambda: old.ask("/switchover", plan))

    def failover(self, cluster, nodes):
        old = cluster.named("leader")
        self.served("failover", cluster, nodes, old, lambda: old.signal(signal.SIGKILL))
        old.child.stop()
        old.start()

    def hung(self, cluster, nodes):
        old = cluster.named("leader")
        self.served("hung", cluster, nodes, old, lambda: old.signal(signal.SIGSTOP))
        old.signal(signal.SIGCONT)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: e2e/patroni/run.py BINARY")
    ran = Checks()
    try:
        ran.run(os.path.abspath(sys.argv[1]))
    except Exception:
        ran.tell("cut short", False, traceback.format_exc())
    print(f"{ran.passed} passed, {ran.failed} failed")
    sys.exit(1 if ran.failed else 0)


if __name__ == "__main__":
    main()
