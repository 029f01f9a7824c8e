"""The results of all parts in one file, their medians, and the tables made of them."""

import json
import statistics
import textwrap

from recipe.programs import ROOT

FILE = ROOT / "bench/results/results.json"
PAGE = ROOT / "docs/performance.md"
# What is measured: the heading of its column, and how it is written.
COLUMNS = {
    "requests_per_second": ("per second", "{:,.0f}"),
    "cpu_us": ("CPU each", "{:.1f} µs"),
    "ns": ("time", "{:,.0f} ns"),
    "p50_ms": ("p50", "{:.2f} ms"),
    "p99_ms": ("p99", "{:.2f} ms"),
    "longest_ms": ("longest", "{:.1f} ms"),
    "ms": ("time", "{:,.1f} ms"),
    "bytes": ("resident, each", "{:,.0f} bytes"),
    "mb": ("resident, in all", "{:.1f} MB"),
    "denied": ("denied", "{:,.0f}"),
    "kept": ("kept at most", "{:,.0f}"),
    "of_verify": ("a verification", "{:.0f} %"),
    "of_login": ("a login", "{:.0f} %"),
    "of_introspection": ("an introspection", "{:.0f} %"),
    "instructions": ("instructions", "{:,.0f}"),
}


def read():
    """Each part's rows, and what there is to say about them, by its name."""
    every = json.loads(FILE.read_text()) if FILE.exists() else {}
    return {name: part["about"] | {"rows": part["rows"]} for name, part in every.items()}


def keep(part, result):
    """Replaces this part alone, so that a run can be continued later."""
    every = read() | {part: result}
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(written(every))


