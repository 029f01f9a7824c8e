//! Callers whose next request depends on the last answer, or who keep to a rate: what wrk cannot do without a script
//! that costs more than the request. Prints one line of JSON.

#![expect(clippy::disallowed_methods, reason = "the time between two moments is all that is read here")]

use std::{
    cmp::Ordering,
    fs,
    io::{Write, stdout},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::sleep_until,
};

/// Calls a server over kept connections, for some seconds
#[derive(Parser)]
#[command(name = "load")]
struct Cli {
    address: SocketAddr,
    work: Work,
    /// A JSON array of what `rescind client create` printed; the connections take them in turn
    credentials: PathBuf,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Steps per second, of all connections together; each is then timed from when it was due [default: as many as the
    /// server answers]
    #[arg(long)]
    rate: Option<f64>,
    #[arg(long, default_value = "/oauth2/token")]
    token_path: String,
    #[arg(long, default_value = "/oauth2/revoke")]
    revoke_path: String,
}

/// One step of a caller
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Work {
    /// POST /auth/login
    Login,
    /// POST /auth/refresh with the token of the step before
    Refresh,
    /// POST /auth/login, then /auth/logout, which is what is timed. Each connection needs a client of its own
    Logout,
    /// A token by client credentials, then its revocation, which is what is timed
    Revoke,
}

#[derive(Clone, Deserialize)]
struct Credential {
    api_key: String,
    api_secret: String,
}

struct Caller {
    stream: TcpStream,
    received: Vec<u8>,
    credential: Credential,
    refresh_token: String,
}

// One thread: the server has the others.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let cli = Arc::new(Cli::parse());
    let credentials: Vec<Credential> = serde_json::from_slice(&fs::read(&cli.credentials)?)?;
    let mut callers = vec![];
    for credential in credentials.iter().cycle().take(cli.connections) {
        callers.push(Caller::connect(&cli, credential).await?);
    }
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (number, caller) in callers.into_iter().enumerate() {
        running.spawn(caller.work(Arc::clone(&cli), began, number));
    }
    let mut times = vec![];
    while let Some(ended) = running.join_next().await {
        times.extend(ended??);
    }
    let seconds = began.elapsed().as_secs_f64();
    times.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    let percentile = |part: f64| times.get((times.len() as f64 * part) as usize).copied();
    let answer = json!({
        "requests": times.len(),
        "requests_per_second": times.len() as f64 / seconds,
        "p50_ms": percentile(0.50),
        "p99_ms": percentile(0.99),
        "longest_ms": times.last(),
    });
    writeln!(stdout(), "{answer}")?;
    Ok(())
}

impl Caller {
    /// With what the first step needs.
    async fn connect(cli: &Cli, credential: &Credential) -> anyhow::Result<Caller> {
        let stream = TcpStream::connect(cli.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let mut caller =
            Caller { stream, received: vec![], credential: credential.clone(), refresh_token: String::new() };
        if cli.work == Work::Refresh {
            let data = caller.log_in().await?;
            caller.refresh_token = text(&data, "refresh_token")?;
        }
        Ok(caller)
    }

    /// The times of the steps, in milliseconds.
    async fn work(mut self, cli: Arc<Cli>, began: Instant, number: usize) -> anyhow::Result<Vec<f64>> {
        let end = began + Duration::from_secs_f64(cli.seconds);
        let pause = cli.rate.map(|rate| Duration::from_secs_f64(cli.connections as f64 / rate));
        // The connections begin one after the other, so that a rate is even.
        let mut due = began + pause.unwrap_or_default().mul_f64(number as f64 / cli.connections as f64);
        let mut times = vec![];
        loop {
            if pause.is_some() {
                sleep_until(due.into()).await;
            }
            if Instant::now() >= end {
                return Ok(times);
            }
            let mut took = self.step(&cli).await?;
            // While the server stalls, steps become due that a waiting caller would not take: their time counts too.
            if let Some(pause) = pause {
                took = due.elapsed();
                due += pause;
            }
            times.push(took.as_secs_f64() * 1e3);
        }
    }

    async fn step(&mut self, cli: &Cli) -> anyhow::Result<Duration> {
        match cli.work {
            Work::Login => {
                let began = Instant::now();
                self.log_in().await?;
                Ok(began.elapsed())
            }
            Work::Refresh => {
                let body = json!({"refresh_token": self.refresh_token}).to_string();
                let began = Instant::now();
                let answer = self.post("/auth/refresh", "Content-Type: application/json", &body).await?;
                let took = began.elapsed();
                self.refresh_token = text(&answer["data"], "refresh_token")?;
                Ok(took)
            }
            Work::Logout => {
                let token = text(&self.log_in().await?, "access_token")?;
                let began = Instant::now();
                self.post("/auth/logout", &format!("Authorization: Bearer {token}"), "").await?;
                Ok(began.elapsed())
            }
            Work::Revoke => {
                let Credential { api_key, api_secret } = &self.credential;
                let basic = BASE64.encode(format!("{api_key}:{api_secret}").as_bytes());
                let headers = format!(
                    "Authorization: Basic {basic}\r\nContent-Type: application/x-www-form-urlencoded"
                );
                let answer = self.post(&cli.token_path, &headers, "grant_type=client_credentials").await?;
                let token = text(&answer, "access_token")?;
                let began = Instant::now();
                self.post(&cli.revoke_path, &headers, &format!("token={token}")).await?;
                Ok(began.elapsed())
            }
        }
    }

    async fn log_in(&mut self) -> anyhow::Result<Value> {
        let Credential { api_key, api_secret } = &self.credential;
        let body = json!({"username": api_key, "password": api_secret}).to_string();
        let mut answer = self.post("/auth/login", "Content-Type: application/json", &body).await?;
        Ok(answer["data"].take())
    }

    /// The JSON of a 200; any other answer is an error.
    async fn post(&mut self, path: &str, headers: &str, body: &str) -> anyhow::Result<Value> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: bench\r\n{headers}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.received.clear();
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                bail!("{path}: the server closed the connection");
            }
            if let Some(body) = whole(&self.received)? {
                return Ok(body);
            }
        }
    }
}

/// The body, once all of it is there. Only answers with a length are understood, and empty ones.
fn whole(received: &[u8]) -> anyhow::Result<Option<Value>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = (str::from_utf8(&received[..end])?, &received[end + 4..]);
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    if body.len() < length.transpose()?.context("an answer without a length")? {
        return Ok(None);
    }
    if !head.starts_with("HTTP/1.1 200") {
        bail!("{} {}", head.lines().next().unwrap_or_default(), String::from_utf8_lossy(body));
    }
    Ok(Some(if body.is_empty() { Value::Null } else { serde_json::from_slice(body)? }))
}

fn text(answer: &Value, name: &str) -> anyhow::Result<String> {
    Ok(answer[name].as_str().with_context(|| format!("no {name} in {answer}"))?.to_owned())
}
