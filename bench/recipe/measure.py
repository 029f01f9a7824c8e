"""Samples: what callers see and what the server uses meanwhile. Subjects are measured in turns."""

import contextlib
import json
import pathlib
import re
import subprocess
import tempfile

from recipe.programs import ENVIRONMENT, ROOT, NotRun, Rescind, needed

HERE = ROOT / "bench"


class Bench:
    """What the parts share: the programs, how long to measure, and what could not be measured."""

    def __init__(self, program, beside, helpers, quick):
        self.program, self.beside, self.helpers, self.quick = program, beside, helpers, quick
        self.not_run, self.versions = [], {}

    def seconds(self, seconds):
        """How long a sample takes, of a full run's seconds."""
        return max(0.5, seconds / 5) if self.quick else seconds

    def many(self, count):
        return max(1, count // 50) if self.quick else count

    def builds(self):
        """Names of rows, and programs."""
        yield "Rescind", self.program
        if self.beside:
            yield "Rescind, the build beside", self.beside

    def uses(self, name, command, pattern):
        """Keeps a program's version, as it says it itself, which is what `pattern` captures."""
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = re.search(pattern, done.stdout + done.stderr)
        self.versions[name] = found[1] if found else "?"

    @contextlib.contextmanager
    def unless_missing(self):
        """What cannot run here is named in the results, and the rest of the part goes on."""
        try:
            yield
        except NotRun as reason:
            self.not_run.append(str(reason))

    def alternate(self, subjects, rounds=5):
        """Samples of every subject, in turns, each round from another one on. Subjects are functions by row name."""
        samples = {name: [] for name in subjects}
        names = list(subjects)
        for turn in range(rounds):
            for name in names[turn % len(names):] + names[: turn % len(names)]:
                samples[name].append(subjects[name]())
        return [{"name": name, "samples": of} for name, of in samples.items()]

    def wrk(self, servers, url, seconds, connections=64, headers=None, body=None):
        """A sample: the same request again and again. Its CPU is that of `servers`."""
        headers = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
        program = needed("wrk", "wrk")
        self.uses("wrk", [program, "-v"], r"wrk (?:debian/)?([\d.]+)")
        command = [program, "-t1", "--timeout=30s", f"-c{connections}", f"-d{self.whole(seconds)}", *headers,
                   "-s", HERE / "wrk.lua", url, "--", *(["GET"] if body is None else ["POST", body])]
        sample = with_cpu(servers, lambda: ran(command))
        if errors := sample.pop("errors"):
            raise RuntimeError(f"{url}: not every answer was a 200: {errors}")
        return sample

    @contextlib.contextmanager
    def flood(self, url, tokens):
        """Requests with the tokens of a file over 32 connections, whatever the answers are, for as long as the caller wants."""
        command = [needed("wrk", "wrk"), "-t1", "-c32", "-d600", "-s", HERE / "tokens.lua", url, "--", tokens]
        flood = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        try:
            yield
        finally:
            flood.kill()
            flood.wait()

    def whole(self, seconds):
        """wrk counts in seconds."""
        return max(1, round(self.seconds(seconds)))

    def load(self, servers, port, work, clients, seconds, connections=1, rate=None, more=()):
        """A sample by the program `load`."""
        command = self.load_command(port, work, clients, self.seconds(seconds), connections, rate, more)
        return with_cpu(servers, lambda: ran(command))

    def load_command(self, port, work, clients, seconds, connections, rate=None, more=()):
        paced = [f"--rate={rate}"] if rate else []
        return [self.helpers / "load", f"127.0.0.1:{port}", work, clients, f"--connections={connections}",
                f"--seconds={seconds}", *paced, *more]


def ran(command):
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)


def with_cpu(servers, run):
    """The JSON that `run` printed, with the CPU per request of the servers."""
    before = sum(server.cpu_seconds() for server in servers)
    done = run()
    used = sum(server.cpu_seconds() for server in servers) - before
    sample = last_line(done)
    sample["cpu_us"] = used * 1e6 / max(1, sample.pop("requests"))
    return sample


def last_line(done):
    if done.returncode or not done.stdout.strip():
        raise RuntimeError(f"{done.args[0]}: {done.stderr or done.stdout}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def started(stack, bench, **settings):
    """Every build's server, by the name of its row."""
    return {name: stack.enter_context(Rescind(program, **settings)) for name, program in bench.builds()}


def folder(stack, parent=None):
    """A folder that ends with the stack."""
    return pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rescind-bench-", dir=parent)))
