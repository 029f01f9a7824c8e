"""The packages that the parts here pin, kept from run to run in E2E_CACHE, by default rescind-e2e in the user's cache folder."""

import filecmp
import os
import pathlib
import shutil
import subprocess
import sys

E2E = pathlib.Path(__file__).resolve().parents[1]


def cache(here):
    """Where what the part in the folder `here` fetches is kept."""
    folder = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = os.environ.get("E2E_CACHE") or pathlib.Path(folder, "rescind-e2e")
    return pathlib.Path(folder).absolute() / pathlib.Path(here).resolve().relative_to(E2E)


def kept(pinned, folder, make):
    """The folder, made anew if what is pinned has changed."""
    made_of = folder / "pinned"
    if not made_of.exists() or not filecmp.cmp(pinned, made_of, shallow=False):
        shutil.rmtree(folder, ignore_errors=True)
        make(folder)
        shutil.copy(pinned, made_of)
    return folder


def python(here, *options):
    """A Python with what requirements.txt pins."""
    pinned = pathlib.Path(here, "requirements.txt")

    def make(folder):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *options, "-r", pinned], check=True)

    return kept(pinned, cache(here) / "python", make) / "bin/python"


def node(here):
    """A folder with the packages that package.json pins. Node looks for them beside the program."""
    pinned = pathlib.Path(here, "package.json")

    def make(folder):
        folder.mkdir(parents=True)
        shutil.copy(pinned, folder)
        npm = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(npm, cwd=folder, check=True)

    return kept(pinned, cache(here) / "node", make)
