//! Asks one node, as clients, proxies and operators do, and writes down what it says.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, bail};
use data_encoding::BASE64URL_NOPAD;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::recorder::Recorder;
use crate::history::{Action, Pair, Verdict};

/// When a caller gives up: far later than any node may be paused, so that it answers late what it was
/// asked before.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Somebody who asks a node.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) node: Arc<Door>,
    recorder: Arc<Recorder>,
    http: reqwest::Client,
}

/// Where a node is to be found.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: String,
    /// Where it listens, or has listened.
    pub(super) url: RwLock<String>,
    /// The program, as an operator runs it beside this node.
    pub(super) command_line: CommandLine,
}

/// `rescind` with a node's data folder and settings.
#[derive(Debug, Clone)]
pub(super) struct CommandLine {
    pub(super) program: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) settings: Vec<(String, String)>,
}

/// Who logs in.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Credential {
    #[serde(rename = "client_id")]
    pub(super) client: u64,
    api_key: String,
    api_secret: String,
}

/// What a login or refresh gave.
#[derive(Debug)]
pub(super) struct Tokens {
    pub(super) client: u64,
    pub(super) name: String,
    pub(super) generation: u64,
    pub(super) access: String,
    refresh: String,
}

/// What a token's payload says.
#[derive(Deserialize)]
struct Claims {
    sid: String,
    pair: u64,
    #[serde(rename = "gen")]
    generation: u64,
}

impl Caller {
    pub(super) fn new(node: &Arc<Door>, recorder: &Arc<Recorder>) -> anyhow::Result<Caller> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Caller { node: Arc::clone(node), recorder: Arc::clone(recorder), http })
    }

    /// Trades a client's key and secret for tokens.
    pub(super) async fn login(&self, credential: &Credential) -> Verdict<Arc<Tokens>> {
        let body = json!({ "username": credential.api_key, "password": credential.api_secret });
        let begun = self.recorder.begin();
        let verdict = self.granted(credential.client, self.post("/auth/login").json(&body)).await;
        let client = credential.client.to_string();
        begun.end(&client, &self.node.name, Action::Login { verdict: verdict.as_ref().map(pair) });
        verdict
    }

    /// Trades a refresh token for the next pair.
    pub(super) async fn refresh(&self, tokens: &Tokens) -> Verdict<Arc<Tokens>> {
        let body = json!({ "refresh_token": tokens.refresh });
        let begun = self.recorder.begin();
        let verdict = self.granted(tokens.client, self.post("/auth/refresh").json(&body)).await;
        let action = Action::Refresh { token: tokens.name.clone(), verdict: verdict.as_ref().map(pair) };
        begun.end(&tokens.client.to_string(), &self.node.name, action);
        verdict
    }

    /// Asks whether an access token stands.
    pub(super) async fn verify(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = answer(self.get("/verify").bearer_auth(&tokens.access)).await.map(|_| ());
        let action = Action::Verify { token: tokens.name.clone(), verdict };
        begun.end(&tokens.client.to_string(), &self.node.name, action);
        verdict
    }

    /// Takes back every token of the client.
    pub(super) async fn logout(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = answer(self.post("/auth/logout").bearer_auth(&tokens.access)).await.map(|_| ());
        let action = Action::Logout { token: Some(tokens.name.clone()), verdict };
        begun.end(&tokens.client.to_string(), &self.node.name, action);
        verdict
    }

    /// The same, as an operator.
    pub(super) async fn logout_by_operator(&self, client: u64) -> Verdict {
        self.take_back(client, &["client", "logout"]).await
    }

    /// The same for good: the client is deleted.
    pub(super) async fn delete(&self, client: u64) -> Verdict {
        self.take_back(client, &["--yes", "client", "delete"]).await
    }

    async fn take_back(&self, client: u64, command: &[&str]) -> Verdict {
        let begun = self.recorder.begin();
        let id = client.to_string();
        let verdict = match self.node.command_line.json(&[command, &[&id]].concat()).await {
            Ok(_) => Verdict::Accepted(()),
            // A command says no more than that it failed.
            Err(_) => Verdict::Unknown,
        };
        begun.end(&id, &self.node.name, Action::Logout { token: None, verdict });
        verdict
    }

    async fn granted(&self, client: u64, request: RequestBuilder) -> Verdict<Arc<Tokens>> {
        match answer(request).await.map(|body| Tokens::read(client, &body)) {
            Verdict::Accepted(Some(tokens)) => Verdict::Accepted(Arc::new(tokens)),
            Verdict::Refused => Verdict::Refused,
            Verdict::Accepted(None) | Verdict::Unknown => Verdict::Unknown,
        }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(self.node.url(path))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.node.url(path))
    }
}

fn pair(tokens: &Arc<Tokens>) -> Pair {
    Pair { token: tokens.name.clone(), generation: Some(tokens.generation) }
}

/// 200 and 401 are verdicts, and nothing else is.
async fn answer(request: RequestBuilder) -> Verdict<Value> {
    let Ok(response) = request.timeout(TIMEOUT).send().await else { return Verdict::Unknown };
    let status = response.status();
    let Ok(body) = response.text().await else { return Verdict::Unknown };
    match status {
        StatusCode::OK => Verdict::Accepted(serde_json::from_str(&body).unwrap_or_default()),
        StatusCode::UNAUTHORIZED => Verdict::Refused,
        _ => Verdict::Unknown,
    }
}

impl Tokens {
    fn read(client: u64, body: &Value) -> Option<Tokens> {
        let text = |name: &str| Some(body["data"][name].as_str()?.to_owned());
        let (access, refresh) = (text("access_token")?, text("refresh_token")?);
        let payload = BASE64URL_NOPAD.decode(access.split('.').nth(1)?.as_bytes()).ok()?;
        let Claims { sid, pair, generation } = serde_json::from_slice(&payload).ok()?;
        Some(Tokens { client, name: format!("{sid}/{pair}"), generation, access, refresh })
    }
}

impl Door {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommandLine {
    /// Runs a command of the program, and gives what it prints.
    pub(super) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command();
        command.arg("--json").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        // It gives up before TIMEOUT by itself, or is killed by whoever kills what it asks.
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}"))
    }

    /// The program with its settings, in an environment of its own.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).arg("--data-dir").arg(&self.data_dir);
        command
    }
}

impl Credential {
    /// A new client's.
    pub(super) async fn create(beside: &CommandLine, name: &str) -> anyhow::Result<Credential> {
        let created = beside.json(&["client", "create", "--name", name]).await?;
        serde_json::from_value(created).context("client create")
    }
}
