#!/usr/bin/env bash
# PostgreSQL 17.11: the warning that a commit was not replicated, because its wait for a stand-by was cancelled, has the same
# SQLSTATE as any other warning. Near the end of the transaction ids, which any database of the server may cause, each new
# transaction warns as well. Who takes a warning at COMMIT for a lost commit then takes every commit for lost, with 40 million
# transactions to go. Only the field `routine` tells them apart, and is not translated.
#
# Expected: a code of its own for a commit that may be lost.
#
# Output seen:
#   01000 GetNewTransactionId: database "template1" must be vacuumed within 32484377 transactions
#   01000 SyncRepWaitForLSN: canceling wait for synchronous replication due to user request
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=$(postgres_programs 17.11.0)
port=$(free_port)
export PGPORT=$port
start_postgres "$programs" "$work/data" "$port" -c autovacuum=off
sql() { "$programs/psql" -X -Atq -v VERBOSITY=verbose "$@"; }
# The code, the routine and the text of each warning.
told() { awk -F': +' '/WARNING:/ { code = $2; text = $3 } /^LOCATION:/ && code { sub(/,.*/, "", $2); print code, $2 ": " text; code = "" }'; }

sql -c 'CREATE TABLE t ()'
kill -INT "${started[-1]}"
wait "${started[-1]}" || true
# As if two thousand million transactions had been made, of which the log needs a part that is there.
next=2115000000
"${as[@]}" "$programs/pg_resetwal" -x "$next" "$work/data" >/dev/null
"${as[@]}" truncate -s 262144 "$work/data/pg_xact/$(printf '%04X' $((next / 1048576)))"
start_postgres "$programs" "$work/data" "$port" -c autovacuum=off

old=$(sql -c 'INSERT INTO t DEFAULT VALUES' 2>&1 | told | head -1)
echo "$old"
[[ $old == '01000 GetNewTransactionId: '* ]] || changed 'an old database warns otherwise'

sql -c "ALTER SYSTEM SET synchronous_standby_names = 'nobody'" -c 'SELECT pg_reload_conf()' >/dev/null 2>&1
until [ "$(sql -c 'SHOW synchronous_standby_names')" = nobody ]; do sleep 0.05; done
sql -c 'INSERT INTO t DEFAULT VALUES' >"$work/said" 2>&1 &
writer=$!
until [ "$(sql -c "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")" = 1 ]; do sleep 0.05; done
wait "$writer"
lost=$(told <"$work/said" | tail -1)
echo "$lost"
[[ $lost == '01000 SyncRepWaitForLSN: '* ]] || changed 'a cancelled wait warns otherwise'
