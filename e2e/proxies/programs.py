"""Rescind and the proxies, each a child process in a scratch folder, ended by its own id."""

import glob
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from wire import ask, bearer, data

# What each proxy needs around the printed configuration to run in the foreground in a scratch folder.
NGINX_AROUND = """
daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/rescind.conf;
}}
"""
CADDY_AROUND = "{{\n admin off\n auto_https off\n servers {{\n protocols {protocols}\n }}\n }}\n"
# The entry point is what the head of the printed file says.
TRAEFIK_AROUND = """
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
log: {{level: WARN}}
entryPoints:
  web:
    address: "127.0.0.1:{port}"
    http:
      aliasHeadersStrategy: delete
providers: {{file: {{filename: "{folder}/rescind.yaml"}}}}
"""


# A Rescind that is stopped must find its port again, so no other worker may use it meanwhile, nor the kernel
# for a connection: each process counts from a place of its own, below the kernel's range.
ports = itertools.count()


def free_port():
    while True:
        port = 10_000 + (os.getpid() * 97 + next(ports)) % 22_000
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def wait_for(what, condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def certificate(folder, *more):
    """A certificate for 127.0.0.1, which is its own authority, and its key. `more`: options of openssl."""
    files = os.path.join(folder, "tls.crt"), os.path.join(folder, "tls.key")
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=127.0.0.1".split()
    ends = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    subprocess.run(["openssl", *request, *ends, *more], check=True, capture_output=True)
    return files


class Child:
    """A process that is ready once it listens on `port`."""

    def __init__(self, command, port, folder, env=None):
        self.log = os.path.join(folder, "output.log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env=env)
        try:
            wait_for(command[0], lambda: self.process.poll() is not None or listens(port))
            if self.process.poll() is not None:
                with open(self.log, errors="replace") as log:
                    raise RuntimeError(f"{command} ended: {log.read()[-2000:]}")
        except RuntimeError:
            self.stop()
            raise

    def pause(self):
        """Every thread of it, before this returns."""
        self.process.send_signal(signal.SIGSTOP)
        wait_for("SIGSTOP", lambda: set(self.states()) == {"T"})

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def states(self):
        for stat in glob.glob(f"/proc/{self.process.pid}/task/*/stat"):
            with open(stat) as file:
                yield file.read().rsplit(")", 1)[1].split()[0]

    def stop(self):
        if self.process.poll() is None:
            self.resume()
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Rescind:
    def __init__(self, binary, folder, kind):
        self.binary, self.folder, self.child = binary, folder, None
        self.port, self.management = free_port(), free_port()
        # To Rescind this machine is the proxy, which has to name the caller. From elsewhere nobody reads it.
        self.caller = ("X-Real-IP" if kind == "envoy" else "X-Forwarded-For", "127.0.0.1")
        self.data_dir = os.path.join(folder, "data")
        self.config = os.path.join(folder, "rescind.toml")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RESCIND_")}
        with open(self.config, "w") as file:
            file.write(
                f'[server]\nlisten = "127.0.0.1:{self.port}"\nmanagement_listen = "127.0.0.1:{self.management}"\n'
                f'data_dir = "{self.data_dir}"\ntrusted_proxies = ["127.0.0.1/32"]\n'
                f'client_address_header = "{self.caller[0]}"\n[log]\nlevel = "warn"\n'
            )

    def start(self, **variables):
        command = [self.binary, "serve", "--config", self.config]
        self.child = Child(command, self.port, self.folder, {**self.env, **variables})

    def stop(self):
        if self.child:
            self.child.stop()

    def run(self, *arguments):
        command = [self.binary, *arguments, "--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=300)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def create_client(self, name, *arguments):
        return json.loads(self.run("client", "create", "--name", name, "--json", *arguments))

    def login(self, client, source="127.0.0.1", connection=None):
        body = json.dumps({"username": client["api_key"], "password": client["api_secret"]}).encode()
        headers = [("Content-Type", "application/json"), self.caller]
        send = connection.ask if connection else lambda *a: ask(self.port, *a, source=source)
        return data(send("POST", "/auth/login", headers, body))["access_token"]

    def logout(self, token, connection=None):
        send = connection.ask if connection else lambda *a: ask(self.port, *a)
        data(send("POST", "/auth/logout", [bearer(token), self.caller]))

    def proxy_config(self, proxy, port, upstream, *arguments):
        ends = ["--upstream", f"http://127.0.0.1:{upstream}", "--listen", f"127.0.0.1:{port}"]
        return self.run("proxy-config", proxy, *ends, *arguments)


class Proxy:
    """One proxy, run with what `rescind proxy-config` prints.

    Without TLS, nginx and Caddy speak HTTP/2 only where they are told to: with `http_2`. `change` is a text to replace
    in what is printed, and the text that replaces it.
    """

    def __init__(self, program, rescind, upstream, folder, *arguments, http_2=False, change=("", "")):
        self.kind, self.port, self.folder = program.kind, free_port(), folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        printed = rescind.proxy_config(self.kind, self.port, upstream.port, *arguments).replace(*change)
        run = [program.path]
        if self.kind == "nginx":
            user = "user root;" if os.geteuid() == 0 else ""
            listen = f"listen 127.0.0.1:{self.port}"
            self.write("rescind.conf", printed.replace(listen, f"{listen} http2") if http_2 else printed)
            config = self.write("nginx.conf", NGINX_AROUND.format(folder=folder, user=user))
            run += ["-p", folder, "-c", config, "-e", os.path.join(folder, "error.log")]
            self.check, self.command = run + ["-t"], run
        elif self.kind == "caddy":
            around = CADDY_AROUND.format(protocols="h1 h2c" if http_2 else "h1")
            config = self.write("Caddyfile", around + printed)
            options = ["--config", config, "--adapter", "caddyfile"]
            self.check, self.command = run + ["validate", *options], run + ["run", *options]
        elif self.kind == "haproxy":
            # Two on one machine need two names.
            name = f"rescind-verify-{self.port}"
            config = self.write("haproxy.cfg", printed.replace("rescind-verify", name))
            lua = rescind.proxy_config(self.kind, self.port, upstream.port, "--part", "lua", *arguments)
            self.write("rescind.lua", lua.replace("rescind-verify", name))
            self.check, self.command = run + ["-c", "-f", config], run + ["-db", "-f", config]
        elif self.kind == "traefik":
            self.write("rescind.yaml", printed)
            config = self.write("traefik.yml", TRAEFIK_AROUND.format(folder=folder, port=self.port))
            # It has no check of its own: it says what is wrong when it starts.
            self.check, self.command = None, run + [f"--configFile={config}"]
        else:
            config = self.write("envoy.yaml", printed)
            options = ["-c", config, "--disable-hot-restart", "--concurrency", "2", "-l", "warn"]
            self.check, self.command = run + ["--mode", "validate", *options], run + options
        self.env = {**os.environ, "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
        self.child = None

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def validate(self):
        """Its own word on the configuration: nothing, or what is wrong with it."""
        if self.check is None:
            return ""
        done = subprocess.run(self.check, capture_output=True, text=True, cwd=self.folder, env=self.env, timeout=300)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def __enter__(self):
        self.child = Child(self.command, self.port, self.folder, self.env)
        # Traefik listens before it has read its routers.
        if self.kind == "traefik":
            try:
                wait_for("routers", lambda: ask(self.port, "GET", "/").status != 404)
            except RuntimeError:
                self.child.stop()
                raise
        return self

    def __exit__(self, *_):
        self.child.stop()

    def said(self):
        with open(self.child.log, errors="replace") as log:
            return log.read()
