"""What the server holds: at rest, for each session, connection and request; and how soon it serves."""

import contextlib
import socket
import time

from recipe import rows
from recipe.measure import folder, last_line, ran
from recipe.programs import Rescind, ask, wait_for, written

ASK = b"GET /nowhere HTTP/1.1\r\nHost: bench\r\n\r\n"
HEAD = (b"POST /auth/login HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: 60\r\n"
        b"Expect: 100-continue\r\n\r\n")
PING = b"a ping.."
STREAMS = 100
# All come from one address, and none is given up for its time.
ROOMY = {f"RESCIND_SERVER__{name}": value for name, value in {
    "MAX_CONNECTIONS": "20000", "MAX_CONNECTIONS_PER_ADDRESS": "20000", "MAX_REQUESTS": "20000",
    "MAX_REQUESTS_PER_ADDRESS": "20000", "REQUEST_TIMEOUT": "600s", "IDLE_TIMEOUT": "600s"}.items()}


def memory(bench):
    """Resident memory: at rest, for a session, an idle connection, a waiting request."""
    subjects = {}
    for name, program in bench.builds():
        for what, sample in (("at rest", at_rest), ("a session", session), ("an idle connection", idle),
                             ("a waiting request, HTTP/1.1", http1), ("a waiting request, HTTP/2", http2)):
            subjects[f"{what}: {name}"] = lambda program=program, sample=sample: sample(bench, program)
    return bench.alternate(subjects)


def at_rest(_, program):
    with Rescind(program) as server:
        return {"mb": settled(server) / 1e6}


def session(bench, program):
    """Of as many logins as there are in some seconds, after enough that caches are full."""
    with Rescind(program) as server:
        clients = written(server.folder / "client.json", [server.client()])

        def logins(seconds):
            command = bench.load_command(server.port, "login", clients, bench.seconds(seconds), 64)
            return last_line(ran(command))["requests"]

        logins(1)
        before = settled(server)
        count = logins(4)
        return {"bytes": (settled(server) - before) / count}


def idle(bench, program):
    """Of 10,000 connections, on each of which something was answered."""
    with Rescind(program, env=ROOMY) as server, contextlib.ExitStack() as stack:
        answered(stack, server)
        before = settled(server)
        count = bench.many(10_000)
        for _ in range(count):
            answered(stack, server)
        return {"bytes": (settled(server) - before) / count}


def http1(_, program):
    """Each on a connection of its own, on which something was answered before."""
    with Rescind(program, env=ROOMY) as server, contextlib.ExitStack() as stack:
        # The next request has begun, so that the connections do not rest.
        connections = [answered(stack, server, ASK + HEAD[:1]) for _ in range(900)]
        before = settled(server)
        for connection in connections:
            connection.sendall(HEAD[1:])
            read_past(connection, b"100 Continue")
        return {"bytes": (settled(server) - before) / len(connections)}


def http2(_, program):
    """A hundred on each connection."""
    head = b"".join(
        # Written out in full (RFC 7541 §6.2.2).
        b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value
        for name, value in ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/auth/login"),
                            (b":authority", b"bench"), (b"content-type", b"application/json")))
    heads = b"".join(frame(1, 4, 2 * i + 1, head) for i in range(STREAMS))
    with Rescind(program, env=ROOMY) as server, contextlib.ExitStack() as stack:
        connections = []
        for _ in range(50):
            connection = connected(stack, server)
            connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(6, 0, 0, PING))
            read_past(connection, PING)
            connections.append(connection)
        before = settled(server)
        for connection in connections:
            connection.sendall(heads + frame(6, 0, 0, PING))
            read_past(connection, PING)
        return {"bytes": (settled(server) - before) / (len(connections) * STREAMS)}


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def connected(stack, server):
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def answered(stack, server, asked=ASK):
    connection = connected(stack, server)
    connection.sendall(asked)
    read_past(connection, b"}}")
    return connection


def read_past(connection, text):
    received = b""
    while text not in received:
        some = connection.recv(4096)
        if not some:
            raise RuntimeError("the server closed a connection")
        received += some


def settled(server):
    """What is resident once that has not changed for half a second."""
    seen = [server.resident()]

    def same():
        time.sleep(0.1)
        seen.append(server.resident())
        return len(seen) > 5 and len(set(seen[-5:])) == 1

    wait_for("resident memory", same)
    return seen[-1]


def start(bench):
    """From the start of the process until it is ready and has verified a token."""
    clients, sessions = bench.many(100_000), bench.many(1_000_000)
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name, program in bench.builds():
            for many in (False, True):
                data = folder(stack)
                with Rescind(program, data=data) as server:
                    client = server.client()
                    token = server.log_in(client)["access_token"]
                if many:
                    rows.add_sessions(data, {client["client_id"]: sessions})
                    rows.add_clients(data, clients)
                size = f"{clients:,} clients, {sessions:,} sessions" if many else "1 client, 1 session"
                subjects[f"{size}: {name}"] = (
                    lambda program=program, data=data, token=token: serving(program, data, token))
        return bench.alternate(subjects)


def serving(program, data, token):
    began = time.perf_counter()
    with Rescind(program, data=data) as server:
        ask(server.port, "GET", "/verify", {"Authorization": f"Bearer {token}"})
        took = time.perf_counter() - began
        return {"ms": took * 1e3, "mb": settled(server) / 1e6}
