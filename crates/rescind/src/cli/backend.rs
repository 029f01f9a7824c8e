//! Who carries out an admin command: the running server, over its socket, or, where none runs, this
//! process, by the same routes.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use axum::{Router, body::Body};
use http_body_util::BodyExt;
use hyper::{Method, Request, StatusCode, client::conn::http1, header::CONTENT_TYPE};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, time::timeout};
use tower::ServiceExt;

use crate::{
    app::{App, OpenError},
    clock::Clock,
    config::{Config, Environment},
    data_folder::{self, FolderError},
    http,
    random::Random,
};

/// A server that has not answered by then has a fault.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) enum Backend {
    Server(http1::SendRequest<Body>),
    Here(Router),
}

impl Backend {
    /// The running server, or else this process. `make` lets it make a data folder that is not there.
    pub(super) async fn open(
        config: &Config,
        environment: &Environment,
        make: bool,
    ) -> anyhow::Result<Backend> {
        let data_dir = &config.server.data_dir;
        if let Some(server) = Backend::running(data_dir).await? {
            return Ok(server);
        }
        if !make && config.database.url.is_none() && !data_dir.join("rescind.db").exists() {
            bail!(
                "there is no data in {}: start `rescind serve` there, or name the folder with --data-dir",
                data_dir.display()
            );
        }
        let master_key = environment.master_key()?;
        match App::open(config, master_key.as_deref().map(String::as_str), Clock::System, Random::System)
            .await
        {
            Ok(app) => Ok(Backend::Here(http::local(app))),
            Err(OpenError::Folder(FolderError::InUse(path))) => bail!(
                "a rescind has {} and does not answer on its socket; if it is just starting or stopping, try again",
                path.display()
            ),
            Err(e) => Err(e.into()),
        }
    }

    /// The server of this data folder, if one runs.
    pub(super) async fn running(data_dir: &Path) -> anyhow::Result<Option<Backend>> {
        let path = data_folder::socket(data_dir);
        let stream = match UnixStream::connect(&path).await {
            Ok(stream) => stream,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
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

    async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Body,
    ) -> anyhow::Result<T> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "rescind")
            .header(CONTENT_TYPE, "application/json")
            .body(body)?;
        let (status, body) = match self {
            Backend::Server(requests) => {
                let answer = async {
                    let response = requests.send_request(request).await.context("the server went away")?;
                    let status = response.status();
                    Ok::<_, anyhow::Error>((status, response.into_body().collect().await?.to_bytes()))
                };
                timeout(PATIENCE, answer).await.context("the server does not answer")??
            }
            Backend::Here(router) => {
                let response = router.clone().oneshot(request).await?;
                (response.status(), response.into_body().collect().await?.to_bytes())
            }
        };
        if status == StatusCode::OK {
            return Ok(serde_json::from_slice(&body)?);
        }
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = answer["error"]["message"].as_str();
        Err(message.map_or_else(|| anyhow!("the server answered {status}"), |message| anyhow!("{message}")))
    }
}
