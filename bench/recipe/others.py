"""What other programs of this repository measure, taken over into the results."""

import os
import pathlib
import re
import subprocess

from recipe.measure import HERE
from recipe.programs import ENVIRONMENT, ROOT, NotRun


def verifier(_):
    """A verification in process, beside the HMAC over the same bytes and jsonwebtoken."""
    done = output(["cargo", "bench", "--quiet", "-p", "rescind-verifier"])
    return figures(done) or none("cargo bench -p rescind-verifier printed no line `verifier ALGORITHM WHAT NS`")


def figures(text):
    found = re.findall(r"^verifier (\S+) (first|repeated|networks|bare-hmac|jsonwebtoken) ([\d.]+)$", text, re.M)
    return [{"name": f"{algorithm}, {what}", "samples": [{"ns": float(ns)}]} for algorithm, what, ns in found]


def cluster(bench):
    """/verify at a node of three on PostgreSQL, beside a single node; a median of seven."""
    output(["cargo", "build", "--quiet", "--release", "-p", "rescind-proofs", "--bin", "faults"])
    release = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    text = output([release / "faults", bench.program, "throughput"])
    found = re.search(r"throughput: (\d+) verifications a second at a node of three, (\d+) at a single one", text)
    if not found:
        raise RuntimeError(f"faults: {text}")
    names = ("a node of three, PostgreSQL", "a single node, SQLite")
    return [{"name": name, "samples": [{"requests_per_second": float(rate)}]} for name, rate in zip(names, found.groups())]


def instructions(bench):
    """Instructions of verifications and one login, counted by callgrind."""
    rows = []
    for name, program in bench.builds():
        text = output([HERE / "instructions", program])
        rows += [{"name": f"{what}: {name}", "samples": [{"instructions": float(count)}]}
                 for what, count in re.findall(r"^instructions (.+) (\d+)$", text, re.M)]
    return rows or none("bench/instructions printed no figure")


def none(reason):
    raise NotRun(reason)


def output(command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr or done.stdout}")
    return done.stdout