def written(every):
    """JSON with a line for each row, so that a change of it can be read."""
    parts = []
    for name, result in sorted(every.items()):
        rows = ",\n".join("   " + json.dumps(row) for row in rounded(result["rows"]))
        rest = json.dumps({key: value for key, value in sorted(result.items()) if key != "rows"})
        parts.append(f' "{name}": {{\n  "about": {rest},\n  "rows": [\n{rows}\n  ]}}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def rounded(rows):
    """To what can be measured."""
    return [row | {"samples": [{key: round(value, 4) for key, value in sample.items()} for sample in row["samples"]]}
            for row in rows]


def median(row, measure):
    return statistics.median(sample[measure] for sample in row["samples"])


def ratio(rows, name, beside, measure):
    """The median of the rounds' ratios: what slowed a whole round does not count."""
    by_name = {row["name"]: row for row in rows}
    if name not in by_name or beside not in by_name:
        return None
    pairs = zip(by_name[name]["samples"], by_name[beside]["samples"])
    ratios = [one[measure] / other[measure] for one, other in pairs if other.get(measure)]
    return statistics.median(ratios) if ratios else None


def table(result):
    rows = result["rows"]
    measures = [m for m in COLUMNS if any(m in sample for row in rows for sample in row["samples"])]
    lines = ["| | " + " | ".join(COLUMNS[m][0] for m in measures) + " |", "| --- |" + " ---: |" * len(measures)]
    for row in rows:
        cells = [COLUMNS[m][1].format(median(row, m)) if m in row["samples"][0] else "" for m in measures]
        lines.append(f"| {row['name']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def described(result):
    """Where and how the part was measured."""
    machine = result["machine"]
    programs = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    quick = ", `--quick`" if result["quick"] else ""
    text = (f"{result['date']}{quick}; {machine['cores']} cores, {machine['cpu']}, "
            f"{'with' if machine['sha_instructions'] else 'without'} SHA instructions, Linux {machine['kernel']}; "
            f"load {machine['load']} before it; {programs}.")
    return "\n".join(textwrap.wrap(text + "".join(f" Not run: {reason}." for reason in result["not_run"]), 128))


# The ratios: what they are called, part, row, the row it is divided by, measure, aim.
AIMS = [
    ("CPU per `/verify` / the build beside", "verify", "Rescind", "Rescind, the build beside", "cpu_us", "≤ 0.33"),
    ("CPU per `/verify` / hyper with signature and look-up", "verify", "Rescind", "hyper, a signature and a look-up",
     "cpu_us", "≤ 1.4"),
    ("`/verify` per second / nginx `return 200`", "verify", "Rescind", "nginx, return 200", "requests_per_second", "≥ 0.85"),
    ("CPU per `/verify` / Envoy's `jwt_authn`", "verify", "Rescind", "Envoy, jwt_authn", "cpu_us", ""),
    ("`/verify` per second beside denials / beside as many good tokens", "denied", "Rescind, beside denials",
     "Rescind, beside good tokens", "requests_per_second", "≥ 0.95"),
    ("p99 of `/verify` beside logins at half their peak / alone", "mixed", "Rescind, beside logins", "Rescind, alone",
     "p99_ms", "≤ 2"),
    ("`/verify` at a node of three / single node", "cluster", "a node of three, PostgreSQL", "a single node, SQLite",
     "requests_per_second", "≥ 0.98"),
    ("CPU per login / the build beside", "login", "login, 64 connections: Rescind",
     "login, 64 connections: Rescind, the build beside", "cpu_us", "≤ 0.35"),
    ("durable logins per second at 64 / fdatasync", "login", "login, 64 connections: Rescind", "fdatasync, 4 kB",
     "requests_per_second", "≥ 10"),
    ("logins per second at 64, durable / in memory", "login", "login, 64 connections: Rescind",
     "login, 64 connections: Rescind in memory", "requests_per_second", ""),
    ("logins per second at 64, PostgreSQL / pgbench, the same row", "postgres", "login, 64 connections: Rescind",
     "pgbench, the same row, 64 connections", "requests_per_second", ""),
    ("a logout, 10⁶ sessions / 1 session", "logout", "1,000,000 sessions", "1 session", "p50_ms", ""),
    ("p99 of a login beside a backup of 500 MB / without", "backup", "Rescind, beside a backup", "Rescind, alone", "p99_ms",
     "≤ 2"),
    ("CPU per introspection / the build beside", "introspect", "Rescind", "Rescind, the build beside", "cpu_us", "≤ 0.4"),
    ("CPU per introspection / oidc-provider", "introspect", "Rescind", "oidc-provider", "cpu_us", ""),
    ("HS256, first look / bare HMAC", "verifier", "HS256, first", "HS256, bare-hmac", "ns", "≤ 2"),
    ("HS256, repeated / bare HMAC", "verifier", "HS256, repeated", "HS256, bare-hmac", "ns", "≤ 1"),
    ("EdDSA, repeated / first look", "verifier", "EdDSA, repeated", "EdDSA, first", "ns", "≤ 0.03"),
    ("ES256, repeated / first look", "verifier", "ES256, repeated", "ES256, first", "ns", "≤ 0.03"),
    ("instructions per `/verify`, 10,000 networks / 2 networks", "instructions", "/verify, 10,000 networks: Rescind", "/verify: Rescind",
     "instructions", "≤ 1.05"),
    ("HS256, repeated, 10,000 networks / 2 networks", "verifier", "HS256, networks", "HS256, repeated", "ns", "≤ 1.2"),
    ("HS256, first look / jsonwebtoken", "verifier", "HS256, first", "HS256, jsonwebtoken", "ns", ""),
]


def ratios(results):
    """Lines of the table of ratios, of what has been measured."""
    lines = ["| ratio, within one run | measured | aim |", "| --- | ---: | ---: |"]
    for what, part, name, beside, measure, aim in AIMS:
        found = ratio(results[part]["rows"], name, beside, measure) if part in results else None
        measured = "not measured" if found is None else f"{found:.2f}" if found >= 0.1 else f"{found:.4f}"
        lines.append(f"| {what} | {measured} | {aim} |")
    memory = {row["name"]: row for row in results.get("memory", {}).get("rows", [])}
    for what, aim in [("an idle connection", "≤ 8,192"), ("a waiting request, HTTP/1.1", "≤ 4,096"),
                      ("a waiting request, HTTP/2", "≤ 4,096")]:
        found = memory.get(f"{what}: Rescind")
        measured = f"{median(found, 'bytes'):,.0f}" if found else "not measured"
        lines.append(f"| resident bytes for {what} | {measured} | {aim} |")
    return "\n".join(lines)


def put(name, text):
    """Replaces what stands between the markers of this name in docs/performance.md."""
    page = PAGE.read_text()
    begin, end = f"<!-- {name}, by ./bench/run -->", f"<!-- end of {name} -->"
    if begin not in page or end not in page:
        raise SystemExit(f"docs/performance.md has no markers for {name}")
    before, rest = page.split(begin, 1)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}")
