//! Lets clients of a message broker in by their tokens, and closes their connections when the tokens are revoked or
//! expire.
//!
//! ```sh
//! rescind verifier create --name broker    # prints rv_…
//! cargo run -p rescind-verifier --features follow --example broker -- rv_… \
//!     http://guest:guest@127.0.0.1:15672/api/connections/username
//! ```
//!
//! RabbitMQ's `rabbitmq_auth_backend_http` asks `POST /auth/user`. Anything else asks `POST /open` with `token`, `client_ip`
//! and a name of its own, `connection`, and is answered as by introspection (RFC 7662). To close a connection, this sends
//! a DELETE to the URL given, followed by the name. `docs/relying-parties.md` has the configuration of the brokers.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use axum::{Form, Json, Router, extract::State, routing::post};
use data_encoding::BASE64;
use http::{
    Request, Uri,
    header::{AUTHORIZATION, HOST},
};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use rescind_verifier::follow::{Follower, Hold, Options};
use serde::Deserialize;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, sleep_until, timeout},
};

/// RabbitMQ knows whose a connection is when the connection is open. It allows this long from the login until then.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// RabbitMQ does not say where a client calls from. This address is on no allowlist but one of all addresses.
const ANYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const PATIENCE: Duration = Duration::from_secs(5);

type Error = Box<dyn std::error::Error + Send + Sync>;

struct Broker {
    follower: Follower,
    close: Uri,
}

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
}

#[derive(Deserialize)]
struct Opening {
    token: String,
    client_ip: Option<IpAddr>,
    connection: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: broker VERIFIER_TOKEN CLOSE_URL [SERVER] [LISTEN]";
    let (Some(token), Some(close)) = (arguments.next(), arguments.next()) else { return Err(usage.into()) };
    let server = arguments.next().unwrap_or("127.0.0.1:8081".into());
    let listen = arguments.next().unwrap_or("127.0.0.1:3000".into());

    let follower = Follower::start(Options::exact(server, token));
    follower.ready().await;
    let broker = Arc::new(Broker { follower: follower.clone(), close: close.parse()? });
    let asked = Router::new().route("/auth/user", post(log_in)).route("/open", post(open)).with_state(broker);
    let serving = axum::serve(TcpListener::bind(listen).await?, asked);
    serving.with_graceful_shutdown(async { drop(tokio::signal::ctrl_c().await) }).await?;
    // Nobody would close what stays open, so everything is closed.
    follower.leave().await;
    Ok(())
}

async fn log_in(State(broker): State<Arc<Broker>>, Form(login): Form<Login>) -> &'static str {
    match broker.follower.hold(&login.password, Some(ANYWHERE)) {
        // Under this name the client's connections are found.
        Ok(hold) if hold.token().claims().client.to_string() == login.username => {
            tokio::spawn(close_at_the_end(broker, hold, login.username));
            "allow"
        }
        _ => "deny",
    }
}

async fn open(State(broker): State<Arc<Broker>>, Form(asked): Form<Opening>) -> Json<serde_json::Value> {
    let Ok(hold) = broker.follower.hold(&asked.token, asked.client_ip) else {
        return Json(json!({ "active": false }));
    };
    let token = hold.token().clone();
    tokio::spawn(close_at_the_end(broker, hold, asked.connection));
    let (client, exp) = (token.claims().client.to_string(), token.claims().expires_at);
    Json(json!({ "active": true, "sub": client, "scope": token.scopes().as_str(), "exp": exp }))
}

async fn close_at_the_end(broker: Arc<Broker>, mut hold: Hold, connection: String) {
    let opened = Instant::now();
    hold.ended().await;
    broker.close(&connection).await;
    // From now on a logout need not wait.
    drop(hold);
    if opened.elapsed() < HANDSHAKE {
        sleep_until(opened + HANDSHAKE).await;
        broker.close(&connection).await;
    }
}

impl Broker {
    /// Closes the connections of this name, however often that has to be tried.
    #[expect(clippy::print_stderr, reason = "an example has no log")]
    async fn close(&self, connection: &str) {
        while let Err(error) =
            timeout(PATIENCE, self.ask_to_close(connection)).await.unwrap_or_else(|late| Err(late.into()))
        {
            eprintln!("{connection} is not closed yet: {error}");
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn ask_to_close(&self, connection: &str) -> Result<(), Error> {
        let authority = self.close.authority().ok_or("the URL has no host")?.as_str();
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let request = Request::delete(format!("{}/{connection}", self.close.path()))
            .header(HOST, host)
            .header(AUTHORIZATION, format!("Basic {}", BASE64.encode(user.as_bytes())))
            .header("x-reason", "the token is not valid any more")
            .body(Empty::<&[u8]>::new())?;
        let stream = TcpStream::connect(host).await?;
        let (mut requests, answers) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(answers);
        match requests.send_request(request).await?.status() {
            status if status.is_success() || status == http::StatusCode::NOT_FOUND => Ok(()),
            status => Err(format!("the broker answered {status}").into()),
        }
    }
}
