#!/usr/bin/env bash
# tokio-postgres 0.7.18: a URL with an `@` in a parameter alone, postgres://HOST/DATABASE?user=USER&password=PASS@WORD.
#
# Expected: as in libpq, for which only an `@` before the first `/` ends a user and password.
# Happens: everything before the `@` is taken for a user, and what follows it for the host. The driver looks up a part of the
# password in DNS, and a program that hides the text before the first colon and `@` shows the rest.
# Seen:
#     libpq asks the host 127.0.0.1
#     tokio-postgres asks the host word
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_packages 'psycopg[binary]==3.2.10'
url="postgres://127.0.0.1:$(free_port)/x?user=u&password=pass@word"
python3 - "$url" >seen <<'PYTHON'
import sys

import psycopg.conninfo

print("libpq asks the host", psycopg.conninfo.conninfo_to_dict(sys.argv[1])["host"])
PYTHON
program=$(rust_program client 'tokio-postgres = "=0.7.18"' <<'RUST'
fn main() {
    let url = std::env::args().nth(1).unwrap_or_default();
    match url.parse::<tokio_postgres::Config>() {
        Ok(config) => match config.get_hosts() {
            [tokio_postgres::config::Host::Tcp(host)] => println!("tokio-postgres asks the host {host}"),
            _ => println!("tokio-postgres has other hosts"),
        },
        Err(_) => println!("tokio-postgres refuses it"),
    }
}
RUST
)
"$program" "$url" >>seen
cat seen
grep -qx 'libpq asks the host 127.0.0.1' seen || changed 'libpq'
grep -qx 'tokio-postgres asks the host word' seen || changed 'tokio-postgres'
