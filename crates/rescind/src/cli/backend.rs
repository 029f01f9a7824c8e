//! Carries out an admin command: over the socket of the running server, or, if none runs, by the same routes in this
//! process.

use std::{
    io::{self, Write},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use axum::body::Body;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode, client::conn::http1, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};

use super::output::prose;
use crate::{
    app::{App, OpenError, WENT_BACK},
    clock::Clock,
    cluster,
    config::{Config, Environment},
    files::data_folder::{self, FolderError},
    http::{self, Door},
    random::Random,
};

/// How long a command waits for the server: longer than any lease that a change may have to wait for.
const PATIENCE: Duration = Duration::from_secs(150);
/// After this time the command says that it waits.
const SOON: Duration = Duration::from_secs(3);

pub(super) enum Backend {
    Server(http1::SendRequest<Body>),
    Here(Door),
}

impl Backend {
    /// The running server, or else this process. With `make`, this process may make a missing data folder.
    pub(super) async fn open(
        config: &Config,
        environment: &Environment,
        make: bool,
    ) -> anyhow::Result<Backend> {
        if let Some(server) = Backend::running(&config.server.data_dir).await? {
            return Ok(server);
        }
        let app = open_here(config, environment, make).await?;
        cluster::confirm(&app.store).await?;
        Ok(Backend::Here(http::local(app)))
    }

    /// Like [`Backend::open`], but also if the database lacks changes that the data folder knows of.
    pub(super) async fn open_unconfirmed(
        config: &Config,
        environment: &Environment,
    ) -> anyhow::Result<Backend> {
        match Backend::running(&config.server.data_dir).await? {
            Some(server) => Ok(server),
            None => Ok(Backend::Here(http::local(open_here(config, environment, false).await?))),
        }
    }

    /// The server of this data folder, if one runs.
    pub(super) async fn running(data_dir: &Path) -> anyhow::Result<Option<Backend>> {
        let path = data_folder::socket(data_dir);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Some(Backend::Server(requests)))
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
        let mut body = self.ask(Method::GET, path, Body::empty()).await?;
        let mut written = 0;
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.context("the server does not answer")? {
            if let Ok(data) = frame?.into_data() {
                to.write_all(&data)?;
                written += data.len() as u64;
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
        let body = self.ask(method, path, body).await?;
        // The cause is not reported, because its text may contain a secret of the answer.
        let answer = serde_json::from_slice(&whole(body).await?);
        answer.map_err(|_| {
            anyhow!("the server's answer cannot be read: it is of another version than this command")
        })
    }

    /// Returns the body of a 200. Every other answer becomes an error with its message.
    async fn ask(&mut self, method: Method, path: &str, body: Body) -> anyhow::Result<Body> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "rescind")
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        let response = match self {
            Backend::Server(requests) => patiently(requests.send_request(request))
                .await?
                .context("the server went away")?
                .map(Body::new),
            Backend::Here(door) => door.answer(request, None, true).await,
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

/// Opens the data folder or the database in this process.
async fn open_here(config: &Config, environment: &Environment, make: bool) -> anyhow::Result<Arc<App>> {
    let data_dir = &config.server.data_dir;
    if !make && config.database.url.is_none() && !data_dir.join("rescind.db").exists() {
        bail!(
            "there is no data in {}: start `rescind serve` there, or name the folder with --data-dir",
            data_dir.display()
        );
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

/// Waits for the server, and tells the user if that takes long.
async fn patiently<T>(answer: impl Future<Output = T>) -> anyhow::Result<T> {
    let mut answer = pin!(answer);
    if let Ok(answer) = timeout(SOON, &mut answer).await {
        return Ok(answer);
    }
    prose(
        "waiting for the server; a change is answered when every node and verifier has it, or its lease has ended",
    );
    timeout(PATIENCE, answer)
        .await
        .context("the server does not answer; a change that was asked for may have been made")
}

async fn whole(body: Body) -> anyhow::Result<Bytes> {
    Ok(timeout(PATIENCE, body.collect()).await.context("the server does not answer")??.to_bytes())
}
