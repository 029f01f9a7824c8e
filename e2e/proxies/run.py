#!/usr/bin/env python3
"""Rescind behind the real proxies, with the configurations that it prints for them.

    e2e/proxies/run.py BINARY [--only nginx] [--logouts 1000]

Needs Debian's nginx (or nginx-light), caddy and haproxy; starts each in the foreground on free
loopback ports, never as a service. Prints a line for each check and closes on "N passed, N failed".
"""

import argparse
import os
import shutil
import sys
import tempfile
import traceback

sys.dont_write_bytecode = True

from checks import Checks, World  # noqa: E402
from programs import Rescind  # noqa: E402
from wire import Upstream  # noqa: E402

PROXIES = ["nginx", "caddy", "haproxy"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary")
    parser.add_argument("--only", choices=PROXIES, action="append")
    parser.add_argument("--logouts", type=int, default=1000)
    options = parser.parse_args()
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    proxies = options.only or PROXIES
    missing = [name for name in proxies if shutil.which(name) is None]
    if missing:
        sys.exit(f"not installed: {' '.join(missing)} (Debian: apt-get install nginx-light caddy haproxy)")

    checks = Checks()
    with tempfile.TemporaryDirectory(prefix="rescind-proxies-") as folder:
        rescind, upstream = Rescind(os.path.abspath(options.binary), folder), Upstream()
        try:
            world = World(rescind, upstream, folder)
            checks.direct(world)
            for name in proxies:
                try:
                    checks.proxy(name, world, options.logouts)
                except Exception:
                    checks.tell("cut short", False, traceback.format_exc())
        finally:
            rescind.stop()
            upstream.stop()
    print(f"{checks.passed} passed, {checks.failed} failed")
    sys.exit(1 if checks.failed else 0)


if __name__ == "__main__":
    main()
