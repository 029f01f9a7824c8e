//! The API of the example `axum` without tokens: a reverse proxy asks Rescind, and names the client in headers.
//!
//! ```sh
//! RESCIND_SERVER__TRUSTED_PROXIES=127.0.0.1/32 RESCIND_SERVER__CLIENT_ADDRESS_HEADER=X-Forwarded-For rescind serve
//! cargo run -p rescind-verifier --example bare
//! rescind proxy-config nginx --upstream http://127.0.0.1:3000 --listen 127.0.0.1:8000 > /etc/nginx/conf.d/api.conf
//! curl -i http://127.0.0.1:8000/ -H 'Authorization: Bearer eyJ…'
//! ```

use axum::{Router, routing::get};
use http::HeaderMap;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::args().nth(1).unwrap_or("127.0.0.1:3000".into());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    axum::serve(listener, Router::new().route("/", get(hello))).await?;
    Ok(())
}

async fn hello(headers: HeaderMap) -> String {
    let header = |name: &str| String::from_utf8_lossy(headers[name].as_bytes()).into_owned();
    format!("Hello {}, client {}.\n", header("x-rescind-client-name"), header("x-rescind-client"))
}
