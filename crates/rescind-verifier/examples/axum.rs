//! An API that verifies tokens in memory, which a running service keeps up to date.
//!
//! ```sh
//! rescind serve
//! rescind verifier create --name orders --share-hs256    # prints rv_…
//! cargo run -p rescind-verifier --features follow-tls,tower --example axum -- rv_…
//! curl -i http://127.0.0.1:3000/ -H 'Authorization: Bearer eyJ…'
//! ```
//!
//! Over TLS, the server is `https://id.example:8081`, and a file of certificate authorities may be named last.

use std::net::{IpAddr, SocketAddr};

use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use rescind_verifier::{
    VerifiedToken,
    follow::{Follower, Options},
    tower::VerifyLayer,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let token = arguments.next().ok_or("usage: axum VERIFIER_TOKEN [SERVER] [LISTEN] [CA_FILE]")?;
    let server = arguments.next().unwrap_or("127.0.0.1:8081".into());
    let listen = arguments.next().unwrap_or("127.0.0.1:3000".into());

    let options = Options::exact(server, token);
    let options = match arguments.next() {
        Some(file) => options.with_authorities(std::fs::read(file)?)?,
        None => options,
    };
    let follower = Follower::start(options);
    let deciding = follower.clone();
    let decide = move |token: &str, caller: Option<IpAddr>| deciding.verify(token, caller);
    let caller = |request: &http::request::Parts| {
        request.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
    };
    let api = Router::new().route("/", get(hello)).layer(VerifyLayer::new(decide, caller));

    let listener = tokio::net::TcpListener::bind(listen).await?;
    let serving = axum::serve(listener, api.into_make_service_with_connect_info::<SocketAddr>());
    serving.with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    // No logout need wait for this process any more.
    follower.leave().await;
    Ok(())
}

async fn hello(Extension(token): Extension<VerifiedToken>) -> String {
    format!("Hello {}, client {}.\n", token.client().name, token.claims().client)
}
