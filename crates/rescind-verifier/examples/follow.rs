//! Checks tokens in memory, which a running service keeps up to date: a token a line, from standard input.
//!
//! ```sh
//! rescind verifier create --name demo --share-hs256     # prints rv_…
//! echo eyJ… | cargo run -p rescind-verifier --features follow --example follow -- rv_…
//! ```

use std::net::{IpAddr, Ipv4Addr};

use rescind_verifier::follow::{Follower, Options};

#[expect(clippy::print_stdout, reason = "this is what it is for")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let token = arguments.next().ok_or("usage: follow VERIFIER_TOKEN [SERVER]")?;
    let server = arguments.next().unwrap_or("127.0.0.1:8081".into());

    let follower = Follower::start(Options::exact(server, token));
    follower.ready().await;
    // An API takes the address of the request's peer.
    let caller = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    for line in std::io::stdin().lines() {
        match follower.verify(line?.trim(), caller) {
            Ok(token) => {
                println!("valid: client {}, scopes: {:?}", token.claims().client, token.scopes().as_str())
            }
            Err(denied) => println!("refused: {denied}"),
        }
    }
    // A logout on the service need not wait for this process any more.
    follower.leave().await;
    Ok(())
}
