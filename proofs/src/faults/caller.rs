//! Sends requests to one node, as clients, proxies and operators do, and records the answers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use anyhow::{Context, bail};
use data_encoding::BASE64URL_NOPAD;
use reqwest::{RequestBuilder, StatusCode, header::CONTENT_TYPE};
use serde::Deserialize;
use serde_json::{Value, json};

use super::recorder::Recorder;
use crate::history::{Action, Pair, Verdict};

/// A caller's time limit: much longer than any node is paused, so that late answers are recorded.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A caller of one node.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) node: Arc<Door>,
    recorder: Arc<Recorder>,
    http: reqwest::Client,
}

/// A node's addresses.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) name: String,
    /// The present or last URL.
    pub(super) url: RwLock<String>,
    /// The program, as an operator runs it on this node's machine.
    pub(super) command_line: CommandLine,
}

/// `rescind` with a node's data folder and settings.
#[derive(Debug, Clone)]
pub(super) struct CommandLine {
    pub(super) program: PathBuf,
    pub(super) data_dir: PathBuf,
    settings: Arc<RwLock<BTreeMap<String, String>>>,
}

/// A client's credential.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Credential {
    #[serde(rename = "client_id")]
    pub(super) client: u64,
    api_key: String,
    api_secret: String,
}

/// The tokens of a login or refresh.
#[derive(Debug)]
pub(super) struct Tokens {
    /// The client's name in the history.
    pub(super) client: Arc<str>,
    pub(super) name: String,
    pub(super) session: u64,
    pub(super) generation: u64,
    pub(super) access: String,
    refresh: String,
}

/// One of the two tokens of a pair.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Access,
    Refresh,
}

/// The claims in a token's payload.
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

    /// Logs in with a client's key and secret.
    pub(super) async fn login(&self, credential: &Credential) -> Verdict<Arc<Tokens>> {
        let body = json!({ "username": credential.api_key, "password": credential.api_secret });
        let begun = self.recorder.begin();
        let client = credential.name();
        let verdict = self.granted(&client, self.post("/auth/login").json(&body)).await;
        begun.end(&client, &self.node.name, Action::Login { verdict: verdict.as_ref().map(pair) });
        verdict
    }

    /// Exchanges a refresh token for the next pair.
    pub(super) async fn refresh(&self, tokens: &Tokens) -> Verdict<Arc<Tokens>> {
        let body = json!({ "refresh_token": tokens.refresh });
        let begun = self.recorder.begin();
        let verdict = self.granted(&tokens.client, self.post("/auth/refresh").json(&body)).await;
        let action = Action::Refresh { token: tokens.name.clone(), verdict: verdict.as_ref().map(pair) };
        begun.end(&tokens.client, &self.node.name, action);
        verdict
    }

    /// Asks whether an access token is valid.
    pub(super) async fn verify(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = answer(self.get("/verify").bearer_auth(&tokens.access)).await.map(|_| ());
        let action = Action::Verify { token: tokens.name.clone(), verdict };
        begun.end(&tokens.client, &self.node.name, action);
        verdict
    }

    /// Revokes every token of the client.
    pub(super) async fn logout(&self, tokens: &Tokens) -> Verdict {
        let begun = self.recorder.begin();
        let verdict = answer(self.post("/auth/logout").bearer_auth(&tokens.access)).await.map(|_| ());
        let action = Action::Logout { token: Some(tokens.name.clone()), verdict };
        begun.end(&tokens.client, &self.node.name, action);
        verdict
    }

    /// Revokes one session by one of its tokens.
    pub(super) async fn revoke(&self, credential: &Credential, tokens: &Tokens, which: Which) -> Verdict {
        let token = match which {
            Which::Access => &tokens.access,
            Which::Refresh => &tokens.refresh,
        };
        let request =
            self.post("/oauth2/revoke").basic_auth(&credential.api_key, Some(&credential.api_secret));
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let begun = self.recorder.begin();
        let verdict = answer(request.body(format!("token={token}"))).await.map(|_| ());
        let action = Action::Revoke { token: tokens.name.clone(), verdict };
        begun.end(&tokens.client, &self.node.name, action);
        verdict
    }

    /// Revokes every token of the client, as an operator.
    pub(super) async fn logout_by_operator(&self, client: &Credential) -> Verdict {
        self.take_back(client, &["--yes", "client", "logout"]).await
    }

    /// Deletes the client, which revokes every token too.
    pub(super) async fn delete(&self, client: &Credential) -> Verdict {
        self.take_back(client, &["--yes", "client", "delete"]).await
    }

    async fn take_back(&self, client: &Credential, command: &[&str]) -> Verdict {
        let begun = self.recorder.begin();
        let id = client.client.to_string();
        let verdict = match self.node.command_line.json(&[command, &[&id]].concat()).await {
            Ok(_) => Verdict::Accepted(()),
            // A failed command does not show whether the change was made.
            Err(_) => Verdict::Unknown,
        };
        begun.end(&client.name(), &self.node.name, Action::Logout { token: None, verdict });
        verdict
    }

    async fn granted(&self, client: &Arc<str>, request: RequestBuilder) -> Verdict<Arc<Tokens>> {
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

/// Only 200 and 401 are verdicts.
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
    fn read(client: &Arc<str>, body: &Value) -> Option<Tokens> {
        let text = |name: &str| Some(body["data"][name].as_str()?.to_owned());
        let (access, refresh) = (text("access_token")?, text("refresh_token")?);
        let payload = BASE64URL_NOPAD.decode(access.split('.').nth(1)?.as_bytes()).ok()?;
        let Claims { sid, pair, generation } = serde_json::from_slice(&payload).ok()?;
        let name = format!("{client}/{sid}/{pair}");
        let session = sid.parse().ok()?;
        Some(Tokens { client: Arc::clone(client), name, session, generation, access, refresh })
    }
}

impl Door {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CommandLine {
    pub(super) fn new(program: &Path, data_dir: PathBuf) -> CommandLine {
        CommandLine { program: program.to_owned(), data_dir, settings: Arc::default() }
    }

    /// Sets a setting for the next start.
    pub(super) fn set(&self, name: &str, value: impl Into<String>) {
        self.settings.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.into());
    }

    /// Runs a command of the program, and returns its output.
    pub(super) async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let mut command = self.command();
        command.arg("--json").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        // The command ends before TIMEOUT by itself, or with the server that it asks.
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}"))
    }

    /// The program with its settings, in an environment of its own.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.settings.read().unwrap_or_else(PoisonError::into_inner).iter());
        command.stdin(Stdio::null()).arg("--data-dir").arg(&self.data_dir);
        command
    }
}

impl Credential {
    /// Creates a client.
    pub(super) async fn create(beside: &CommandLine, name: &str) -> anyhow::Result<Credential> {
        let created = beside.json(&["client", "create", "--name", name]).await?;
        serde_json::from_value(created).context("client create")
    }

    /// The client's name in the history. After a loss, the database may give its id to another client.
    fn name(&self) -> Arc<str> {
        let Credential { client, api_key, .. } = self;
        format!("{client}-{}", &api_key[api_key.len().saturating_sub(6)..]).into()
    }
}
