//! A server of Rescind, and its callers.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha1::Sha1;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Server {
    process: Child,
    log: Lines<BufReader<ChildStderr>>,
    output: Lines<BufReader<ChildStdout>>,
    _folder: tempfile::TempDir,
    /// Where clients log in.
    pub(crate) url: String,
    /// Where the dashboard is.
    pub(crate) management: String,
    http: reqwest::Client,
}

impl Server {
    pub(crate) async fn start(binary: &Path) -> Result<Server> {
        let folder = tempfile::tempdir()?;
        let mut process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder.path().join("data"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let log = BufReader::new(process.stderr.take().context("its log")?).lines();
        let output = BufReader::new(process.stdout.take().context("its output")?).lines();
        let http = reqwest::Client::builder().no_proxy().build()?;
        let (url, management) = (String::new(), String::new());
        let mut server = Server { process, log, output, _folder: folder, url, management, http };
        let serving = server.logged("serving").await?;
        let at = |name: &str| {
            serving[name].as_str().map(|address| format!("http://{address}")).context("an address")
        };
        (server.url, server.management) = (at("listen")?, at("management")?);
        Ok(server)
    }

    /// Waits for a line of the log, by its message.
    pub(crate) async fn logged(&mut self, message: &str) -> Result<Value> {
        let found = async {
            loop {
                let line = self.log.next_line().await?.context("the server ended")?;
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                if line["message"].as_str().is_some_and(|text| text.starts_with(message)) {
                    return Ok(line);
                }
            }
        };
        timeout(PATIENCE, found).await.with_context(|| format!("{message:?}: not in the log"))?
    }

    /// Stops it as an operator does.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.process.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?));
        rustix::process::kill_process(id.context("its process")?, rustix::process::Signal::TERM)?;
        let ended = timeout(PATIENCE, self.process.wait()).await??;
        ensure!(ended.success(), "the server ended with {ended}");
        Ok(())
    }

    /// The link by which the first administrator enrols.
    pub(crate) async fn first_link(&mut self) -> Result<String> {
        let found = async {
            loop {
                let line = self.output.next_line().await?.context("the server ended")?;
                if line.contains("/dashboard/enrol/") {
                    return Ok(line.trim().to_owned());
                }
            }
        };
        timeout(PATIENCE, found).await.context("no link on the standard output")?
    }

    /// Logs in, and returns the status and the access token.
    pub(crate) async fn login(&self, key: &str, secret: &str) -> Result<(u16, String)> {
        let body = json!({ "username": key, "password": secret });
        let answer = self.http.post(format!("{}/auth/login", self.url)).json(&body).send().await?;
        let (status, body): (_, Value) = (answer.status().as_u16(), answer.json().await?);
        Ok((status, body["data"]["access_token"].as_str().unwrap_or_default().to_owned()))
    }

    /// Asks whether a token is good: the status, and the request's id.
    pub(crate) async fn verify(&self, token: &str) -> Result<(u16, String)> {
        let answer = self.http.get(format!("{}/verify", self.url)).bearer_auth(token).send().await?;
        let id = answer.headers().get("x-request-id").and_then(|id| id.to_str().ok());
        Ok((answer.status().as_u16(), id.context("a request id")?.to_owned()))
    }
}

/// The code that an authenticator shows at a time, in seconds (RFC 6238).
pub(crate) fn code(secret: &str, at: u64) -> Result<String> {
    let secret: String = secret.split_whitespace().collect();
    let secret = BASE32_NOPAD.decode(secret.as_bytes())?;
    let mac = Hmac::<Sha1>::new_from_slice(&secret)?;
    let hash = mac.chain_update((at / 30).to_be_bytes()).finalize().into_bytes();
    let start = usize::from(hash[19] & 15);
    let number = u32::from_be_bytes([hash[start] & 0x7f, hash[start + 1], hash[start + 2], hash[start + 3]]);
    Ok(format!("{:06}", number % 1_000_000))
}
