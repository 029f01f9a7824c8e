#!/usr/bin/env bash
# http 1.3.1 (Rust), `http::Uri`, with which hyper and axum name servers; url 2.5.7 beside it.
#
# Expected: a port above 65535 is no port (RFC 3986 allows any digits, TCP does not), so the text is refused, or the port can
# at least be told from none.
# Happens: the text is read without an error, and `port_u16()` is None, as where there is no port. With the usual
# `port_u16().unwrap_or(443)` a misspelt port silently becomes the scheme's own, and another server is asked.
# Seen:
#     http: https://a.example:99999/ has the port None
#     http: https://a.example/ has the port None
#     url: https://a.example:99999/ is refused: invalid port number
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

program=$(rust_program client 'http = "=1.3.1"' 'url = "=2.5.7"' <<'RUST'
fn main() {
    let texts = ["https://a.example:99999/", "https://a.example/"];
    for text in texts {
        match text.parse::<http::Uri>() {
            Ok(uri) => println!("http: {text} has the port {:?}", uri.port_u16()),
            Err(error) => println!("http: {text} is refused: {error}"),
        }
    }
    match url::Url::parse(texts[0]) {
        Ok(url) => println!("url: {} has the port {:?}", texts[0], url.port()),
        Err(error) => println!("url: {} is refused: {error}", texts[0]),
    }
}
RUST
)
"$program" | tee seen
grep -qx 'http: https://a.example:99999/ has the port None' seen || changed 'http and a port above 65535'
grep -qx 'url: https://a.example:99999/ is refused: invalid port number' seen || changed 'url and a port above 65535'
