#!/usr/bin/env python3
"""Runs in a copy of a machine's files that is thrown away afterwards; run.py starts it.

    box.py package EARLIER PACKAGE      installs, drains, upgrades, restores, removes
    box.py image ROOT SETTINGS          starts the image's root file system as its settings (JSON) say
"""

import contextlib
import grp
import http.client
import json
import os
import pathlib
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time

PATIENCE = 300
SETTINGS = pathlib.Path("/etc/rescind/rescind.toml")
DATA = pathlib.Path("/var/lib/rescind")
UNIT = pathlib.Path("/lib/systemd/system/rescind.service")
KEY = pathlib.Path("/etc/rescind/master.key")
# Where no load balancer is to notice the end.
AT_ONCE = {"RESCIND_SERVER__SHUTDOWN_DELAY": "0s"}


def main(what, *arguments):
    {"package": package, "image": image}[what](*arguments)


def package(earlier, later):
    dpkg("--install", earlier)
    assert stat_of(SETTINGS) == ("root", "rescind", 0o640), stat_of(SETTINGS)
    assert stat_of(KEY) == ("root", "root", 0o600), stat_of(KEY)
    key = KEY.read_text()
    assert re.fullmatch("[0-9a-f]{64}", key), "the master key"
    for path in ("/usr/share/man/man1/rescind-client-create.1.gz", "/usr/share/bash-completion/completions/rescind"):
        assert pathlib.Path(path).stat().st_size > 0, path
    run("bash", "-n", "/usr/share/bash-completion/completions/rescind")

    one, two = free_ports(2), free_ports(2)
    with Service(one, variables=AT_ONCE) as service:
        service.word("READY=1")
        client = command("--json", "client", "create", "--name", "drained")
        token = login(one[0], client)["access_token"]
        service.signal(signal.SIGHUP)
        service.word("RELOADING=1")
        service.word("READY=1")
        service.ends_by(signal.SIGTERM)
    passed("the unit's command line starts, reloads and stops as its user, in its sandbox")

    # A second node that knows the same token, for HAProxy to turn to.
    copy = DATA.with_name("rescind-copy")
    run("cp", "-a", DATA, copy)
    with Service(one) as service, Service(two, copy) as other, haproxy("http", [one, two]) as (front, state):
        service.word("READY=1")
        other.word("READY=1")
        state("one", "UP")
        state("two", "UP")
        with Load(front, client, token) as load:
            load.goes_on()
            service.signal(signal.SIGTERM)
            service.word("STOPPING=1")
            state("one", "DOWN")
            load.goes_on()
            service.ends()
            dpkg("--install", later)
            service.start()
            service.word("READY=1")
            state("one", "UP")
            load.goes_on()
            # And the other, so that the upgraded one has all of it.
            other.signal(signal.SIGTERM)
            state("two", "DOWN")
            other.ends()
            load.goes_on()
        assert KEY.read_text() == key, "the upgrade made another master key"
        assert stat_of(SETTINGS) == ("root", "rescind", 0o640), stat_of(SETTINGS)
        backup = pathlib.Path("/root/backup.db")
        command("db", "backup", backup)
        service.ends_by(signal.SIGTERM)
    passed(f"drained and upgraded behind HAProxy: {load.done} requests, none failed")

    # Root's restore leaves no file to root.
    os.environ["RESCIND_MASTER_KEY_FILE"] = str(KEY)
    command("--yes", "db", "restore", backup)
    del os.environ["RESCIND_MASTER_KEY_FILE"]
    for path in [DATA, *DATA.iterdir()]:
        assert stat_of(path)[:2] == ("rescind", "rescind"), (path, stat_of(path))
    with Service(one, variables=AT_ONCE) as service:
        service.word("READY=1")
        login(one[0], client)
        assert command("--json", "client", "list")[0]["name"] == "drained"
        service.ends_by(signal.SIGTERM)
    passed("a backup is restored by root, and the service starts on it")

    for version in ("send-proxy", "send-proxy-v2"):
        balanced = AT_ONCE | {"RESCIND_SERVER__PROXY_PROTOCOL": "true", "RESCIND_SERVER__TRUSTED_PROXIES": "127.0.0.1/32"}
        with Service(one, variables=balanced) as service, haproxy("tcp", [one], version) as (front, _):
            service.word("READY=1")
            allowed = command("--json", "client", "create", "--name", version, "--allow", "127.0.0.7")
            assert login(front, allowed, source="127.0.0.7")["client_id"] == allowed["client_id"]
            assert login(front, allowed, source="127.0.0.8") == 403
            # Not through the balancer, and so its own caller.
            assert login(one[0], allowed, source="127.0.0.7")["client_id"] == allowed["client_id"]
            service.ends_by(signal.SIGTERM)
    passed("HAProxy names the caller by send-proxy and send-proxy-v2")

    dpkg("--remove", "rescind")
    assert not UNIT.exists() and DATA.exists() and KEY.exists()
    dpkg("--purge", "rescind")
    assert not DATA.exists() and not SETTINGS.parent.exists()
    passed("the package is removed, and what it left is purged")


