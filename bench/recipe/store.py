"""What is written: logins, refreshes and logouts, beside the disk that they wait for."""

import contextlib
import http.client
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

from recipe import machine, rows
from recipe.measure import folder, last_line, ran, started, with_cpu
from recipe.programs import ENVIRONMENT, Postgres, Rescind, needed, written

CONNECTIONS = (1, 16, 64, 256)
MEMORY = "/dev/shm"


def login(bench):
    """Login, refresh and logout, durable; the same in memory; the disk's own flushes.

    A logout's step is a login and a logout, and its times are those of the logout."""
    with contextlib.ExitStack() as stack:
        servers = started(stack, bench)
        if machine.is_in_memory(MEMORY):
            in_memory = folder(stack, MEMORY)
            servers["Rescind in memory"] = stack.enter_context(Rescind(bench.program, data=in_memory))
        else:
            bench.not_run.append(f"the same in memory: {MEMORY} is not in memory")
        disk = folder(stack)
        subjects = {"fdatasync, 4 kB": lambda: {"requests_per_second": machine.fdatasyncs_per_second(disk, bench.seconds(1))}}
        clients = {name: server.clients(CONNECTIONS[-1]) for name, server in servers.items()}
        for work in ("login", "refresh", "logout"):
            for connections in CONNECTIONS:
                for name, server in servers.items():
                    subjects[f"{work}, {several(connections)}: {name}"] = sampler(
                        bench, [server], server, work, clients[name], 0.7, connections)
        return bench.alternate(subjects)


def several(connections):
    return "1 connection" if connections == 1 else f"{connections} connections"


def sampler(bench, counted, server, work, clients, seconds, connections):
    return lambda: bench.load(counted, server.port, work, clients, seconds, connections)


def postgres(bench):
    """Logins on PostgreSQL, beside pgbench that inserts the same row; the CPU is the database's too."""
    pgbench = needed("pgbench", "postgresql-contrib")
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(Postgres())
        bench.versions["PostgreSQL"] = database.run("SHOW server_version")
        subjects, scratch = {}, folder(stack)
        servers = {}
        for number, (name, program) in enumerate(bench.builds()):
            database.run(f"CREATE DATABASE rescind_{number}")
            url = database.url.rpartition("/")[0] + f"/rescind_{number}"
            servers[name] = stack.enter_context(Rescind(program, env={"RESCIND_DATABASE__URL": url}))
        first = next(iter(servers.values()))
        first.log_in(first.client("template"))
        script = inserting(database, first.env["RESCIND_DATABASE__URL"], scratch / "insert.sql")
        clients = {name: server.clients(64) for name, server in servers.items()}
        for connections in (1, 16, 64):
            for name, server in servers.items():
                subjects[f"login, {several(connections)}: {name}"] = sampler(
                    bench, [server, database], server, "login", clients[name], 2, connections)
            command = [pgbench, "-n", "-M", "prepared", "-c", connections, "-j", min(2, connections), "-T",
                       bench.whole(2), "-f", script, first.env["RESCIND_DATABASE__URL"]]
            subjects[f"pgbench, the same row, {several(connections)}"] = inserts(database, command)
        return bench.alternate(subjects)


def inserting(database, url, path):
    """pgbench's script: the row of a login, into a table like that of the sessions."""
    row = subprocess.run(["psql", "-qAtX", "-F", ",", url, "-c", f"SELECT {rows.SESSION} FROM session LIMIT 1"],
                         capture_output=True, text=True, check=True).stdout.strip().split(",")
    subprocess.run(["psql", "-qX", url, "-c", "CREATE TABLE bench (LIKE session INCLUDING ALL)"], check=True)
    values = ", ".join(value if re.fullmatch(r"-?\d+", value) else f"'{value}'" for value in row)
    path.write_text(f"INSERT INTO bench ({rows.SESSION}) VALUES ({values}) RETURNING id;\n")
    return path


def inserts(database, command):
    def sample():
        def run():
            done = ran(command)
            found = re.search(r"actually processed: (\d+).*?latency average = ([\d.]+) ms.*?tps = ([\d.]+)", done.stdout, re.S)
            if not found:
                raise RuntimeError(f"pgbench: {done.stderr}")
            done.stdout = f'{{"requests": {found[1]}, "requests_per_second": {found[3]}}}'
            return done
        return with_cpu([database], run)
    return sample


