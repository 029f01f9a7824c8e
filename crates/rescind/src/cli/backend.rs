//! Carries out an admin command: over the socket of the running server, or, if none runs, by the same routes in this
//! process.

use std::{
    io::{
        ErrorKind::{ConnectionRefused, NotADirectory, NotFound},
        Write,
    },
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{CONTENT_TYPE, HeaderName},
};
use hyper_util::rt::TokioIo;
use rescind_base::{
    clock::Clock,
    files::{
        circumstances::circumstances,
        data_folder::{self, FolderError},
        replacement::has_store,
    },
    random::Random,
};
use rescind_node::{
    app::{App, OpenError, WENT_BACK},
    cluster,
    config::{Config, Environment},
};
use rustix::process::getuid;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::output::prose;
use crate::http::{self, Routes, SUDO_USER, client_ip::Peer};

/// How long a command waits for an answer, and what it says of the wait.
#[derive(Clone, Copy)]
struct Patience {
    most: Duration,
    reason: &'static str,
}

/// Longer than any lease that a change may have to wait for.
const PATIENCE: Patience = Patience {
    most: Duration::from_secs(150),
    reason: "a change is answered when every node and verifier has it, or its lease has ended",
};
/// The copy is made before the first byte is sent.
const PATIENCE_WITH_COPIES: Patience =
    Patience { most: Duration::from_secs(6 * 3600), reason: "a backup is sent when its copy is made" };
/// After this time the command says that it waits, and then each time that this has passed again.
const SOON: Duration = Duration::from_secs(3);
const THEN_EVERY: Duration = Duration::from_secs(10);

pub(super) struct Backend {
    answers: Answers,
    /// The user who has become this one by sudo.
    sudo_user: Option<String>,
}

/// Who carries commands out.
enum Answers {
    Server(http1::SendRequest<Body>),
    Here(Routes),
}

impl Backend {
    /// The running server, or else this process. With `make`, this process may make a missing data folder.
    pub(super) async fn open(
        config: &Config,
        environment: &Environment,
        make: bool,
    ) -> anyhow::Result<Backend> {
        if let Some(server) = Backend::running(&config.server.data_dir).await? {
            return Ok(server.asked_by(environment));
        }
        let app = open_here(config, environment, make).await?;
        cluster::confirm(&app.store).await?;
        Ok(Backend::here(app).asked_by(environment))
    }

    /// Like [`Backend::open`], but also if the database lacks changes that the data folder knows of.
    pub(super) async fn open_unconfirmed(
        config: &Config,
        environment: &Environment,
    ) -> anyhow::Result<Backend> {
        match Backend::running(&config.server.data_dir).await? {
            Some(server) => Ok(server.asked_by(environment)),
            None => Ok(Backend::here(open_here(config, environment, false).await?).asked_by(environment)),
        }
    }

    fn here(app: Arc<App>) -> Backend {
        Backend { answers: Answers::Here(http::local(app)), sudo_user: None }
    }

    fn asked_by(self, environment: &Environment) -> Backend {
        Backend { sudo_user: environment.sudo_user().map(str::to_owned), ..self }
    }