def image(root, config):
    """As the image's settings say, read-only, on a volume such as Kubernetes makes it: root's, with the rights of fsGroup."""
    root, config, (public, management) = pathlib.Path(root), json.loads(config), free_ports(2)
    files = {path.relative_to(root).parts[0] for path in root.rglob("*") if path.is_file()}
    assert files == {"usr", "lib", "lib64", "etc"}, files
    volume = root / "var/lib/rescind"
    assert list(config["Volumes"]) == ["/var/lib/rescind"], config
    assert (volume.stat().st_uid, volume.stat().st_mode & 0o777) == (10001, 0o700), volume.stat()
    assert config["User"] == "10001:10001", config
    run("mount", "--bind", root, root)
    run("mount", "-o", "remount,bind,ro", root)
    run("mount", "-t", "tmpfs", "-o", "mode=2775,uid=0,gid=10001", "none", volume)
    environment = dict(variable.split("=", 1) for variable in config["Env"]) | AT_ONCE | {
        "RESCIND_SERVER__LISTEN": f"127.0.0.1:{public}", "RESCIND_SERVER__MANAGEMENT_LISTEN": f"127.0.0.1:{management}",
        "RESCIND_LOG__LEVEL": "warn",
    }
    within = ["chroot", f"--userspec={config['User']}", str(root)]
    server = subprocess.Popen([*within, *config["Entrypoint"], *config["Cmd"]], env=environment)
    try:
        until("the image is ready", lambda: status(management, "/readyz") == 200)
        kind, *health = config["Healthcheck"]["Test"]
        assert kind == "CMD"
        run(*within, *health, env=environment)
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
    passed("the image starts with a read-only root, its health check passes, and it stops")


class Service:
    """The command line of the installed unit, as its user, within what of its sandbox can be made without systemd: no rights,
    a read-only file system but for the state, a /tmp and a /home of its own, the credential, the notify socket."""

    def __init__(self, ports, data=DATA, variables=None):
        self.ports, self.data, self.variables = ports, data, variables or {}
        self.notify = pathlib.Path(f"/run/notify-{ports[0]}")

    def __enter__(self):
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(str(self.notify))
        self.notify.chmod(0o777)
        self.systemd.settimeout(PATIENCE)
        self.start()
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.systemd.close()
        self.notify.unlink()

    def start(self):
        unit = UNIT.read_text()
        words = dict(re.findall(r"^(ExecStart|User|LoadCredential|StateDirectory)=(.*)$", unit, re.M))
        environment = dict(word.split("=", 1) for word in re.findall(r"^Environment=(.*)$", unit, re.M))
        name, source = words["LoadCredential"].split(":")
        credentials = f"/run/credentials-{self.ports[0]}"
        environment = {key: value.replace("%d", credentials) for key, value in environment.items()}
        public, management = self.ports
        environment |= {
            "NOTIFY_SOCKET": str(self.notify), "RESCIND_SERVER__LISTEN": f"127.0.0.1:{public}",
            "RESCIND_SERVER__MANAGEMENT_LISTEN": f"127.0.0.1:{management}",
            "RESCIND_SERVER__DATA_DIR": str(self.data), "RESCIND_LOG__LEVEL": "warn", **self.variables,
        }
        assert pathlib.Path("/var/lib", words["StateDirectory"]) == DATA
        user = words["User"]
        script = f"""
            set -eu
            install -d -o {user} -g {user} -m 0700 {self.data} {credentials}
            install -o {user} -g {user} -m 0400 {source} {credentials}/{name}
            mount --rbind / /mnt
            for seen in / /run; do mount -o remount,bind,ro "/mnt$seen"; done
            mount --bind {self.data} /mnt{self.data}
            for own in /tmp /home; do mount -t tmpfs -o mode=1777 none "/mnt$own"; done
            ulimit -c 0
            umask 0077
            exec chroot /mnt setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --bounding-set=-all \
                --inh-caps=-all {words['ExecStart']}
        """
        self.process = subprocess.Popen(["unshare", "--mount", "sh", "-c", script], env=environment)

    def signal(self, number):
        self.process.send_signal(number)

    def word(self, wanted):
        """Waits until the service has told systemd this."""
        while wanted not in self.systemd.recv(256).decode().splitlines():
            pass

    def ends(self):
        assert self.process.wait(PATIENCE) == 0, self.process.returncode

    def ends_by(self, number):
        self.signal(number)
        self.ends()


