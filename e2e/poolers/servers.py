"""PostgreSQL with a stand-by, what may stand before it, and nodes of Rescind. Each is a child process in a
scratch folder, ended by its own id."""

import glob
import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "proxies"))

from programs import Child, free_port, wait_for  # noqa: E402
from wire import Answer, ask, bearer  # noqa: E402

SUPERUSER, USER, STANDBY = "postgres", "rescind", "standby"
BINARIES = max(glob.glob("/usr/lib/postgresql/*/bin"), default="/nowhere", key=lambda path: int(path.split("/")[4]))


def owned(path):
    """Neither the server nor PgBouncer runs as root."""
    if os.geteuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(path, user.pw_uid, user.pw_gid)
    return path


def as_owner(command):
    if os.geteuid() != 0:
        return command
    user = pwd.getpwnam("postgres")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]


def folder_for(name, folder):
    path = os.path.join(folder, name)
    os.makedirs(path)
    return owned(path)


def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return owned(path)


def run(*command, **more):
    done = subprocess.run(as_owner([*command]), capture_output=True, text=True, timeout=300, cwd="/", **more)
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout.strip()


class Database:
    """A primary, and a stand-by that it never commits without, and which applies late."""

    def __init__(self, folder, delay="0s"):
        self.primary, self.standby = os.path.join(folder, "primary"), os.path.join(folder, "standby")
        self.ports = {self.primary: free_port(), self.standby: free_port()}
        self.port, self.folder = self.ports[self.primary], folder
        program = f"{BINARIES}/initdb"
        run(program, "-D", self.primary, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        write(
            f"{self.primary}/postgresql.conf",
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = 200\n"
            f"recovery_min_apply_delay = '{delay}'\n"
            f"primary_conninfo = 'host=127.0.0.1 port={self.port} user={SUPERUSER} application_name={STANDBY}'\n",
        )
        self.children = {self.primary: self.start(self.primary)}
        self.sql(f"CREATE ROLE {USER} LOGIN")
        self.sql(f"CREATE DATABASE {USER} OWNER {USER}")
        copy = ["-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-X", "stream", "-c", "fast", "--no-sync"]
        run(f"{BINARIES}/pg_basebackup", *copy, "-D", self.standby)
        write(f"{self.standby}/standby.signal", "")
        self.start_standby()
        self.wait_for_names(STANDBY)
        wait_for("replication", lambda: self.sql("SELECT sync_state FROM pg_stat_replication") == "sync")

    def start(self, data):
        command = as_owner([f"{BINARIES}/postgres", "-D", data, "-p", str(self.ports[data])])
        child = Child(command, self.ports[data], self.folder)
        asked = [f"{BINARIES}/pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.ports[data])]
        wait_for("a database", lambda: subprocess.run(asked, timeout=120).returncode == 0)
        return child

    def start_standby(self):
        self.children[self.standby] = self.start(self.standby)

    def stop_standby(self):
        """It has ended when this returns: until then it may acknowledge a commit."""
        standby = self.children.pop(self.standby).process
        standby.send_signal(signal.SIGQUIT)
        standby.wait(60)

    def signal_standby(self, number):
        """With all its processes, of which it starts no more meanwhile."""
        first = self.children[self.standby].process.pid
        os.kill(first, signal.SIGSTOP)
        with open(f"/proc/{first}/task/{first}/children") as children:
            for process in [*map(int, children.read().split()), first]:
                os.kill(process, number)

    def wait_for_names(self, names):
        """Lets commits wait for these, or for nobody."""
        self.sql(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.sql("SELECT pg_reload_conf()")
        wait_for("the new setting", lambda: self.sql("SHOW synchronous_standby_names") == names)

    def sql(self, sql, database="postgres"):
        address = ["-h", "127.0.0.1", "-p", str(self.port), "-U", SUPERUSER, "-d", database]
        environment = {**os.environ, "PGOPTIONS": "-c synchronous_commit=local"}
        return run("psql", *address, "-Atqc", sql, env=environment)

    def waits(self):
        return self.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") != "0"

    def stop(self):
        for child in self.children.values():
            child.process.send_signal(signal.SIGINT)
        for child in self.children.values():
            child.stop()


class Pgpool:
    """Pgpool-II, which chooses anew for each statement whom it asks."""

    def __init__(self, database, folder, standby_weight):
        self.port, self.folder = free_port(), folder_for("pgpool", folder)
        self.config, self.database, self.child = f"{self.folder}/pgpool.conf", database, None
        self.configure(standby_weight)
        files = [write(f"{self.folder}/{name}", "") for name in ("pcp.conf", "hba.conf")]
        command = ["pgpool", "-n", "-f", self.config, "-F", files[0], "-a", files[1]]
        self.child = Child(as_owner(command), self.port, self.folder)

    def configure(self, standby_weight):
        backends = ""
        for number, (data, weight) in enumerate([(self.database.primary, 1), (self.database.standby, standby_weight)]):
            backends += (
                f"backend_hostname{number} = '127.0.0.1'\nbackend_port{number} = {self.database.ports[data]}\n"
                f"backend_weight{number} = {weight}\nbackend_flag{number} = 'DISALLOW_TO_FAILOVER'\n"
            )
        write(
            self.config,
            "backend_clustering_mode = 'streaming_replication'\nlisten_addresses = '127.0.0.1'\n"
            f"port = {self.port}\npcp_listen_addresses = ''\nsocket_dir = '{self.folder}'\n"
            f"pcp_socket_dir = '{self.folder}'\npid_file_name = '{self.folder}/pgpool.pid'\nlogdir = '{self.folder}'\n"
            f"{backends}enable_pool_hba = off\nnum_init_children = 48\nmax_pool = 1\nload_balance_mode = on\n"
            f"statement_level_load_balance = on\nsr_check_user = '{SUPERUSER}'\nsr_check_database = 'postgres'\n"
            "sr_check_period = 1\nhealth_check_period = 0\nlog_per_node_statement = on\n",
        )

    def weigh(self, standby_weight):
        """Of sessions that are open as well."""
        self.configure(standby_weight)
        self.child.process.send_signal(signal.SIGHUP)
        time.sleep(1)

    def asked(self):
        """Whether each of some reads was answered by a stand-by."""
        ask = ["-c", "SELECT current_setting('in_hot_standby')"] * 10
        return run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", USER, "-Atq", *ask).splitlines()

    def sent_to_standby(self):
        """Each statement that it was sent."""
        with open(self.child.log, errors="replace") as log:
            entries = re.split(r"^\d{4}-\d\d-\d\d ", log.read(), flags=re.M)
        said = (re.search(r"DB node id: 1 .*?statement: (?:(?:Parse|Bind|Execute): )?(.*)", e, re.S) for e in entries)
        return [" ".join(found[1].split()) for found in said if found]

    def url(self):
        return f"postgres://{USER}@127.0.0.1:{self.port}/{USER}"

    def stop(self):
        self.child.stop()


class PgBouncer:
    def __init__(self, database, folder, mode, pool_size=60):
        self.port, self.folder = free_port(), folder_for(f"pgbouncer-{mode}", folder)
        self.config, self.database, self.pool_size = f"{self.folder}/pgbouncer.ini", database, pool_size
        write(f"{self.folder}/users.txt", f'"{USER}" ""\n')
        self.configure(mode)
        self.start()

    def start(self):
        self.child = Child(as_owner(["pgbouncer", self.config]), self.port, self.folder)

    def configure(self, mode):
        write(
            self.config,
            f"[databases]\n{USER} = host=127.0.0.1 port={self.database.port} user={USER}\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\nauth_type = any\n"
            f"pool_mode = {mode}\nmax_client_conn = 200\n"
            f"default_pool_size = {self.pool_size}\n",
        )

    def switch(self, mode):
        self.configure(mode)
        self.child.process.send_signal(signal.SIGHUP)
        time.sleep(1)

    def url(self):
        return f"postgres://{USER}@127.0.0.1:{self.port}/{USER}"

    def stop(self):
        self.child.stop()


class Far:
    """The way to a port, a while long."""

    def __init__(self, port, seconds):
        self.seconds, self.target, self.port = seconds, port, free_port()
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        try:
            while data := one.recv(65536):
                time.sleep(self.seconds)
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def url(self):
        return f"postgres://{USER}@127.0.0.1:{self.port}/{USER}"

    def stop(self):
        self.listener.close()


class Node:
    """A node of Rescind."""

    def __init__(self, binary, folder, name, url, **variables):
        self.binary, self.folder, self.name = binary, os.path.join(folder, name), name
        self.port, self.management = free_port(), free_port()
        os.makedirs(self.folder, mode=0o700)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RESCIND_")}
        self.env = {**environment, "RESCIND_DATABASE__URL": url, "RESCIND_MASTER_KEY": "5a" * 32, **variables}
        self.child = None

    def command(self, *arguments):
        return [self.binary, *arguments, "--data-dir", f"{self.folder}/data"]

    def serve(self):
        listen = ["--listen", f"127.0.0.1:{self.port}", "--management-listen", f"127.0.0.1:{self.management}"]
        return self.command("serve", *listen)

    def start(self):
        self.child = Child(self.serve(), self.port, self.folder, self.env)
        wait_for(f"{self.name} is ready", lambda: self.ready().status == 200)
        return self

    def refuses(self):
        """Why it does not start; nothing if it does."""
        try:
            done = subprocess.run(self.serve(), capture_output=True, text=True, env=self.env, timeout=5)
        except subprocess.TimeoutExpired:
            return ""
        return done.stderr.splitlines()[-1]

    def run(self, *arguments):
        done = subprocess.run(self.command(*arguments, "--json"), capture_output=True, text=True, env=self.env, timeout=300)
        return json.loads(done.stdout) if done.stdout else None

    def create_client(self):
        return self.run("client", "create", "--name", "c")

    def ready(self):
        return ask(self.management, "GET", "/readyz")

    def metric(self, name):
        text = ask(self.management, "GET", "/metrics").body.decode()
        return next((line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")), None)

    def logged(self, text):
        with open(self.child.log, errors="replace") as log:
            return sum(text in line for line in log)

    def post(self, path, body):
        return ask(self.port, "POST", path, [("Content-Type", "application/json")], json.dumps(body).encode())

    def login(self, client):
        answer = self.post("/auth/login", {"username": client["api_key"], "password": client["api_secret"]})
        return json.loads(answer.body)["data"] if answer.status == 200 else answer

    def logs_in(self, client):
        """Its tokens, after as many attempts as it takes."""
        tokens = []

        def logged_in():
            tokens.append(self.login(client))
            return not isinstance(tokens[-1], Answer)

        wait_for(f"a login at {self.name}", logged_in)
        return tokens[-1]

    def refresh(self, tokens):
        return self.post("/auth/refresh", {"refresh_token": tokens["refresh_token"]}).status

    def logout(self, tokens):
        return ask(self.port, "POST", "/auth/logout", [bearer(tokens["access_token"])]).status

    def verify(self, tokens):
        return ask(self.port, "GET", "/verify", [bearer(tokens["access_token"])]).status

    def stop(self):
        if self.child:
            self.child.stop()
