"""docs/pictures/performance.svg: what a verification and a login cost, as bars."""

from html import escape

from recipe.programs import ROOT
from recipe.results import COLUMNS, median

FILE = ROOT / "docs/pictures/performance.svg"
# It brings its own background in both, because a page may have another than the reader's system.
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1b1f24} .title{font-weight:600} .page{fill:#fff} .own{fill:#0550ae} .other{fill:#8c959f}
@media (prefers-color-scheme:dark){text{fill:#e6edf3} .page{fill:#0d1117} .own{fill:#58a6ff} .other{fill:#6e7681}}
"""
# Panels: title, part, measure, and the rows: those whose names begin so.
PANELS = [
    ("CPU of a verification over HTTP, 64 connections", "verify", "cpu_us", ""),
    ("Verifications a second, 64 connections", "verify", "requests_per_second", ""),
    ("CPU of an introspection, 64 connections", "introspect", "cpu_us", ""),
    ("Durable logins a second, 64 connections, and flushes of the disk", "login", "requests_per_second",
     ("login, 64 connections", "fdatasync")),
]
WIDTH, NAMES, BAR, ROW = 900, 330, 430, 26


def draw(results):
    parts, y = [], 16
    for title, part, measure, begin in PANELS:
        if part not in results:
            continue
        rows = [row for row in results[part]["rows"] if row["name"].startswith(begin) and measure in row["samples"][0]]
        most = max(median(row, measure) for row in rows)
        y += 14
        parts.append(text(20, y, title, "title"))
        for row in rows:
            y += ROW
            value = median(row, measure)
            length = max(1, round(BAR * value / most))
            kind = "own" if "Rescind" in row["name"] else "other"
            parts += [
                text(NAMES - 10, y, row["name"].removeprefix("login, 64 connections: "), anchor="end"),
                f'<rect class="{kind}" x="{NAMES}" y="{y - 14}" width="{length}" height="18" rx="2"/>',
                text(NAMES + length + 8, y, COLUMNS[measure][1].format(value)),
            ]
        y += ROW
    if parts:
        FILE.write_text("\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">',
            f"<title>What requests cost, side by side</title><style>{STYLE}</style>",
            f'<rect class="page" width="{WIDTH}" height="{y}"/>', *parts, "</svg>\n"]))


def text(x, y, content, kind="", anchor="start"):
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(content)}</text>'