    /// The server of this data folder, if one runs.
    pub(super) async fn running(data_dir: &Path) -> anyhow::Result<Option<Backend>> {
        let path = data_folder::socket(data_dir);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(e) if [NotFound, ConnectionRefused, NotADirectory].contains(&e.kind()) => return Ok(None),
            Err(e) => bail!("{}: {e}{}", path.display(), circumstances(&path, &e)),
        };
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Some(Backend { answers: Answers::Server(requests), sudo_user: None }))
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, Body::empty()).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        self.call(Method::DELETE, path, Body::empty()).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, Body::from(serde_json::to_vec(body)?)).await
    }

    /// Writes the answer to `to`, and returns its number of bytes.
    pub(super) async fn download(&mut self, path: &str, to: &mut impl Write) -> anyhow::Result<u64> {
        let mut body = self.ask(Method::GET, path, Body::empty(), PATIENCE_WITH_COPIES).await?;
        let (mut written, mut told) = (0, Clock::System.elapsed());
        while let Some(frame) =
            patiently(body.frame(), Patience { most: PATIENCE.most, ..PATIENCE_WITH_COPIES }).await?
        {
            if let Ok(data) = frame?.into_data() {
                to.write_all(&data)?;
                written += data.len() as u64;
            }
            if Clock::System.elapsed() >= told + THEN_EVERY {
                told = Clock::System.elapsed();
                prose(&format!("{written} bytes so far"));
            }
        }
        Ok(written)
    }

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> anyhow::Result<T> {
        let body = self.ask(method, path, body, PATIENCE).await?;
        // The cause is not reported, because its text may contain a secret of the answer.
        let answer = serde_json::from_slice(&whole(body).await?);
        answer.map_err(|_| {
            anyhow!("the server's answer cannot be read: it is of another version than this command")
        })
    }

    /// Requests a path of the admin API. Returns the body of a 200; every other answer becomes an error with its
    /// message.
    async fn ask(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
        patience: Patience,
    ) -> anyhow::Result<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/admin/v1{path}"))
            .header("host", "rescind")
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        let sudo_user = self.sudo_user.as_deref().and_then(|name| name.parse().ok());
        request.headers_mut().extend(sudo_user.map(|name| (HeaderName::from_static(SUDO_USER), name)));
        let response = match &mut self.answers {
            Answers::Server(requests) => {
                // After an answer the connection takes a moment until it is ready again.
                requests.ready().await.context("the server went away")?;
                patiently(requests.send_request(request), patience)
                    .await?
                    .context("the server went away; a change that was asked for may have been made")?
                    .map(Body::new)
            }
            Answers::Here(routes) => {
                let user = Peer { uid: Some(getuid().as_raw()), ..Peer::LOCAL };
                patiently(routes.serve(request, &user), patience).await?
            }
        };
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK {
            return Ok(body);
        }
        let answer: serde_json::Value = serde_json::from_slice(&whole(body).await?).unwrap_or_default();
        let message = answer["error"]["message"].as_str();
        Err(message.map_or_else(|| anyhow!("the server answered {status}"), |message| anyhow!("{message}")))
    }
}

/// Refuses a data folder without a store, which a command would otherwise make in a folder that is not meant.
pub(super) fn require_data(data_dir: &Path) -> anyhow::Result<()> {
    if has_store(data_dir).map_err(|e| FolderError::Io(data_dir.to_owned(), e))? {
        return Ok(());
    }
    bail!(
        "there is no data in {}: start `rescind serve` there, or name the folder with --data-dir",
        data_dir.display()
    );
}

/// Opens the data folder or the database in this process.
async fn open_here(config: &Config, environment: &Environment, make: bool) -> anyhow::Result<Arc<App>> {
    if !make && config.database.url.is_none() {
        require_data(&config.server.data_dir)?;
    }
    let master_key = environment.master_key()?;
    match App::open(config, master_key.as_deref().map(String::as_str), Clock::System, Random::System).await {
        Ok(app) => {
            if let Some(found) = app.went_back {
                prose(&format!("warning: {found}: {WENT_BACK}."));
            }
            Ok(app)
        }
        Err(OpenError::Folder(FolderError::InUse(path))) => bail!(
            "a rescind has {} and does not answer on its socket; if it is just starting or stopping, try again",
            path.display()
        ),
        Err(e) => Err(e.into()),
    }
}

/// Waits, and tells the user if that takes long.
async fn patiently<T>(answer: impl Future<Output = T>, patience: Patience) -> anyhow::Result<T> {
    let mut answer = pin!(answer);
    let (began, mut pause) = (Clock::System.elapsed(), SOON);
    loop {
        if let Ok(answer) = timeout(pause, &mut answer).await {
            return Ok(answer);
        }
        let waited = Clock::System.elapsed().saturating_sub(began);
        if waited >= patience.most {
            bail!("the server does not answer; a change that was asked for may have been made");
        }
        match pause {
            SOON => prose(&format!("waiting for the server; {}", patience.reason)),
            _ => prose(&format!("still waiting, for {} s now", waited.as_secs())),
        }
        pause = THEN_EVERY;
    }
}

async fn whole(body: Body) -> anyhow::Result<Bytes> {
    Ok(patiently(body.collect(), PATIENCE).await??.to_bytes())
}
