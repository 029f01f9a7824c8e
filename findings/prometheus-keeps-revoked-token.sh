#!/usr/bin/env bash
# Prometheus 2.42.0 (Debian 12), `oauth2` of a scrape job: a token that the target refuses by 401 is kept, so that the target
# is down for the rest of the token's time. A SIGHUP with the same file does not change that; a SIGHUP with any change in that
# job does. blackbox_exporter 0.23.0 has the same `oauth2` settings, and takes a new token for every probe.
#
# Expected: a refused token is renewed, or a reload begins anew; and both programs keep a token, since they share the code
# that reads these settings.
#
# Output seen (tokens are valid for an hour; the target's health, and the tokens that were issued until then):
#   first scrapes:                up, 1
#   token revoked:                down, 1
#   SIGHUP, same file:            down, 1
#   SIGHUP, honor_labels changed: up, 2
#   blackbox_exporter, 5 probes:  5 tokens
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

for package in prometheus=2.42.0+ds-5+deb12u1 prometheus-blackbox-exporter=0.23.0-4+b4; do
    (mkdir -p debs && cd debs && apt-get download -qq "$package" 2>/dev/null)
done
for package in debs/*.deb; do dpkg -x "$package" debian; done

cat >service.py <<'PYTHON'
import http.server, json, sys

tokens, revoked, scrapes = 0, set(), 0

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, status, text, media="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self):
        global tokens
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/revoke":
            revoked.add(f"Bearer t{tokens}")
            return self.answer(200, "")
        tokens += 1
        token = {"access_token": f"t{tokens}", "token_type": "Bearer", "expires_in": 3600}
        self.answer(200, json.dumps(token), "application/json")

    def do_GET(self):
        global scrapes
        if self.path in ("/tokens", "/scrapes"):
            return self.answer(200, str(tokens if self.path == "/tokens" else scrapes))
        header = self.headers["Authorization"]
        scrapes += header is not None
        self.answer(401 if header is None or header in revoked else 200, "a 1\n")

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
PYTHON
service=$(free_port)
python3 service.py "$service" &
started+=($!)
listening "$service"
ask() { curl -sf "http://127.0.0.1:$service/$1"; }

# configure [LINE]: the configuration, with one more line in the job.
configure() {
    cat >prometheus.yml <<YAML
global: {scrape_interval: 1s}
scrape_configs:
- job_name: api
  static_configs: [{targets: ["127.0.0.1:$service"]}]
  oauth2: {client_id: a, client_secret: b, token_url: "http://127.0.0.1:$service/token"}
  ${1:-}
YAML
}
configure
port=$(free_port)
debian/usr/bin/prometheus --config.file=prometheus.yml --storage.tsdb.path=data --web.listen-address="127.0.0.1:$port" \
    --log.level=error >prometheus.log 2>&1 &
prometheus=$!
started+=("$prometheus")

# health NAME EXPECTED: after three more scrapes.
health() {
    local before now
    before=$(ask scrapes)
    for _ in {1..300}; do
        now=$(ask scrapes)
        [ "$now" -lt $((before + 3)) ] || break
        sleep 0.1
    done
    now=$(curl -sf "http://127.0.0.1:$port/api/v1/targets" | python3 -c '
import json, sys
print(json.load(sys.stdin)["data"]["activeTargets"][0]["health"])')
    now="$now, $(ask tokens)"
    printf '%-29s %s\n' "$1" "$now"
    [ "$now" = "$2" ] || { cat prometheus.log >&2; changed "$1 $now"; }
}
health 'first scrapes:' 'up, 1'
curl -sf -d a=b "http://127.0.0.1:$service/revoke"
health 'token revoked:' 'down, 1'
# reload: until Prometheus says that it is done.
reload() {
    local metric=prometheus_config_last_reload_success_timestamp_seconds before
    before=$(curl -sf "http://127.0.0.1:$port/metrics" | grep "^$metric")
    sleep 1.1
    kill -HUP "$prometheus"
    for _ in {1..100}; do
        [ "$(curl -sf "http://127.0.0.1:$port/metrics" | grep "^$metric")" = "$before" ] || return 0
        sleep 0.1
    done
    echo 'Prometheus does not reload' >&2
    exit 2
}
reload
health 'SIGHUP, same file:' 'down, 1'
configure 'honor_labels: true'
reload
health 'SIGHUP, honor_labels changed:' 'up, 2'

cat >blackbox.yml <<YAML
modules:
  api: {prober: http, http: {oauth2: {client_id: a, client_secret: b, token_url: "http://127.0.0.1:$service/token"}}}
YAML
port=$(free_port)
debian/usr/bin/prometheus-blackbox-exporter --config.file=blackbox.yml --web.listen-address="127.0.0.1:$port" >blackbox.log 2>&1 &
started+=($!)
listening "$port"
kill "$prometheus"
before=$(ask tokens)
for _ in 1 2 3 4 5; do
    curl -sf "http://127.0.0.1:$port/probe?module=api&target=http://127.0.0.1:$service/" | grep -q '^probe_success 1' ||
        { cat blackbox.log >&2; changed 'blackbox_exporter: a probe fails'; }
done
taken=$(($(ask tokens) - before))
printf '%-29s %s tokens\n' 'blackbox_exporter, 5 probes:' "$taken"
[ "$taken" = 5 ] || changed "blackbox_exporter: $taken tokens"
