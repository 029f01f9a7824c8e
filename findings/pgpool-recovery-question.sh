#!/usr/bin/env bash
# Pgpool-II 4.3.5 (Debian 12) with statement_level_load_balance over PostgreSQL 17.11: "SELECT pg_is_in_recovery()" is
# always sent to the primary and always answers f, while the plain SELECT that follows in the same session is answered by
# the stand-by.
#
# Expected: asking a session whether it is in recovery tells whether its reads come from a stand-by. It does not: the
# function is volatile, so Pgpool sends that one statement to the primary. The question must be part of the very statement
# that reads, which then goes to the primary as well; or come first in a transaction, the rest of which stays there.
#
# Output seen (a row was inserted that the stand-by does not have yet; f is the answer, the number that of the rows):
#   one after the other:      f 0
#   in a transaction, first:  f 1
#   in a transaction, last:   0 f
#   in one statement:         1|f
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=$(postgres_programs 17.11.0)
for package in pgpool2=4.3.5-1+deb12u1 libpgpool2=4.3.5-1+deb12u1 libmemcached11=1.1.4-1 libhashkit2=1.1.4-1; do
    (mkdir -p debs && cd debs && apt-get download -qq "$package" 2>/dev/null)
done
for package in debs/*.deb; do dpkg -x "$package" pgpool; done
chmod -R a+rX pgpool

primary=$(free_port)
start_postgres "$programs" "$work/primary" "$primary"
"${as[@]}" "$programs/pg_basebackup" -p "$primary" -D "$work/standby" -c fast
"${as[@]}" touch "$work/standby/standby.signal"
standby=$(free_port)
start_postgres "$programs" "$work/standby" "$standby" -c "primary_conninfo=host=127.0.0.1 port=$primary user=postgres"
sql() { "$programs/psql" -X -p "$1" -v ON_ERROR_STOP=1 -Atc "$2"; }

pooler=$(free_port)
cat >pgpool.conf <<CONF
backend_clustering_mode = 'streaming_replication'
listen_addresses = '127.0.0.1'
port = $pooler
pcp_port = $(free_port)
socket_dir = '$work'
pcp_socket_dir = '$work'
pid_file_name = '$work/pgpool.pid'
logdir = '$work'
backend_hostname0 = '127.0.0.1'
backend_port0 = $primary
backend_weight0 = 0
backend_hostname1 = '127.0.0.1'
backend_port1 = $standby
backend_weight1 = 1
load_balance_mode = on
statement_level_load_balance = on
sr_check_user = 'postgres'
sr_check_period = 1
delay_threshold = 0
num_init_children = 4
CONF
touch pcp.conf pool_hba.conf
[ ${#as[@]} -eq 0 ] || chown nobody:nogroup ./*.conf
LD_LIBRARY_PATH=$work/pgpool/usr/lib/x86_64-linux-gnu "${as[@]}" "$work/pgpool/usr/sbin/pgpool" -n \
    -f "$work/pgpool.conf" -F "$work/pcp.conf" -a "$work/pool_hba.conf" >pgpool.log 2>&1 &
started+=($!)
for _ in {1..300}; do
    sql "$pooler" 'SELECT 1' >/dev/null 2>&1 && break
    sleep 0.1
done

# The table reaches the stand-by, and the row does not.
sql "$primary" 'CREATE TABLE t (x int)' >/dev/null
until [ "$(sql "$standby" "SELECT to_regclass('t') IS NOT NULL")" = t ]; do sleep 0.1; done
sql "$standby" "ALTER SYSTEM SET recovery_min_apply_delay = '1h'" >/dev/null
sql "$standby" 'SELECT pg_reload_conf()' >/dev/null
until [ "$(sql "$standby" 'SHOW recovery_min_apply_delay')" = 1h ]; do sleep 0.1; done
sql "$primary" 'INSERT INTO t VALUES (1)' >/dev/null

ask() { printf '%s;\n' "$@" | "$programs/psql" -X -q -p "$pooler" -v ON_ERROR_STOP=1 -At | paste -sd ' '; }
question='SELECT pg_is_in_recovery()'
count='SELECT count(*) FROM t'
apart=$(ask "$question" "$count")
first=$(ask BEGIN "$question" "$count" COMMIT)
last=$(ask BEGIN "$count" "$question" COMMIT)
within=$(ask 'SELECT count(*), pg_is_in_recovery() FROM t')
printf '%-25s %s\n' 'one after the other:' "$apart" 'in a transaction, first:' "$first" 'in a transaction, last:' "$last" \
    'in one statement:' "$within"
[ "$apart" = 'f 0' ] || changed "one after the other: $apart"
[ "$first" = 'f 1' ] || changed "first in a transaction: $first"
[ "$last" = '0 f' ] || changed "last in a transaction: $last"
[ "$within" = '1|f' ] || changed "in one statement: $within"
