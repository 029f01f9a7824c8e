//! Carries out an admin command: over the socket of the running server, or, if none runs, by the same routes in this
//! process.

use std::{
    io::{
        ErrorKind::{ConnectionRefused, NotADirectory, NotFound},
        Write,
    },
    path::{Path, PathBuf},
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
    /// `None`: for as long as the server answers other requests, because then it works on this one.
    most: Option<Duration>,
    reason: &'static str,
    /// What may be so if no answer comes.
    otherwise: &'static str,
}

/// A long list, a large audit log or a backup takes its time.
const READ: Patience = Patience { most: None, reason: "", otherwise: "" };
/// Longer than any lease that a change may have to wait for.
const CHANGE: Patience = Patience {
    most: Some(Duration::from_secs(150)),
    reason: "; a change is answered when every node and verifier has it, or its lease has ended",
    otherwise: "; a change that was asked for may have been made",
};
/// After this time the command says that it waits, and then each time that this has passed again.
const SOON: Duration = Duration::from_secs(3);
const THEN_EVERY: Duration = Duration::from_secs(10);
/// How long a server that works may take for an answer from its memory.
const AT_ONCE: Duration = Duration::from_secs(7);

pub(super) struct Backend {
    answers: Answers,
    /// The folder of the server that answers. `None`: this process does.
    server: Option<PathBuf>,
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
        Backend { answers: Answers::Here(http::local(app)), server: None, sudo_user: None }
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
        let server = Some(data_dir.to_owned());
        Ok(Some(Backend { answers: Answers::Server(requests), server, sudo_user: None }))
    }

    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, Body::empty(), READ).await
    }

    /// Asks a question that needs a body. Nothing is changed.
    pub(super) async fn inquire<T: DeserializeOwned>(
        &mut self,
        path: &str,
        question: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, Body::from(serde_json::to_vec(question)?), READ).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        self.call(Method::DELETE, path, Body::empty(), CHANGE).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        self.call(Method::POST, path, Body::from(serde_json::to_vec(body)?), CHANGE).await
    }

    /// Writes the answer to `to`, and returns its number of bytes.
    pub(super) async fn download(&mut self, path: &str, to: &mut impl Write) -> anyhow::Result<u64> {
        let mut body = self.ask(Method::GET, path, Body::empty(), READ).await?;
        let (mut written, mut told) = (0, Clock::System.elapsed());
        while let Some(frame) = patiently(&self.server, READ, body.frame()).await? {
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
        patience: Patience,
    ) -> anyhow::Result<T> {
        let body = self.ask(method, path, body, patience).await?;
        // The cause is not reported, because its text may contain a secret of the answer.
        let answer = serde_json::from_slice(&self.whole(body, patience).await?);
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
        let mut request = request(method, path, body)?;
        let sudo_user = self.sudo_user.as_deref().and_then(|name| name.parse().ok());
        request.headers_mut().extend(sudo_user.map(|name| (HeaderName::from_static(SUDO_USER), name)));
        let response = match &mut self.answers {
            Answers::Server(requests) => {
                // After an answer the connection takes a moment until it is ready again.
                requests.ready().await.context("the server went away")?;
                let answer = patiently(&self.server, patience, requests.send_request(request)).await?;
                answer.with_context(|| format!("the server went away{}", patience.otherwise))?.map(Body::new)
            }
            Answers::Here(routes) => {
                let user = Peer { uid: Some(getuid().as_raw()), ..Peer::LOCAL };
                patiently(&self.server, patience, routes.serve(request, &user)).await?
            }
        };
        let (status, body) = (response.status(), response.into_body());
        if status == StatusCode::OK {
            return Ok(body);
        }
        let body = self.whole(body, patience).await?;
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let message = answer["error"]["message"].as_str();
        Err(message.map_or_else(|| anyhow!("the server answered {status}"), |message| anyhow!("{message}")))
    }

    async fn whole(&self, body: Body, patience: Patience) -> anyhow::Result<Bytes> {
        Ok(patiently(&self.server, patience, body.collect()).await??.to_bytes())
    }
}

/// Encodes a text as one segment of a path, or as a value in a query (RFC 3986 §2.1).
pub(super) fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn request(method: Method, path: &str, body: Body) -> anyhow::Result<Request<Body>> {
    let request = Request::builder().method(method).uri(format!("/admin/v1{path}"));
    Ok(request.header("host", "rescind").header(CONTENT_TYPE, "application/json").body(body)?)
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
async fn patiently<T>(
    server: &Option<PathBuf>,
    patience: Patience,
    answer: impl Future<Output = T>,
) -> anyhow::Result<T> {
    let mut answer = pin!(answer);
    let (began, mut pause) = (Clock::System.elapsed(), SOON);
    loop {
        if let Ok(answer) = timeout(pause, &mut answer).await {
            return Ok(answer);
        }
        let waited = Clock::System.elapsed().saturating_sub(began);
        match pause {
            SOON => prose(&format!("waiting for the server{}", patience.reason)),
            _ => prose(&format!("still waiting, for {} s now", waited.as_secs())),
        }
        let goes_on = async {
            match patience.most {
                Some(most) => waited < most,
                None => works(server).await,
            }
        };
        tokio::select! {
            answer = &mut answer => return Ok(answer),
            goes_on = goes_on => if !goes_on {
                bail!("the server does not answer{}", patience.otherwise);
            }
        }
        pause = THEN_EVERY;
    }
}

/// Whether the server answers another request. This process does work.
async fn works(server: &Option<PathBuf>) -> bool {
    let Some(data_dir) = server else { return true };
    let answered = async {
        let Some(Backend { answers: Answers::Server(mut requests), .. }) = Backend::running(data_dir).await?
        else {
            bail!("nobody is there");
        };
        anyhow::Ok(requests.send_request(request(Method::GET, "/status", Body::empty())?).await?)
    };
    matches!(timeout(AT_ONCE, answered).await, Ok(Ok(_)))
}
