"""RabbitMQ with its plugin for OAuth, alone and with the example."""

import base64
import contextlib
import json
import os
import subprocess
import time

import pika
from programs import Child, free_port, listens, wait_for
from servers import CLOSES, GOES_ON, ask, claims, documented

PROGRAMS = "/usr/lib/rabbitmq/bin"
PASSWORD = "not-of-this-world"


class RabbitMQ:
    """Of a name, ports, a cookie and an epmd of its own. It starts meanwhile: `ready` waits."""

    def __init__(self, folder, rescind, asked):
        self.folder = os.path.join(folder, "rabbitmq")
        os.mkdir(self.folder)
        self.port, self.management, self.rescind = free_port(), free_port(), rescind
        with open(os.path.join(PROGRAMS, "rabbitmq-server")) as file:
            assert "exec erl" in file.read()
        changed = {"https://rescind.example:8080": f"https://localhost:{rescind.port}", "127.0.0.1:3000": f"127.0.0.1:{asked}",
                   "/etc/rescind/ca.pem": rescind.ca}
        for name in ("rabbitmq.conf", "advanced.config"):
            text = documented(name)
            for before, after in changed.items():
                text = text.replace(before, after)
            self.write(name, text)
        with open(os.path.join(self.folder, "rabbitmq.conf"), "a") as file:
            file.write(f"listeners.tcp.1 = 127.0.0.1:{self.port}\nmanagement.tcp.ip = 127.0.0.1\n"
                       f"management.tcp.port = {self.management}\nlog.console.level = warning\n"
                       f"default_pass = {PASSWORD}\n")
        plugins = "rabbitmq_auth_backend_http, rabbitmq_auth_backend_oauth2, rabbitmq_management"
        self.write("enabled_plugins", f"[{plugins}].\n")
        self.write("env.conf", "")
        epmd = free_port()
        path = lambda name: os.path.join(self.folder, name)  # noqa: E731
        self.env = {
            "PATH": os.environ["PATH"], "HOME": self.folder, "LANG": "C.UTF-8", "ERL_EPMD_PORT": str(epmd),
            "RABBITMQ_NODENAME": f"rescind-{os.getpid()}@localhost", "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "RABBITMQ_CTL_ERL_ARGS": "-start_epmd false", "RABBITMQ_CONF_ENV_FILE": path("env.conf"),
            "RABBITMQ_CONFIG_FILE": path("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE": path("advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": path("enabled_plugins"), "RABBITMQ_MNESIA_BASE": path("mnesia"),
            "RABBITMQ_LOG_BASE": path("log"), "RABBITMQ_LOGS": "-", "RABBITMQ_PID_FILE": path("pid"),
            # With a supervisor named, the script becomes the Erlang program, which then has our process id.
            "NOTIFY_SOCKET": path("nobody"),
        }
        self.epmd = Child(["epmd", "-address", "127.0.0.1", "-port", str(epmd)], epmd, self.folder, self.env)
        self.log = open(path("rabbitmq.log"), "ab")
        command = [os.path.join(PROGRAMS, "rabbitmq-server")]
        self.process = subprocess.Popen(command, env=self.env, cwd=self.folder, stdout=self.log, stderr=self.log)

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w") as file:
            file.write(text)

    def ready(self):
        def answers():
            if self.process.poll() is not None:
                with open(os.path.join(self.folder, "rabbitmq.log"), errors="replace") as log:
                    raise RuntimeError(f"rabbitmq-server ended: {log.read()[-3000:]}")
            try:
                return listens(self.port) and self.api("GET", "/overview")[0] == 200
            except OSError:
                return False
        # Beside other tests it takes minutes; that it has ended is noticed at once.
        wait_for("rabbitmq-server", answers)
        self.version = self.api("GET", "/overview")[1]["rabbitmq_version"]
        self.api("PUT", "/queues/%2F/orders", b"{}")

    def api(self, method, path, body=None):
        user = base64.b64encode(f"guest:{PASSWORD}".encode()).decode()
        headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
        return ask(method, f"http://127.0.0.1:{self.management}/api{path}", headers, body)

    def close_url(self):
        return f"http://guest:{PASSWORD}@127.0.0.1:{self.management}/api/connections/username"

    def close(self, user):
        return self.api("DELETE", f"/connections/username/{user}")[0] == 204

    def evaluate(self, erlang):
        command = [os.path.join(PROGRAMS, "rabbitmqctl"), "eval", erlang]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=300)

    def decide_by(self, backend):
        self.evaluate(f"application:set_env(rabbit, auth_backends, [{backend}, rabbit_auth_backend_internal]).")

    def stop(self):
        # Nothing of it is kept, so that no orderly end is waited for.
        self.process.kill()
        self.process.wait()
        self.log.close()
        self.epmd.stop()


def connect(rabbit, user, token):
    """A connection with a channel. None: it was refused."""
    credentials = pika.PlainCredentials(user, token)
    parameters = pika.ConnectionParameters("127.0.0.1", rabbit.port, credentials=credentials, heartbeat=0,
                                           stack_timeout=120)
    try:
        connection = pika.BlockingConnection(parameters)
    except (pika.exceptions.AMQPConnectionError, pika.exceptions.ConnectionClosed):
        return None
    connection.used = connection.channel()
    return connection


def works(connection):
    try:
        return connection and connection.used.queue_declare("orders", passive=True) is not None
    except pika.exceptions.AMQPError:
        return False


def goes_on(connection, seconds=GOES_ON):
    connection.sleep(seconds)
    return works(connection)


def closes(connection):
    """What the broker says as it closes the connection. None: it stays open."""
    with contextlib.suppress(pika.exceptions.ChannelClosed):
        try:
            connection.sleep(CLOSES)
        except pika.exceptions.ConnectionClosed as closed:
            return f"{closed.reply_code} {closed.reply_text}"
        except pika.exceptions.AMQPConnectionError as closed:
            return repr(closed)


def with_the_example(run, rescind, rabbit, row):
    ours, theirs = (rescind.create_client(name, "orders:read", "orders:write") for name in ("ours", "theirs"))
    token, their_token = rescind.login(ours), rescind.login(theirs)
    name, their_name = claims(token)["sub"], claims(their_token)["sub"]
    ours_open, theirs_open = connect(rabbit, name, token), connect(rabbit, their_name, their_token)
    run.tell("RabbitMQ and the example: a token opens a connection with its scopes' rights", works(ours_open))
    run.tell("under another client's name it opens none", connect(rabbit, their_name, token) is None)
    rescind.logout(token)
    closed = closes(ours_open)
    run.tell("a logout closes the client's connection", closed and closed.startswith("320"), closed)
    run.tell("and says why", closed and "the token is not valid any more" in closed, closed)
    run.saw(row, 0, "closed" if closed else "goes on")
    again = connect(rabbit, name, token)
    run.tell("and the revoked token opens no other", again is None)
    run.saw(row, 1, "refused" if again is None else "let in until `exp`")
    run.tell("the other client's connection goes on", works(theirs_open))
    run.tell("the client connects again with a new token", works(connect(rabbit, name, rescind.login(ours))))
    run.saw(row, 3, "it is closed")


def with_the_plugin_alone(run, rescind, rabbit, row):
    rabbit.decide_by("rabbit_auth_backend_oauth2")
    client = rescind.create_client("alone", "orders:read", "orders:write")
    token = rescind.login(client)
    opened = connect(rabbit, "anything", token)
    rescind.logout(token)
    on = goes_on(opened)
    run.tell("RabbitMQ alone: a connection goes on after the logout", on)
    run.saw(row, 0, "goes on" if on else "closed")
    again = connect(rabbit, "anything", token)
    run.tell("and the revoked token opens another", works(again))
    run.saw(row, 1, "let in until `exp`" if again else "refused")
    user = claims(token).get("client_id", claims(token)["sub"])
    closed = rabbit.close(user) and closes(opened) and closes(again)
    run.tell("which end by the management interface", closed, closed)
    run.saw(row, 3, "`DELETE /api/connections/username/<user>`, `rabbitmqctl close_all_user_connections`" if closed else "?")
    kid = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))["kid"]
    token = rescind.login(client)
    rescind.run("key", "rotate", "--algorithm", "ES256", "--publish-ahead", "0s")
    rescind.run("key", "retire", kid, "--yes")
    run.tell("RabbitMQ trusts a retired key", works(connect(rabbit, "anything", token)))
    run.tell("until a token names a key that it has not", works(connect(rabbit, "anything", rescind.login(client))))
    run.tell("and then no more", connect(rabbit, "anything", token) is None)


