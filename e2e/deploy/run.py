#!/usr/bin/env python3
"""What is shipped: the unit, the Debian package, the image, the manifests, the bill of materials.

    e2e/deploy/run.py BINARY MANUALS

MANUALS is the program that writes the manual pages. The package is installed, upgraded and removed, and the image started,
on a copy of this machine's files that is thrown away (box.py); that needs root, and is left out with a word without it.
Needs haproxy, lintian, dpkg-dev, buildah and systemd-analyze. Python's packages and cargo-deb are kept in E2E_CACHE, by
default rescind-e2e in the user's cache folder.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "proxies"))

from pinned import cache, python  # noqa: E402

ROOT = HERE.parents[1]
# A version before that of the program: a package of the same program, because another build would take minutes. scripts/upgrade
# makes one.
EARLIER = "0.0.9-1"
CARGO_DEB = "3.8.0"


def main(binary, manuals):
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)
        work = pathlib.Path(work)
        sbom = work / "sbom.json"
        run(ROOT / "packaging/sbom", sbom)
        run(python(HERE), HERE / "files.py", sbom)

        pages, debs = work / "manuals", work / "debs"
        pages.mkdir()
        debs.mkdir()
        run(manuals, pages)
        cargo_deb()
        version = said(binary, "--version").split()[1] + "-1"
        # Packed quickly, because nobody carries these packages anywhere.
        for wanted in (EARLIER, version):
            run(ROOT / "packaging/deb", binary, pages, debs, wanted, "--fast")
        [earlier], [package] = debs.glob(f"*_{EARLIER}_*.deb"), debs.glob(f"*_{version}_*.deb")
        run("lintian", "--allow-root", "--fail-on", "error,warning", package)

        if os.geteuid() != 0:
            return print("NOT TESTED, as this is not root: the package and the image")
        shutil.copy(HERE / "box.py", work)
        inside(work, "package", earlier, package)
        inside(work, "image", *built(work, binary))
    print("deploy: all passed")


def built(work, binary):
    """The root file system of the image, and its settings: its last stage, built upon what its first stage would make."""
    context, root = work / "context", work / "image"
    context.mkdir()
    run(ROOT / "packaging/rootfs", binary, context / "rootfs")
    buildah = ["buildah", "--root", work / "images", "--runroot", work / "run", "--storage-driver", "vfs"]
    run(*buildah, "build", "--quiet", "--isolation", "chroot", "--format", "docker", "--build-context", f"build={context}",
        "--file", ROOT / "packaging/Containerfile", "--tag", "rescind", context)
    container = said(*buildah, "from", "rescind")
    run("cp", "-a", said(*buildah, "mount", container), root)
    run(*buildah, "umount", container)
    return root, json.dumps(json.loads(said(*buildah, "inspect", "--type", "image", "rescind"))["Docker"]["config"])


def inside(work, what, *arguments):
    """Runs a part of box.py on a copy of this machine's files, which nobody else sees."""
    script = """
        set -eu
        mount -t tmpfs none "$1/box"
        mkdir "$1/box/new" "$1/box/work" "$1/box/all"
        mount -t overlay none -o "lowerdir=/,upperdir=$1/box/new,workdir=$1/box/work" "$1/box/all"
        mount --rbind /dev "$1/box/all/dev"
        mount --rbind /proc "$1/box/all/proc"
        mount -t tmpfs none "$1/box/all/run"
        mkdir -p "$1/box/all$1"
        mount --bind "$1" "$1/box/all$1"
        box=$1/box/all
        shift
        exec chroot "$box" "$@"
    """
    (work / "box").mkdir(exist_ok=True)
    run("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh", work, sys.executable,
        work / "box.py", what, *arguments)


def cargo_deb():
    """Puts cargo-deb into the path. Built without optimization, which takes half a minute."""
    folder = cache(HERE) / f"cargo-deb-{CARGO_DEB}"
    if not folder.exists():
        made = folder.with_name("cargo-deb")
        shutil.rmtree(made, ignore_errors=True)
        run("cargo", "install", "--quiet", "--locked", "--debug", "--root", made, f"cargo-deb@{CARGO_DEB}")
        made.rename(folder)
    os.environ["PATH"] += f":{folder}/bin"


def said(*command):
    return subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def run(*command):
    command = [str(word) for word in command]
    done = subprocess.run(command, env={**os.environ, "LC_ALL": "C.UTF-8"})
    if done.returncode != 0:
        sys.exit(f"FAILED {' '.join(command)}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main(*(pathlib.Path(path).resolve() for path in sys.argv[1:]))