class Load:
    """Verifications and logins, one after the other, over connections that stay open."""

    def __init__(self, port, client, token):
        self.port, self.client, self.token = port, client, token
        self.done, self.failed, self.stopped = 0, [], threading.Event()
        self.threads = [threading.Thread(target=self.work) for _ in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        assert not self.failed, self.failed[:5]

    def work(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        while not self.stopped.is_set():
            for ask in (self.verify, self.login):
                try:
                    answer = ask(connection)
                    body = answer.read()
                    if answer.status != 200:
                        self.failed.append((answer.status, body))
                except OSError as error:
                    self.failed.append(error)
                    connection.close()
                self.done += 1

    def verify(self, connection):
        connection.request("GET", "/verify", headers={"Authorization": f"Bearer {self.token}"})
        return connection.getresponse()

    def login(self, connection):
        body = json.dumps({"username": self.client["api_key"], "password": self.client["api_secret"]})
        connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
        return connection.getresponse()

    def goes_on(self):
        """Waits for further requests."""
        wanted = self.done + 200
        until("more requests", lambda: self.done > wanted or self.failed)


@contextlib.contextmanager
def haproxy(mode, nodes, proxy=""):
    """Yields the port, and a function that waits for a server's state. Nothing is asked twice."""
    control, path = f"/tmp/haproxy-{nodes[0][0]}", pathlib.Path(f"/tmp/haproxy-{nodes[0][0]}.cfg")
    check = "check port {1} inter 100ms fall 1 rise 1" if mode == "http" else ""
    servers = [f"server {name} 127.0.0.1:{{0}} {check} {proxy}".format(*node) for name, node in zip(("one", "two"), nodes)]
    lines = "\n    ".join(["option httpchk GET /readyz" if mode == "http" else "", *servers])

    def start():
        [port] = free_ports(1)
        path.write_text(f"""
global
    stats socket {control} level admin
defaults
    mode {mode}
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port}
    default_backend nodes
backend nodes
    {lines}
""")
        return port, subprocess.Popen(["haproxy", "-db", "-f", str(path)], stderr=subprocess.DEVNULL)

    def says(question):
        """What HAProxy answers, which it does once it listens. The socket of one that has ended answers nothing."""
        with socket.socket(socket.AF_UNIX) as connection:
            if connection.connect_ex(control):
                return ""
            connection.sendall(question)
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def state(server, wanted):
        until(f"{server} is {wanted}", lambda: any(
            line.split(",")[1:2] == [server] and line.split(",")[17].startswith(wanted)
            for line in says(b"show stat\n").splitlines()))

    port, process = start()

    def listens():
        nonlocal port, process
        # Another process may have taken the port meanwhile.
        if process.poll() is not None:
            port, process = start()
        return says(b"show info\n")

    try:
        until("HAProxy listens", listens)
        yield port, state
    finally:
        process.kill()
        process.wait()


def login(port, client, source=None):
    """What a login gives, or its status."""
    connection = http.client.HTTPConnection("127.0.0.1", port, PATIENCE, source_address=(source, 0) if source else None)
    body = json.dumps({"username": client["api_key"], "password": client["api_secret"]})
    connection.request("POST", "/auth/login", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = json.loads(answer.read())
    return data["data"] if answer.status == 200 else answer.status


def command(*words):
    """Runs a command as root, as an operator does. With --json, returns what it prints."""
    done = subprocess.run(["rescind", "--config", SETTINGS, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if "--json" in words else done.stdout


def dpkg(*words):
    run("dpkg", *words, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def run(*words, env=None):
    done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
    if done.returncode != 0:
        sys.exit(f"FAILED {words}: {done.stdout}")


def status(port, path):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.05)


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def stat_of(path):
    metadata = path.lstat()
    name = lambda uid: pwd.getpwuid(uid).pw_name  # noqa: E731
    return name(metadata.st_uid), grp.getgrgid(metadata.st_gid).gr_name, stat.S_IMODE(metadata.st_mode)


def passed(what):
    print(f"ok     {what}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
