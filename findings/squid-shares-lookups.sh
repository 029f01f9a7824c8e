#!/usr/bin/env bash
# Squid 5.7 (Debian 12) with external_acl_type: with ttl=0 no answer of the helper is kept, but a request that arrives while
# the helper is asked about the same token waits for that answer, even if the question was put before a revocation that was
# complete before the request was sent. Only cache=0 makes each request a question of its own.
#
# Expected: with ttl=0 the helper is asked for every request. A slow helper thus lets revoked tokens through for as long as
# it takes, and the default, ttl=3600, for an hour.
#
# Output seen (the helper needs 2 s and answers what was true at the question; requests: before the revocation, right after
# it while the first one waits, and after both; then the questions that the helper was asked):
#   default:        200 200 200, 1 question
#   ttl=0:          200 200 403, 2 questions
#   ttl=0 cache=0:  200 403 403, 3 questions
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for package in squid=5.7-2+deb12u6 squid-common=5.7-2+deb12u6 libecap3 libnetfilter-conntrack3 libnfnetlink0 libltdl7 libtdb1; do
    (mkdir -p debs && cd debs && apt-get download -qq "$package" 2>/dev/null)
done
for package in debs/*.deb; do dpkg -x "$package" squid; done
mkdir templates
cat >helper.py <<'PYTHON'
import sys, time

for line in sys.stdin:
    with open("asked", "a") as file:
        file.write("x")
    with open("valid") as file:
        valid = file.read() == "yes"
    time.sleep(2)
    print("OK" if valid else "ERR", flush=True)
PYTHON
chmod -R a+rX .
api=$(free_port)
serve api "$api" 200

# requests OPTIONS: what happens to the three.
requests() {
    local port pid first second third asked
    port=$(free_port)
    cat >squid.conf <<CONF
http_port 127.0.0.1:$port accel defaultsite=api.example
cache_peer 127.0.0.1 parent $api 0 no-query originserver no-digest
external_acl_type verify $1 children-max=4 children-startup=4 %>ha{Authorization} /usr/bin/python3 $work/helper.py
acl verified external verify
http_access allow verified
http_access deny all
cache deny all
access_log none
cache_log $work/cache.log
pid_filename none
coredump_dir $work
mime_table $work/squid/usr/share/squid/mime.conf
icon_directory $work/squid/usr/share/squid/icons
error_directory $work/templates
unlinkd_program $work/squid/usr/lib/squid/unlinkd
pinger_enable off
netdb_filename none
visible_hostname api.example
CONF
    : >asked
    printf yes >valid
    [ ${#as[@]} -eq 0 ] || chown nobody:nogroup asked
    LD_LIBRARY_PATH=$work/squid/usr/lib/x86_64-linux-gnu "${as[@]}" "$work/squid/usr/sbin/squid" -N -f "$work/squid.conf" >squid.log 2>&1 &
    pid=$!
    started+=("$pid")
    listening "$port"
    curl -s -m 20 -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer t' "http://127.0.0.1:$port/" >first &
    until [ -s asked ]; do sleep 0.05; done
    sleep 0.5
    printf no >valid
    second=$(curl -s -m 20 -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer t' "http://127.0.0.1:$port/")
    wait $!
    first=$(cat first)
    third=$(curl -s -m 20 -o /dev/null -w '%{http_code}' -H 'Authorization: Bearer t' "http://127.0.0.1:$port/")
    kill "$pid"
    asked=$(wc -c <asked)
    result="$first $second $third, $asked question$([ "$asked" = 1 ] || echo s)"
    printf '%-15s %s\n' "${1:-default}:" "$result"
    [ "$result" = "$2" ] || { cat squid.log cache.log >&2; changed "$1: $result"; }
}

requests '' '200 200 200, 1 question'
requests 'ttl=0' '200 200 403, 2 questions'
requests 'ttl=0 cache=0' '200 403 403, 3 questions'
