#!/usr/bin/env python3
"""The dashboard in Chromium: e2e/dashboard/run.py BINARY DASHBOARD

DASHBOARD is the program of this folder, which drives the browser. Needs Debian's chromium and chromium-driver, and npm for what
package.json pins. Pictures of every page are kept in E2E_CACHE, by default rescind-e2e in the user's cache folder.
"""

import os
import pathlib
import subprocess
import sys

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "proxies"))

from pinned import cache, node  # noqa: E402


def main(binary, dashboard):
    for name in [name for name in os.environ if name.startswith("RESCIND_")]:
        del os.environ[name]
    axe = node(HERE) / "node_modules/axe-core/axe.min.js"
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    sys.exit(subprocess.run([dashboard, binary, axe, cache(HERE) / "pictures"]).returncode)


if __name__ == "__main__":
    main(*map(os.path.abspath, sys.argv[1:]))
