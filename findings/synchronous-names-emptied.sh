#!/usr/bin/env bash
# PostgreSQL 18.6: a commit that waits for its stand-by is released as a success, without any warning, when
# synchronous_standby_names is emptied and the configuration reloaded.
#
# Expected: the same WARNING as when such a wait is cancelled ("canceling wait for synchronous replication due to user
# request", SQLSTATE 01000), by which a client learns that the commit is on the primary alone. High-availability engines
# empty the names by themselves when the stand-by is lost, so a client that counts on the warning takes the commit for
# replicated.
#
# Output seen:
#   cancelled: WARNING, committed
#   emptied:   no warning, committed
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=$(postgres_programs 18.6.0)
port=$(free_port)
start_postgres "$programs" "$work/data" "$port" -c synchronous_commit=on
sql() { "$programs/psql" -X -p "$port" -v ON_ERROR_STOP=1 -Atc "$1"; }
sql 'CREATE TABLE t (x int)' >/dev/null

# wait_then HOW STATEMENT...: what an INSERT is told whose wait for an absent stand-by ends by these statements.
wait_then() {
    local how=$1
    shift
    sql "ALTER SYSTEM SET synchronous_standby_names = 'absent'" >/dev/null
    sql 'SELECT pg_reload_conf()' >/dev/null
    until [ "$(sql 'SHOW synchronous_standby_names')" = absent ]; do sleep 0.05; done
    sql "INSERT INTO t VALUES (1) RETURNING '$how'" >"$how" 2>&1 &
    local insert=$!
    until [ "$(sql "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")" = 1 ]; do sleep 0.05; done
    local statement
    for statement; do sql "$statement" >/dev/null; done
    wait "$insert" || changed "$how: the INSERT failed: $(cat "$how")"
    grep -q "^$how$" "$how" || changed "$how: $(cat "$how")"
    if grep -q WARNING "$how"; then echo 'WARNING, committed'; else echo 'no warning, committed'; fi
}

cancelled=$(wait_then cancelled "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
emptied=$(wait_then emptied "ALTER SYSTEM SET synchronous_standby_names = ''" 'SELECT pg_reload_conf()')
printf 'cancelled: %s\nemptied:   %s\n' "$cancelled" "$emptied"
[ "$cancelled" = 'WARNING, committed' ] || changed "a cancelled wait is told as: $cancelled"
[ "$emptied" = 'no warning, committed' ] || changed "an emptied list is told as: $emptied"
