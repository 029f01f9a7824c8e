#!/usr/bin/env bash
# tokio-postgres 0.7.18: connect_timeout ends with the TCP handshake. A host that accepts the connection and never answers,
# such as one whose server hangs, is waited for without end, and the other hosts of the same URL are never asked.
#
# Expected: as in libpq, where the same parameter bounds the whole attempt at one host, and the next host follows.
#
# Output seen:
#   libpq, first host silent, connect_timeout=2:          connected to the second within 4 s
#   tokio-postgres, first host silent, connect_timeout=2: still waiting after 20 s
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

programs=$(postgres_programs 17.11.0)
port=$(free_port)
start_postgres "$programs" "$work/data" "$port"
silent=$(free_port)
# Accepts in the kernel, and that is all.
python3 -c "
import socket, time
listener = socket.create_server(('127.0.0.1', $silent), backlog=16)
time.sleep(300)" &
started+=($!)
until python3 -c "import socket; socket.create_connection(('127.0.0.1', $silent), 1)" 2>/dev/null; do sleep 0.05; done
url="postgres://postgres@127.0.0.1:$silent,127.0.0.1:$port/postgres?connect_timeout=2"

timeout 4 "$programs/psql" -X "$url" -Atc 'SELECT 1' >/dev/null || changed 'libpq does not go on to the second host'
echo 'libpq, first host silent, connect_timeout=2:          connected to the second within 4 s'

program=$(rust_program client 'tokio = { version = "1", features = ["macros", "rt", "net"] }' 'tokio-postgres = "=0.7.18"' <<'RUST'
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), tokio_postgres::Error> {
    let url = std::env::args().nth(1).unwrap_or_default();
    tokio_postgres::connect(&url, tokio_postgres::NoTls).await.map(drop)
}
RUST
)
outcome=0
timeout 20 "$program" "$url" || outcome=$?
[ "$outcome" = 124 ] || changed "tokio-postgres ends by itself, exit code $outcome"
echo 'tokio-postgres, first host silent, connect_timeout=2: still waiting after 20 s'
