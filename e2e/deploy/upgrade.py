#!/usr/bin/env python3
"""From an older build to this one: e2e/deploy/upgrade.py BEFORE AFTER

Two servers of the program BEFORE, behind HAProxy and under load, become servers of AFTER one after the other, on an embedded
store and on PostgreSQL (scripts/postgres). No request may fail, tokens and secrets from before stay valid, and a logout on one
version is exact on the other. An older program tells nobody that it will stop, so HAProxy is told first. Needs haproxy.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

from box import Load, PATIENCE, free_ports, haproxy, login, passed, status, until  # noqa: E402


class Server:
    """A server of a program in a folder."""

    def __init__(self, program, folder, ports, database):
        self.folder, self.ports = folder, ports
        self.environment = {
            "PATH": os.environ["PATH"], "RESCIND_MASTER_KEY": "5a" * 32, "RESCIND_SERVER__DATA_DIR": str(folder),
            "RESCIND_SERVER__LISTEN": f"127.0.0.1:{ports[0]}", "RESCIND_SERVER__MANAGEMENT_LISTEN": f"127.0.0.1:{ports[1]}",
            "RESCIND_LOG__LEVEL": "warn", **({"RESCIND_DATABASE__URL": database} if database else {}),
        }
        self.start(program)

    def start(self, program):
        self.program = program
        self.process = subprocess.Popen([program, "serve"], env=self.environment)
        until(f"{program} is ready", lambda: status(self.ports[1], "/readyz") == 200)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.process.returncode

    def kill(self):
        self.process.kill()
        self.process.wait()

    def command(self, *words, program=None):
        done = subprocess.run([program or self.program, "--json", "--yes", *words], env=self.environment, stdout=subprocess.PIPE,
                              check=True, text=True)
        return json.loads(done.stdout)


def upgraded(what, before, after, database):
    with contextlib.ExitStack() as end:
        folders = pathlib.Path(end.enter_context(tempfile.TemporaryDirectory()))
        ports = [free_ports(2), free_ports(2)]
        one = Server(before, folders / "one", ports[0], database)
        end.callback(one.kill)
        client = one.command("client", "create", "--name", "kept", "--scope", "orders:read")
        other = one.command("client", "create", "--name", "logged-out")
        token, ended = (login(ports[0][0], of)["access_token"] for of in (client, other))
        if not database:
            # A copy knows the same token, for HAProxy to turn to.
            one.stop()
            shutil.copytree(folders / "one", folders / "two", ignore=shutil.ignore_patterns("rescind.sock"))
            one.start(before)
        two = Server(before, folders / "two", ports[1], database)
        end.callback(two.kill)
        front, state = end.enter_context(haproxy("http", ports))
        for name in ("one", "two"):
            state(name, "UP")
        with Load(front, client, token) as load:
            load.goes_on()
            for name, server in (("one", one), ("two", two)):
                asked(ports, f"set server nodes/{name} state drain")
                load.goes_on()
                until(f"{name} is idle", lambda: idle(ports, name))
                server.stop()
                server.start(after)
                asked(ports, f"set server nodes/{name} state ready")
                state(name, "UP")
                load.goes_on()
                if database and name == "one":
                    # The new version logs out, and the older one refuses.
                    assert verified(two, ended) == 200
                    one.command("client", "logout", str(other["client_id"]))
                    assert (verified(one, ended), verified(two, ended)) == (401, 401)
        assert one.command("client", "list")[0]["name"] == "kept"
        assert verified(two, token) == 200
        if not database:
            one.stop()
            back = subprocess.run([before, "client", "list"], env=one.environment, capture_output=True, text=True, check=False)
            assert back.returncode == 1 and "newer" in back.stderr, back
        passed(f"{what}: two servers were upgraded behind HAProxy: {load.done} requests, none failed")


def idle(ports, name):
    """Whether HAProxy has no request at the server."""
    rows = [line.split(",") for line in asked(ports, "show stat").splitlines()]
    return all(row[4] == "0" for row in rows if row[1:2] == [name])


def asked(ports, line):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"/tmp/haproxy-{ports[0][0]}")
        connection.sendall(f"{line}\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def verified(server, token):
    connection = http.client.HTTPConnection("127.0.0.1", server.ports[0], timeout=PATIENCE)
    connection.request("GET", "/verify", headers={"Authorization": f"Bearer {token}"})
    return connection.getresponse().status


def main(before, after):
    upgraded("embedded store", before, after, None)
    root = pathlib.Path(__file__).resolve().parents[2]
    with subprocess.Popen([root / "scripts/postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as postgres:
        upgraded("PostgreSQL", before, after, postgres.stdout.readline().strip())
        postgres.stdin.close()
    print("upgrade: all passed")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*(str(pathlib.Path(path).resolve()) for path in sys.argv[1:]))
