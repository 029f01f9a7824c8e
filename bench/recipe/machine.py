"""The machine, and what /proc says about its processes."""

import contextlib
import os
import pathlib
import platform
import time

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cores():
    return len(os.sched_getaffinity(0))


def describe():
    """What figures depend on."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PHYS_PAGES") * PAGE / 2**30
    return {
        "cores": cores(),
        "cpu": cpu,
        "sha_instructions": " sha_ni" in pathlib.Path("/proc/cpuinfo").read_text(),
        "memory_gib": round(memory),
        "kernel": ".".join(platform.release().split(".")[:2]),
        "load": round(os.getloadavg()[0], 1),
    }


def is_in_memory(folder):
    """Whether the file system of the folder is in memory."""
    folder = str(pathlib.Path(folder).resolve())
    mounts = [line.split()[1:3] for line in open("/proc/self/mounts")]
    mounts = [(place, kind) for place, kind in mounts if (folder + "/").startswith(place.rstrip("/") + "/")]
    return max(mounts, key=lambda mount: len(mount[0]))[1] in ("tmpfs", "ramfs")


def fdatasyncs_per_second(folder, seconds):
    """How often a second the disk flushes 4 kB that are written over others, as a log that is used again is."""
    path = pathlib.Path(folder) / "fdatasync"
    block = os.urandom(4096)
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.write(file, block * 1024)
        os.fsync(file)
        count, began = 0, time.monotonic()
        while time.monotonic() - began < seconds:
            os.pwrite(file, block, count % 1024 * len(block))
            os.fdatasync(file)
            count += 1
        return count / (time.monotonic() - began)
    finally:
        os.close(file)
        path.unlink()


def family(pid):
    """The process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                parents[int(entry)] = int(stat(entry)[1])
    found = [pid]
    for parent in found:
        found += [child for child, its in parents.items() if its == parent]
    return found


def cpu_seconds(pid):
    """What the process and its descendants have used, in user and system mode, those too that have ended."""
    total = 0
    for member in family(pid):
        with contextlib.suppress(OSError):  # It has ended meanwhile, and its parent's count contains it.
            total += sum(map(int, stat(member)[11:15]))
    return total / TICKS


def resident(pid):
    """Bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE


def stat(pid):
    """The fields after the process's name."""
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()