def by_its_own_names(run, rescind, rabbit, alone, both):
    """With tokens in RabbitMQ's form, which expire."""
    rabbit.evaluate('application:set_env(rabbitmq_auth_backend_oauth2, resource_server_id, <<"rabbitmq">>).')
    client = rescind.create_client("brief", "rabbitmq.read:*/*", "rabbitmq.write:*/*", "rabbitmq.configure:*/*")
    token = rescind.login(client)
    opened = connect(rabbit, "anything", token)
    run.tell("RabbitMQ by its own names: a token opens a connection", works(opened))
    time.sleep(max(0, claims(token)["exp"] + 1 - time.time()))
    run.tell("an expired token opens none", connect(rabbit, "anything", token) is None)
    idle, refused = goes_on_idle(opened)
    run.tell("an open connection stays open past exp", idle)
    run.tell("and what is new on it is refused", refused)
    run.saw(alone, 2, "stays open; what is new on it is refused" if idle and refused else "?")
    rabbit.decide_by("{rabbit_auth_backend_http, rabbit_auth_backend_oauth2}")
    token = rescind.login(client)
    opened = connect(rabbit, claims(token)["sub"], token)
    run.tell("with the example: a token that will expire opens a connection", works(opened))
    closed = closes(opened)
    run.tell("which is closed at exp", closed and closed.startswith("320") and time.time() >= claims(token)["exp"], closed)
    run.saw(both, 2, "closed" if closed else "stays open")


def goes_on_idle(connection):
    """Whether it stays open, and whether it refuses what it has not been used for before."""
    try:
        connection.sleep(1)
    except pika.exceptions.AMQPError:
        return False, False
    try:
        connection.channel().queue_declare("new", durable=False)
        return True, False
    except pika.exceptions.ChannelClosedByBroker as closed:
        return connection.is_open, closed.reply_code == 403
