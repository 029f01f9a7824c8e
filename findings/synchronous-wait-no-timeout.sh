#!/usr/bin/env bash
# PostgreSQL 18.6: statement_timeout does not end a commit that waits for its stand-by, and neither does
# transaction_timeout; NOTIFY alone and an UPDATE that matches no row commit without waiting at all.
#
# Expected: a statement that is bounded by a timeout ends within it; and every COMMIT waits for the stand-by, so that a
# harmless one could be used to probe whether commits are possible.
#
# Output seen:
#   INSERT, both timeouts 500 ms: still waiting after 3 s
#   NOTIFY: does not wait
#   UPDATE of no row: does not wait
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=$(postgres_programs 18.6.0)
port=$(free_port)
start_postgres "$programs" "$work/data" "$port"
sql() { "$programs/psql" -X -p "$port" -v ON_ERROR_STOP=1 -Atc "$1"; }
sql 'CREATE TABLE t (x int)' >/dev/null
sql "ALTER SYSTEM SET synchronous_standby_names = 'absent'" >/dev/null
sql 'SELECT pg_reload_conf()' >/dev/null
until [ "$(sql 'SHOW synchronous_standby_names')" = absent ]; do sleep 0.05; done

# waits STATEMENT: whether it is still under way after 3 s.
waits() {
    local outcome=0
    PGOPTIONS='-c statement_timeout=500 -c transaction_timeout=500' timeout 3 \
        "$programs/psql" -X -p "$port" -v ON_ERROR_STOP=1 -Atc "$1" >out 2>&1 || outcome=$?
    case $outcome in
    124) return 0 ;;
    0) return 1 ;;
    *) changed "$1: $(cat out)" ;;
    esac
}

waits 'INSERT INTO t VALUES (1)' || changed 'the INSERT does not wait any longer than its timeouts'
echo 'INSERT, both timeouts 500 ms: still waiting after 3 s'
if waits 'NOTIFY bell'; then changed 'NOTIFY waits'; fi
echo 'NOTIFY: does not wait'
if waits 'UPDATE t SET x = 2 WHERE false'; then changed 'an UPDATE of no row waits'; fi
echo 'UPDATE of no row: does not wait'
