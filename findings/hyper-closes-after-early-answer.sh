#!/usr/bin/env bash
# hyper 1.12.0 (under axum 0.8.9): a handler that answers without reading the request's body, such as one that refuses a wrong
# token, ends the connection if the body comes in a packet of its own, after the head. The answer does not say so: it has no
# Connection: close. Python's http.client, and so requests and urllib3, always send head and body apart.
#
# Expected: as in Go's net/http, which reads a short body to its end before it answers, and says "close" if it gives up: a
# client's next request on the connection is answered.
#
# Output seen:
#   head and body together: 401, the next request on the connection: 401
#   head, then body:        401 without Connection: close, the next request: the connection is closed
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

port=$(free_port)
program=$(rust_program server 'axum = "=0.8.9"' 'hyper = "=1.12.0"' 'tokio = { version = "1", features = ["macros", "rt", "net"] }' <<'RUST'
use axum::{Router, http::StatusCode, routing::post};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_default();
    let refusing = Router::new().route("/", post(async || StatusCode::UNAUTHORIZED));
    axum::serve(tokio::net::TcpListener::bind(address).await?, refusing).await
}
RUST
)
"$program" "127.0.0.1:$port" &
started+=($!)
listening "$port"

# ask together|apart: prints the first answer, and what became of a second request on the connection.
ask() {
    python3 - "$port" "$1" <<'PYTHON'
import socket, sys

port, apart = int(sys.argv[1]), sys.argv[2] == "apart"
head, body = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", b"{}"
connection = socket.create_connection(("127.0.0.1", port), 10)
connection.sendall(head if apart else head + body)
first = connection.recv(65536)
try:
    if apart:
        connection.sendall(body)
    connection.sendall(head + body)
    second = connection.recv(65536)
except OSError:
    second = b""
close = "Connection: close" if b"connection: close" in first.lower() else "no word of a close"
print(first.split()[1].decode(), close, second.split()[1].decode() if second else "closed", sep=", ")
PYTHON
}

together=$(ask together)
[ "$together" = '401, no word of a close, 401' ] || changed "head and body together: $together"
echo 'head and body together: 401, the next request on the connection: 401'
apart=$(ask apart)
[ "$apart" = '401, no word of a close, closed' ] || changed "head, then body: $apart"
echo 'head, then body:        401 without Connection: close, the next request: the connection is closed'
