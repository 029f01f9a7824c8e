#!/usr/bin/env python3
"""Rescind on PostgreSQL behind real poolers and load balancers, and without the stand-by it waits for.

    e2e/poolers/run.py BINARY [--only balanced]

Needs Debian's postgresql, pgpool2 and pgbouncer; starts each in the foreground on free loopback ports, never as
a service. Without pgpool2 or pgbouncer what needs it is not tested, which is said loudly. Prints a line for
each check and closes on "N passed, N failed".
"""

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback

sys.dont_write_bytecode = True

from servers import Answer, Database, Far, Node, PgBouncer, Pgpool, owned, wait_for  # noqa: E402

ROUNDS = 20


class Checks:
    def __init__(self, binary):
        self.binary, self.passed, self.failed = binary, 0, 0

    def tell(self, what, good, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok  ' if good else 'FAIL'} {what}" + (f": {detail}" if not good else ""), flush=True)

    @contextlib.contextmanager
    def database(self, **options):
        """One of its own, and what is started before it."""
        with tempfile.TemporaryDirectory(prefix="rescind-poolers-") as folder, contextlib.ExitStack() as stack:
            os.chmod(folder, 0o755)
            servers = os.path.join(folder, "servers")
            os.mkdir(servers)
            database = Database(owned(servers), **options)
            stack.callback(database.stop)

            def begin(started):
                stack.callback(started.stop)
                return started

            def node(name, url, **variables):
                made = Node(self.binary, folder, name, url, **variables)
                stack.callback(made.stop)
                return made

            yield database, servers, begin, node

    def balanced(self):
        """Pgpool-II sends each statement that only reads to the stand-by, which is three seconds late."""
        with self.database(delay="3s") as (database, folder, begin, node):
            far = begin(Far(database.port, 0.05))
            other = node("far", far.url()).start()
            client = other.create_client()
            pgpool = begin(Pgpool(database, folder, 4))
            for attempt in range(3):
                said = node(f"balanced-{attempt}", pgpool.url()).refuses()
                self.tell("a node behind it does not start, and says why", "load_balance_mode = off" in said, said)
            pgpool.weigh(0)
            near = node("near", pgpool.url()).start()
            pgpool.weigh(4)
            before = len(pgpool.sent_to_standby())
            answered = accepted = 0
            for _ in range(ROUNDS):
                tokens = other.logs_in(client)
                if other.verify(tokens) == 200 and near.logout(tokens) == 200:
                    answered += 1
                    accepted += other.verify(tokens) != 401
            self.tell(f"of {ROUNDS} logouts some are answered", answered > 0)
            self.tell(f"of {answered} logouts none is followed by a yes elsewhere", accepted == 0, accepted)
            self.tell("it does send reads to the stand-by", "on" in pgpool.asked())
            reads = [sql for sql in pgpool.sent_to_standby()[before:] if sql.startswith("SELECT")]
            strange = [sql for sql in reads if not sql.startswith(("SELECT version()", "SELECT current_setting('in_hot"))]
            self.tell("nothing that decides is asked of the stand-by", not strange, strange[:5])

    def pooled(self):
        """PgBouncer hands servers on after each transaction."""
        with self.database() as (database, folder, begin, node):
            for mode in ("transaction", "statement"):
                pgbouncer = begin(PgBouncer(database, folder, mode))
                for attempt in range(3):
                    said = node(f"{mode}-{attempt}", pgbouncer.url()).refuses()
                    good = "pool_mode = session" in said and "answer" not in said
                    self.tell(f"pool_mode = {mode}: a node does not start, and says why", good, said)
            pgbouncer = begin(PgBouncer(database, folder, "session"))
            one, two = (node(name, pgbouncer.url()).start() for name in ("one", "two"))
            client = one.create_client()
            tokens = one.logs_in(client)
            verdicts = [two.verify(tokens), one.logout(tokens), two.verify(tokens)]
            self.tell("pool_mode = session: all is as without it", verdicts == [200, 200, 401], verdicts)
            self.switched(database, pgbouncer, one)

    def switched(self, database, pgbouncer, one):
        """While a node runs, on a database where nobody is told of a commit that was not replicated."""
        database.sql("ALTER ROLE rescind SET client_min_messages = error")
        tokens = [one.logs_in(one.create_client()) for _ in range(6)]
        pgbouncer.switch("transaction")
        # Servers that nobody has set to be heard.
        database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rescind'")
        database.signal_standby(signal.SIGSTOP)
        done = threading.Event()

        def cancel():
            while not done.wait(0.05):
                database.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")

        cancelling = threading.Thread(target=cancel)
        cancelling.start()
        answers = [one.logout(each) for each in tokens]
        done.set()
        cancelling.join()
        database.signal_standby(signal.SIGCONT)
        self.tell("pool_mode = transaction under a running node: no commit is believed", 200 not in answers, answers)
        wait_for("a line with what mends it", lambda: one.logged("pool_mode = session") > 0)

    def crowded(self):
        """PgBouncer has fewer connections by default than two nodes' pools may have, and starts again under logins."""
        with self.database() as (database, folder, begin, node):
            pgbouncer = begin(PgBouncer(database, folder, "session", pool_size=20))
            nodes = [node(name, pgbouncer.url()).start() for name in ("one", "two")]
            done, given = threading.Event(), []

            def log_in(node, client):
                while not done.is_set():
                    given.append(not isinstance(node.login(client), Answer))

            # Each its own client: the logins of one run one after the other.
            work = [(nodes[i % 2], nodes[0].create_client()) for i in range(40)]
            threads = [threading.Thread(target=log_in, args=each) for each in work]
            for thread in threads:
                thread.start()
            # Longer than a new connection is waited for.
            time.sleep(12)
            refused = f"{given.count(False)} of {len(given)}"
            self.tell("with too few connections for both pools, logins are answered", given and all(given), refused)
            pgbouncer.stop()
            wait_for("no lease", lambda: all(each.ready().status == 503 for each in nodes))
            pgbouncer.start()
            began = time.monotonic()
            wait_for("both leases again", lambda: all(each.ready().status == 200 for each in nodes), 60)
            took = time.monotonic() - began
            self.tell("when it starts again, both nodes have a lease soon", took < 10, took)
            done.set()
            for thread in threads:
                thread.join()

    def emptied(self):
        """The stand-by is lost, and something empties the names of those that commits wait for."""
        with self.database() as (database, _, begin, node):
            url = f"postgres://rescind@127.0.0.1:{database.port}/rescind"
            strict = node("strict", url, RESCIND_DATABASE__REQUIRE_SYNCHRONOUS="true").start()
            lenient = node("lenient", url).start()
            client, other = strict.create_client(), strict.create_client()
            tokens, others = strict.logs_in(client), strict.logs_in(other)
            both = [each.metric("rescind_database_synchronous") for each in (strict, lenient)]
            self.tell("commits wait for a stand-by, which is told", both == ["1.0", "1.0"], both)

            database.stop_standby()
            answers = {}

            def logout(name, tokens):
                answers[name] = strict.logout(tokens)

            waiting = threading.Thread(target=logout, args=("waiting", tokens))
            waiting.start()
            wait_for("a commit waits", database.waits)
            database.wait_for_names("")
            waiting.join()
            self.tell("a logout that is released by that is not answered 200", answers["waiting"] == 503, answers)
            answers = [strict.logout(others), strict.refresh(others), getattr(strict.login(other), "status", 200)]
            self.tell("nor is what comes after", answers == [503] * 3, answers)
            wait_for("the lease runs out", lambda: strict.ready().status == 503)
            said = strict.ready().body.decode()
            self.tell("no lease is extended, and why", "wait for no stand-by" in said, said)
            self.tell("the metric says so", strict.metric("rescind_database_synchronous") == "0.0")
            cluster = strict.run("status")["cluster"]
            self.tell("the status says so", cluster["synchronous_standby_names"] == "", cluster)
            refused = node("late", url, RESCIND_DATABASE__REQUIRE_SYNCHRONOUS="true").refuses()
            self.tell("no such node starts meanwhile", "synchronous_standby_names is empty" in refused, refused)

            wait_for("the others are told", lambda: lenient.logged("synchronous_standby_names is empty") > 0)
            tokens = lenient.logs_in(client)
            answers = [lenient.verify(tokens), lenient.ready().status, lenient.metric("rescind_database_synchronous")]
            self.tell("where it is not required all goes on, and is told", answers == [200, 200, "0.0"], answers)
            for each in (strict, lenient):
                count = each.logged("commits wait for no stand-by any more")
                self.tell(f"{each.name} is told once", count == 1, count)

            database.start_standby()
            database.wait_for_names("standby")
            wait_for("a lease again", lambda: strict.ready().status == 200)
            tokens = strict.logs_in(client)
            answers = [strict.logout(tokens), strict.verify(tokens), lenient.verify(tokens)]
            self.tell("with the stand-by back it answers by itself", answers == [200, 401, 401], answers)
            self.tell("which is told", lenient.logged("commits wait for a stand-by again") == 1)


def main():
    checks = {"balanced": ("pgpool", "pgpool2"), "pooled": ("pgbouncer", "pgbouncer"), "crowded": ("pgbouncer", "pgbouncer"), "emptied": None}
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", choices=checks, action="append")
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    ran = Checks(os.path.abspath(options.binary))
    for name in options.only or checks:
        if checks[name] and shutil.which(checks[name][0]) is None:
            print(f"NOT TESTED: {name}: install {checks[name][1]} (Debian: apt-get install {checks[name][1]})")
            continue
        try:
            getattr(ran, name)()
        except Exception:
            ran.tell(f"{name}: cut short", False, traceback.format_exc())
    print(f"{ran.passed} passed, {ran.failed} failed")
    sys.exit(1 if ran.failed else 0)


if __name__ == "__main__":
    main()
