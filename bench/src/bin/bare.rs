//! A server of nothing but hyper, which answers every request 200 with the headers that it was given: the least that
//! an HTTP answer costs. With `--secret` it does the least of a verification too: one HMAC over the token, and one
//! look-up in a map.

use std::{
    collections::HashMap,
    convert::Infallible,
    io::{Write, stdout},
    net::SocketAddr,
    sync::Arc,
};

use anyhow::Context;
use clap::Parser;
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use sha2::Sha256;
use tokio::net::TcpListener;

/// As many clients as the map has, so that it is larger than one cache line.
const CLIENTS: u64 = 1000;

/// Answers every request 200
#[derive(Parser)]
#[command(name = "bare")]
struct Cli {
    /// The address to listen on
    listen: SocketAddr,
    /// A header of the answer; may be given more than once
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// The key of the tokens (HS256), whose signature is then checked
    #[arg(long)]
    secret: Option<String>,
}

struct Answers {
    headers: HeaderMap,
    verifier: Option<Verifier>,
}

struct Verifier {
    mac: Hmac<Sha256>,
    clients: HashMap<u64, bool>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let answers = Arc::new(Answers::new(&cli)?);
    let listener = TcpListener::bind(cli.listen).await?;
    writeln!(stdout(), "listening on {}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answer = answers.answer(&request);
                async { Ok::<_, Infallible>(answer) }
            });
            // A caller who goes away is no failure of this program.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Answers {
    fn new(cli: &Cli) -> anyhow::Result<Answers> {
        let mut headers = HeaderMap::new();
        for header in &cli.headers {
            let (name, value) = header.split_once(':').with_context(|| format!("no colon in {header:?}"))?;
            headers.append(name.parse::<HeaderName>()?, HeaderValue::from_str(value.trim())?);
        }
        let verifier = cli.secret.as_ref().map(|secret| Verifier::new(secret)).transpose()?;
        Ok(Answers { headers, verifier })
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        if self.verifier.as_ref().is_none_or(|verifier| verifier.accepts(request.headers()).is_some()) {
            *response.headers_mut() = self.headers.clone();
        } else {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    }
}

impl Verifier {
    fn new(secret: &str) -> anyhow::Result<Verifier> {
        let mac = Hmac::new_from_slice(secret.as_bytes())?;
        Ok(Verifier { mac, clients: (0..CLIENTS).map(|client| (client, true)).collect() })
    }

    /// No claim is read: the client's number stands for it.
    fn accepts(&self, headers: &HeaderMap) -> Option<()> {
        let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?;
        let (signed, signature) = token.rsplit_once('.')?;
        let mut expected = [0; 32];
        let length = BASE64URL_NOPAD.decode_len(signature.len()).ok()?;
        BASE64URL_NOPAD.decode_mut(signature.as_bytes(), expected.get_mut(..length)?).ok()?;
        let mut mac = self.mac.clone();
        mac.update(signed.as_bytes());
        mac.verify_slice(&expected).ok()?;
        let client = u64::from(*expected.first()?) % CLIENTS;
        self.clients.get(&client)?.then_some(())
    }
}
