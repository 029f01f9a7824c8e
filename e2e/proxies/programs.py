"""Rescind and the proxies, each a child process in a scratch folder, ended by its own id."""

import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import time

from wire import ask, bearer, data

# To Rescind this machine is the proxy, which has to name the caller. From elsewhere nobody reads it.
CALLER = ("X-Forwarded-For", "127.0.0.1")

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
CADDY_AROUND = "{ admin off\n auto_https off\n }\n"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, seconds=20):
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
    def __init__(self, binary, folder):
        self.binary, self.folder, self.port, self.child = binary, folder, free_port(), None
        self.data_dir = os.path.join(folder, "data")
        self.config = os.path.join(folder, "rescind.toml")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RESCIND_")}
        with open(self.config, "w") as file:
            file.write(
                f'[server]\nlisten = "127.0.0.1:{self.port}"\nmanagement_listen = "127.0.0.1:{free_port()}"\n'
                f'data_dir = "{self.data_dir}"\ntrusted_proxies = ["127.0.0.1/32"]\n'
                'client_address_header = "X-Forwarded-For"\n[log]\nlevel = "warn"\n'
            )

    def start(self, **variables):
        command = [self.binary, "serve", "--config", self.config]
        self.child = Child(command, self.port, self.folder, {**self.env, **variables})

    def stop(self):
        if self.child:
            self.child.stop()

    def run(self, *arguments):
        command = [self.binary, *arguments, "--config", self.config]
        done = subprocess.run(command, capture_output=True, text=True, env=self.env, timeout=60)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def create_client(self, name, *arguments):
        return json.loads(self.run("client", "create", "--name", name, "--json", *arguments))

    def login(self, client, source="127.0.0.1", connection=None):
        body = json.dumps({"username": client["api_key"], "password": client["api_secret"]}).encode()
        headers = [("Content-Type", "application/json"), CALLER]
        send = connection.ask if connection else lambda *a: ask(self.port, *a, source=source)
        return data(send("POST", "/auth/login", headers, body))["access_token"]

    def logout(self, token, connection=None):
        send = connection.ask if connection else lambda *a: ask(self.port, *a)
        data(send("POST", "/auth/logout", [bearer(token), CALLER]))

    def proxy_config(self, proxy, port, upstream, *arguments):
        ends = ["--upstream", f"http://127.0.0.1:{upstream}", "--listen", f"127.0.0.1:{port}"]
        return self.run("proxy-config", proxy, *ends, *arguments)


class Proxy:
    """One proxy, run with what `rescind proxy-config` prints."""

    def __init__(self, name, rescind, upstream, folder, *arguments):
        self.name, self.port, self.folder = name, free_port(), folder
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        printed = rescind.proxy_config(name, self.port, upstream.port, *arguments)
        if name == "nginx":
            user = "user root;" if os.geteuid() == 0 else ""
            self.write("rescind.conf", printed)
            config = self.write("nginx.conf", NGINX_AROUND.format(folder=folder, user=user))
            command = ["nginx", "-p", folder, "-c", config, "-e", os.path.join(folder, "error.log")]
            self.check, self.command = command + ["-t"], command
        elif name == "caddy":
            config = self.write("Caddyfile", CADDY_AROUND + printed)
            options = ["--config", config, "--adapter", "caddyfile"]
            self.check, self.command = ["caddy", "validate", *options], ["caddy", "run", *options]
        else:
            config = self.write("haproxy.cfg", printed)
            lua = rescind.proxy_config(name, self.port, upstream.port, "--part", "lua", *arguments)
            self.write("rescind.lua", lua)
            self.check, self.command = ["haproxy", "-c", "-f", config], ["haproxy", "-db", "-f", config]
        self.env = {**os.environ, "HOME": folder, "XDG_DATA_HOME": folder, "XDG_CONFIG_HOME": folder}
        self.child = None

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def validate(self):
        """Its own word on the configuration: nothing, or what is wrong with it."""
        done = subprocess.run(self.check, capture_output=True, text=True, cwd=self.folder, env=self.env, timeout=60)
        return "" if done.returncode == 0 else done.stdout + done.stderr

    def __enter__(self):
        self.child = Child(self.command, self.port, self.folder, self.env)
        return self

    def __exit__(self, *_):
        self.child.stop()
