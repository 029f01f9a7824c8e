"""Where the processor's time of a request goes, by what the program is made of."""

import contextlib
import re
import subprocess
import tempfile

from recipe.measure import started
from recipe.oauth import basic
from recipe.programs import ENVIRONMENT, NotRun, needed

SECONDS = 5
# Parts by the crate of a function, or the library that it is in. What is inlined counts for whom it is inlined into.
CRATES = {
    "HTTP: hyper, http, httparse": "hyper|hyper_util|http|http_body|http_body_util|httparse|axum|axum_core|tower|form_urlencoded|percent_encoding",
    "the runtime: tokio, mio": "tokio|tokio_util|mio|futures_util|futures_core|futures_channel|parking_lot|parking_lot_core",
    "hashes and signatures": "sha2|hmac|digest|ring|block_buffer|cpufeatures|hybrid_array|subtle|base64|data_encoding|curve25519_dalek|p256",
    "JSON, log lines, metrics": "serde|serde_json|serde_core|itoa|ryu|tracing|tracing_core|tracing_subscriber|prometheus_client",
    "Rescind": "rescind|rescind_verifier",
}
KERNEL, SQLITE, MEMORY, REST = "the kernel", "SQLite, and other functions in C", "memory: allocator and copies", "the rest: the standard library, small crates"
PARTS = [KERNEL, *CRATES, SQLITE, MEMORY, REST]


def profile(bench):
    """Where the processor's time of a verification, a login and an introspection goes, by perf."""
    perf = needed("perf", "linux-perf")
    with contextlib.ExitStack() as stack:
        server = started(stack, bench)["Rescind"]
        client = server.client("client", "--scope", "orders:read", "--scope", "introspect")
        token, clients = server.log_in(client)["access_token"], server.clients(64)
        requests = {
            "of_verify": lambda: bench.wrk([server], server.url("/verify"), SECONDS, headers={"Authorization": f"Bearer {token}"}),
            "of_login": lambda: bench.load([server], server.port, "login", clients, SECONDS, 64),
            "of_introspection": lambda: bench.wrk([server], server.url("/oauth2/introspect"), SECONDS, body=f"token={token}",
                                                  headers=basic(client)),
        }
        shares = {what: recorded(perf, server, request) for what, request in requests.items()}
    return [{"name": part, "samples": [{what: share[part] for what, share in shares.items()}]} for part in PARTS]


def recorded(perf, server, request):
    """The share of each part, in percent, while the requests are answered."""
    with tempfile.NamedTemporaryFile(prefix="rescind-bench-") as file:
        recording = subprocess.Popen([perf, "record", "--quiet", "-e", "cpu-clock", "-F", "1999", "-p", str(server.process.pid), "-o", file.name],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
        try:
            request()
        finally:
            recording.terminate()
            _, problem = recording.communicate()
        report = subprocess.run([perf, "report", "--stdio", "-i", file.name, "--no-children", "-F", "overhead,dso,symbol", "-t", ";"],
                                capture_output=True, text=True, check=False, env=ENVIRONMENT).stdout
    found = re.findall(r"^ *([\d.]+)% *;([^;]*);\[(.)\] (.*)$", report, re.M)
    if not found:
        raise NotRun(f"perf has recorded nothing: {problem.decode(errors='replace').strip()}")
    shares = dict.fromkeys(PARTS, 0.0)
    for share, library, kind, symbol in found:
        shares[part_of(library.strip(), kind, symbol.strip())] += float(share)
    if shares["Rescind"] == 0:
        raise NotRun("the program has no symbols: build it with CARGO_PROFILE_DIST_STRIP=none")
    return shares


def part_of(library, kind, symbol):
    if kind == "k" or library == "[vdso]":
        return KERNEL
    if library.startswith(("libc", "ld-linux")) or re.match(r"(__rust_|__rdl_|mem(cpy|move|set|cmp))", symbol):
        return MEMORY
    crate = re.match(r"[<&(\[]*(?:mut |dyn )?(\w+)::", symbol)
    if not crate:
        # C, and assembly of ring.
        return "hashes and signatures" if "ring" in symbol or "sha256" in symbol else SQLITE
    return next((part for part, crates in CRATES.items() if re.fullmatch(crates, crate[1])), REST)
