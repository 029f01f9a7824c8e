#!/usr/bin/env bash
# pg_upgrade from PostgreSQL 17.11 to 18.6: the timeline of a server that has failed over before goes back to 1, and the
# system identifier is a new one.
#
# Expected: an upgraded server goes on where the old one was. Whoever tells a newer primary from an older one by the
# timeline, which only ever rises otherwise, takes the upgraded server for one that was replaced long ago.
# Besides: 18's initdb makes checksums by default, and pg_upgrade refuses a server that was made without them by 17's
# defaults, unless initdb is told --no-data-checksums.
#
# Output seen:
#   before: timeline 2
#   after:  timeline 1, another system identifier, the same rows
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

old=$(postgres_programs 17.11.0)
new=$(postgres_programs 18.6.0)
port=$(free_port)
sql() { "$old/psql" -X -p "$port" -v ON_ERROR_STOP=1 -Atc "$1"; }
stop() {
    "${as[@]}" "$old/pg_ctl" stop -s -w -m fast -D "$1"
    started=()
}
# The last checkpoint's timeline and the system identifier, as the stopped server's folder has them.
control() { "${as[@]}" "$1/pg_controldata" "$2" | sed -n "s/^$3: *//p"; }

start_postgres "$old" "$work/old" "$port"
sql 'CREATE TABLE t AS SELECT 1 AS x' >/dev/null
stop "$work/old"
# A stand-by that is promoted, without the bother of a primary.
"${as[@]}" touch "$work/old/standby.signal"
start_postgres "$old" "$work/old" "$port"
sql 'SELECT pg_promote()' >/dev/null
sql 'CHECKPOINT' >/dev/null
stop "$work/old"
before=$(control "$old" "$work/old" "Latest checkpoint's TimeLineID")
identity=$(control "$old" "$work/old" 'Database system identifier')
echo "before: timeline $before"
[ "$before" = 2 ] || changed "a promoted server is on timeline $before"

"${as[@]}" "$new/initdb" -D "$work/new" -U postgres -A trust -E UTF8 --no-locale --no-sync --no-data-checksums >/dev/null
(cd "$work" && "${as[@]}" "$new/pg_upgrade" -U postgres -b "$old" -B "$new" -d "$work/old" -D "$work/new" \
    --socketdir "$work" >upgrade.log 2>&1) || { cat "$work/upgrade.log" >&2; exit 2; }
after=$(control "$new" "$work/new" "Latest checkpoint's TimeLineID")
other=$(control "$new" "$work/new" 'Database system identifier')
start_postgres "$new" "$work/new" "$port"
rows=$(sql 'SELECT count(*) FROM t')
[ "$after" = 1 ] || changed "the upgraded server is on timeline $after"
[ "$other" != "$identity" ] || changed 'the system identifier is the same'
[ "$rows" = 1 ] || changed "$rows rows"
echo "after:  timeline $after, another system identifier, the same rows"
