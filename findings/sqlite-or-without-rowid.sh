#!/usr/bin/env bash
# SQLite 3.54.1 (apsw 3.54.1.0): `a = ? AND (x = ? OR y = ?)`, where (a, x) is the primary key and (a, y) has a unique index.
#
# Expected: two look-ups by an index, as MULTI-INDEX OR does, for each of the two finds at most one row.
# Happens: so it is in a table with rowids. In the same table WITHOUT ROWID, every row of this `a` is read, until ANALYZE has
# been run once, which nothing does by itself. Written out as (a AND x) OR (a AND y), it is the same.
# Seen:
#     rowid: MULTI-INDEX OR
#     WITHOUT ROWID: SEARCH t USING COVERING INDEX t_y (a=?)
#     WITHOUT ROWID, after ANALYZE: MULTI-INDEX OR
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages apsw==3.54.1.0
cat >plans.py <<'PYTHON'
import apsw


def plan(database):
    question = "EXPLAIN QUERY PLAN SELECT * FROM t WHERE a = 1 AND (x = 5 OR y = 6)"
    return next(iter(database.execute(question)))[3]


for kind in ["rowid", "WITHOUT ROWID"]:
    database = apsw.Connection(":memory:")
    options = "" if kind == "rowid" else kind
    database.execute(f"CREATE TABLE t (a INTEGER NOT NULL, x INTEGER NOT NULL, y INTEGER NOT NULL, PRIMARY KEY (a, x)) {options}")
    database.execute("CREATE UNIQUE INDEX t_y ON t (a, y)")
    database.executemany("INSERT INTO t VALUES (1, ?, ?)", [(n, n + 1) for n in range(0, 10_000, 2)])
    print(f"{kind}: {plan(database)}")
database.execute("ANALYZE")
print(f"{kind}, after ANALYZE: {plan(database)}")
PYTHON
python3 plans.py | tee seen
grep -qx 'rowid: MULTI-INDEX OR' seen || changed 'a table with rowids'
grep -qx 'WITHOUT ROWID: SEARCH t USING COVERING INDEX t_y (a=?)' seen || changed 'a table without rowids'
grep -qx 'WITHOUT ROWID, after ANALYZE: MULTI-INDEX OR' seen || changed 'a table without rowids, after ANALYZE'