def logout(bench):
    """One logout of a client with 1, 1,000 and 1,000,000 sessions."""
    each, counts = 9, (1, 1000, bench.many(1_000_000))
    with contextlib.ExitStack() as stack:
        subjects = {}
        for build, program in bench.builds():
            data = folder(stack)
            with Rescind(program, data=data) as server:
                clients = [(count, server.client(f"{count} sessions")) for count in counts for _ in range(each)]
                for _, client in clients:
                    server.log_in(client)
            rows.add_sessions(data, {client["client_id"]: count for count, client in clients})
            server = stack.enter_context(Rescind(program, data=data))
            for count in counts:
                tokens = [server.log_in(client)["access_token"] for of, client in clients if of == count]
                suffix = "" if build == "Rescind" else f": {build}"
                name = "1 session" if count == 1 else f"{count:,} sessions"
                subjects[name + suffix] = lambda server=server, tokens=tokens: log_out(server, tokens.pop())
        return bench.alternate(subjects, rounds=each)


def log_out(server, token):
    """A sample of one, over a connection that has been used before."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        bearer = {"Authorization": f"Bearer {token}"}
        for method, path in (("GET", "/verify"), ("POST", "/auth/logout")):
            began = time.perf_counter()
            connection.request(method, path, headers=bearer)
            answer = connection.getresponse()
            answer.read()
            took = time.perf_counter() - began
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status}")
    return {"p50_ms": took * 1e3}


def backup(bench):
    """Logins at a quarter of their peak, alone and beside `rescind db backup` of 500 MB."""
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name, program in bench.builds():
            data = folder(stack)
            with Rescind(program, data=data) as server:
                server.client("audited")
            # A backup has no sessions. As many events as the audit log keeps of callers: 500 bytes each.
            rows.add_events(data, bench.many(1_000_000), 400)
            server = stack.enter_context(Rescind(program, data=data))
            clients = server.clients(16)
            rate = bench.load([server], server.port, "login", clients, 3, 16)["requests_per_second"] / 4
            # As long as a backup takes, whose end may cost most.
            short, long = (bench.load_command(server.port, "login", clients, bench.seconds(seconds), 16, rate)
                           for seconds in (4, 10))
            subjects[f"{name}, alone"] = lambda command=short: waited(start(command))
            subjects[f"{name}, beside a backup"] = lambda command=long, server=server: backed_up(command, server)
        return bench.alternate(subjects)


def start(command):
    words = [str(word) for word in command]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def waited(running):
    """The sample of a program that was started, without what cannot be counted here."""
    out, err = running.communicate()
    sample = last_line(subprocess.CompletedProcess(running.args, running.returncode, out, err))
    del sample["requests"]
    return sample


def backed_up(command, server):
    """One backup after the other, for as long as logins run; the time is that of a backup."""
    running = start(command)
    try:
        times = []
        with tempfile.TemporaryDirectory(prefix="rescind-bench-") as place:
            while running.poll() is None:
                # They are deleted at the end: to delete so much at once holds up the disk, and is the operator's to do.
                copy, began = pathlib.Path(place) / f"copy-{len(times)}", time.perf_counter()
                server.cli("db", "backup", copy)
                times.append(time.perf_counter() - began)
        return waited(running) | {"ms": statistics.median(times) * 1e3}
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()


def mixed(bench):
    """Verifications over 64 connections, alone and beside logins at half their peak."""
    with contextlib.ExitStack() as stack:
        subjects = {}
        for name, server in started(stack, bench).items():
            client = server.client("client", "--scope", "orders:read")
            bearer = {"Authorization": f"Bearer {server.log_in(client)['access_token']}"}
            clients = written(server.folder / "client.json", [client])
            peak = bench.load([server], server.port, "login", clients, 3, 16)["requests_per_second"]

            def alone(server=server, bearer=bearer):
                sample = bench.wrk([server], server.url("/verify"), 4, headers=bearer)
                del sample["cpu_us"]
                return sample

            def beside(server=server, clients=clients, rate=peak / 2, alone=alone):
                # They go on for longer than the verifications.
                logins = start(bench.load_command(server.port, "login", clients, bench.whole(4) + 1, 16, rate))
                try:
                    return alone()
                finally:
                    waited(logins)

            subjects[f"{name}, alone"], subjects[f"{name}, beside logins"] = alone, beside
        return bench.alternate(subjects)
