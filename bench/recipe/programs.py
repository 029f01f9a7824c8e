"""The programs that are measured, each in a folder of its own, ended by its own id."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from recipe import machine

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The fixed key of the tokens that bare hyper and Envoy check. It protects nothing.
SECRET = "the key of the tokens of a benchmark"
# How long anything here is waited for, in seconds. A program under valgrind, beside eight others, takes minutes to start.
PATIENCE = 600
# Only programs of this machine are asked. What was set for other programs reaches none of these.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RESCIND_")}


class NotRun(Exception):
    """A part, or one of its programs, cannot run here. The text says why."""


def needed(program, package):
    """Where the program is."""
    found = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not found:
        raise NotRun(f"{program} is missing (Debian: apt-get install {package})")
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition):
    until = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.001)
    return value


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Program:
    """A process, from `with` to its end. Its output is in `log`."""

    def __init__(self, command, port=None, env=None, folder=None):
        self.folder = pathlib.Path(folder or tempfile.mkdtemp(prefix="rescind-bench-"))
        self.own_folder = folder is None
        self.command = [str(word) for word in command]
        self.port, self.env, self.process = port, env or {}, None
        self.log = self.folder / "log"

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=ENVIRONMENT | self.env,
            )
        try:
            wait_for(self.command[0], self.is_ready)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_ready(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command[0]} ended: {self.log.read_text(errors='replace')[-2000:]}")
        return listens(self.port)

    def cpu_seconds(self):
        return machine.cpu_seconds(self.process.pid)

    def resident(self):
        return machine.resident(self.process.pid)

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.port}{path}"


class Rescind(Program):
    """`rescind serve`. Give a `data` folder to start it twice on the same store, or to choose the disk."""

    def __init__(self, program, data=None, env=None, under=()):
        folder = pathlib.Path(data or tempfile.mkdtemp(prefix="rescind-bench-"))
        self.program = str(program)
        command = [*under, program, "serve", "--data-dir", folder, "--listen", "127.0.0.1:0",
                   "--management-listen", "127.0.0.1:0"]
        super().__init__(command, env=env, folder=folder)
        self.own_folder = data is None

    def is_ready(self):
        """The log names the ports; /readyz says when it may answer, which is later in a cluster."""
        if self.process.poll() is not None:
            raise RuntimeError(f"rescind serve ended: {self.log.read_text(errors='replace')[-2000:]}")
        with open(self.log, errors="replace") as log:
            for line in log:
                if '"message":"serving"' in line and line.endswith("\n"):
                    serving = json.loads(line)
                    self.port = int(serving["listen"].rsplit(":", 1)[1])
                    self.management = int(serving["management"].rsplit(":", 1)[1])
                    return is_answered(self.management, "/readyz")
        return False

    def cli(self, *words):
        """What the command printed, by the running server."""
        command = [self.program, *map(str, words), "--data-dir", str(self.folder), "--json"]
        done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, timeout=PATIENCE, check=False)
        if done.returncode:
            raise RuntimeError(f"rescind {' '.join(map(str, words))}: {done.stderr.decode()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def client(self, name="client", *words):
        return self.cli("client", "create", "--name", name, *words)

    def counted(self, name):
        """The sum of a metric."""
        text = ask(self.management, "GET", "/metrics")[1]
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith((name + "{", name + " ")))

    def clients(self, count):
        """A file with so many, for `load`."""
        return written(self.folder / "clients.json", [self.client(f"client {i}") for i in range(count)])

    def log_in(self, client, headers=None):
        headers = {"Content-Type": "application/json"} | (headers or {})
        body = {"username": client["api_key"], "password": client["api_secret"]}
        return ask(self.port, "POST", "/auth/login", headers, body)[1]["data"]


class Bare(Program):
    """Hyper alone."""

    def __init__(self, helpers, headers, secret=None):
        port = free_port()
        command = [helpers / "bare", f"127.0.0.1:{port}", *(f"--header={name}:{value}" for name, value in headers)]
        super().__init__(command + (["--secret", secret] if secret else []), port)


class Nginx(Program):
    """With one `server` or more, which are the text of its `http` context."""

    AROUND = """
daemon off; worker_processes auto; pid {folder}/nginx.pid; error_log {folder}/error.log; {user}
events {{ worker_connections 4096; }}
http {{
    access_log off; server_tokens off; keepalive_requests 1000000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {http}
}}
"""

    def __init__(self, port, http):
        nginx = needed("nginx", "nginx-light")
        super().__init__([nginx], port)
        self.command += ["-p", str(self.folder), "-e", str(self.folder / "error.log"), "-c", str(self.folder / "conf")]
        user = "user root;" if os.getuid() == 0 else ""
        (self.folder / "conf").write_text(self.AROUND.format(folder=self.folder, user=user, http=http))

    @classmethod
    def returning(cls, headers):
        port = free_port()
        added = "".join(f'add_header {name} "{value}";' for name, value in headers)
        return cls(port, f"server {{ listen 127.0.0.1:{port}; location / {{ {added} return 200; }} }}")


class Postgres:
    """A temporary server, by scripts/postgres, which ends it when its input ends."""

    def __enter__(self):
        if not list(pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb")) and not shutil.which("initdb"):
            raise NotRun("PostgreSQL is missing (Debian: apt-get install postgresql)")
        self.process = subprocess.Popen(
            [ROOT / "scripts/postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise NotRun("PostgreSQL did not start")
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)

    def cpu_seconds(self):
        return machine.cpu_seconds(self.postmaster())

    def postmaster(self):
        port = self.url.rsplit(":", 1)[1].split("/")[0]
        for entry in pathlib.Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (OSError, NotADirectoryError):
                continue
            if words[0].endswith(b"/postgres") and port.encode() in words:
                return int(entry.name)
        raise RuntimeError("PostgreSQL has no process")

    def run(self, sql):
        done = subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.url, "-c", sql], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()


def ask(port, method, path, headers=None, body=None):
    """The headers of a 200 and its JSON, or its text if it is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text, headers or {})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {content.decode(errors='replace')}")
        is_json = "json" in answer.getheader("Content-Type", "")
        return answer.getheaders(), json.loads(content) if is_json else content.decode()
    finally:
        connection.close()


def is_answered(port, path):
    """With 200."""
    with contextlib.suppress(RuntimeError):
        ask(port, "GET", path)
        return True
    return False


def written(path, value):
    path.write_text(json.dumps(value))
    return path
