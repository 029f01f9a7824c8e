#!/usr/bin/env python3
"""The admin API over HTTPS, from outside.

    e2e/admin/run.py BINARY [--seconds 60]

Runs the commands of docs/automation.md, and then schemathesis against the served document, for as many seconds: no 5xx, no answer
that the document lacks, and nothing without a valid management token. For a long run: --seconds 600. Needs curl and openssl. What
requirements.txt pins is kept in E2E_CACHE, by default rescind-e2e in the user's cache folder.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "proxies"))

from pinned import python  # noqa: E402
from programs import Child, certificate, free_port  # noqa: E402

DOCUMENT = HERE / "../../docs/automation.md"
# What the server may answer is checked. Whether the tool can make good input of a pattern is not.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,ignored_auth"
# One would revoke the token that the run uses; the other answers with a file that is no JSON.
LEFT_OUT = ["revokeManagementToken", "endEveryToken", "backUp"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=pathlib.Path)
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("RESCIND_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        run(options, pathlib.Path(folder))


def run(options, folder):
    rescind, data = options.binary.resolve(), folder / "data"
    port, (public, private) = free_port(), certificate(folder)
    config = folder / "rescind.toml"
    config.write_text(f"""
[server]
listen = "127.0.0.1:0"
management_listen = "127.0.0.1:{port}"
data_dir = "{data}"
[tls]
certificate = "{public}"
key = "{private}"
management = true
""")
    server = Child([rescind, "serve", "--config", config], port, folder)
    try:
        url = f"https://127.0.0.1:{port}"
        create = [rescind, "--config", config, "--json", "admin", "token", "create", "--name", "e2e", "--role", "admin"]
        token = json.loads(subprocess.run(create, check=True, capture_output=True).stdout)["token"]
        environment = {**os.environ, "URL": url, "CA": public, "TOKEN": token}
        documented(environment, folder)
        fuzz(options.seconds, environment, folder)
    finally:
        server.process.terminate()
        server.process.wait(timeout=300)
    failed = [line for line in pathlib.Path(server.log).read_text().splitlines() if '"error"' in line and '"failed"' in line]
    if failed:
        sys.exit("the server failed at:\n" + "\n".join(failed))
    print("2 passed, 0 failed")


def documented(environment, folder):
    """Runs the commands of the document, which fail if one of them does."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    assert blocks, "docs/automation.md has no commands"
    script = "set -euo pipefail\n" + "\n".join(blocks)
    ran = subprocess.run(["bash", "-x", "-c", script], env=environment, cwd=folder, capture_output=True, text=True)
    if ran.returncode != 0:
        # The trace has the token.
        trace = ran.stderr.replace(environment["TOKEN"], "…")
        sys.exit(f"docs/automation.md: its commands fail with {ran.returncode}:\n{ran.stdout}{trace}")
    print("docs/automation.md: its commands do what it says")


def fuzz(seconds, environment, folder):
    url, ca, token = environment["URL"], environment["CA"], environment["TOKEN"]
    out = [argument for name in LEFT_OUT for argument in ("--exclude-operation-id", name)]
    command = [
        python(HERE).with_name("schemathesis"), "run", f"{url}/admin/v1/openapi.json", f"--tls-verify={ca}",
        "--header", f"Authorization: Bearer {token}", "--checks", CHECKS, *out, "--max-time", str(seconds),
        "--mode", "all", "--no-color", "--phases", "examples,coverage,fuzzing,stateful",
    ]
    # It keeps files in the folder that it runs in.
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    print(ran.stdout.replace(token, "…"))
    if ran.returncode != 0:
        sys.exit(f"schemathesis found something:\n{ran.stderr.replace(token, '…')}")


if __name__ == "__main__":
    main()
