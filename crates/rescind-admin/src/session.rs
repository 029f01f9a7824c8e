//! The sessions of clients.

use std::sync::Arc;

use rescind_base::{
    clock::rfc3339,
    model::{Client, ClientId, Phase, Session, SessionId, UnixSeconds, changes},
};
use rescind_node::{
    app::{App, may_see},
    cluster::Receipt,
};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{Error, find};

const DEFAULT_SESSIONS: usize = 100;
/// How many sessions of all clients are looked at in one read.
const SESSIONS_READ: u64 = 20_000;

/// Which sessions are wanted.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionQuery {
    pub limit: Option<usize>,
}

/// The live sessions of a client, the newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionsView {
    pub client_id: ClientId,
    /// How many there are, those that are not shown included.
    pub live: usize,
    pub sessions: Vec<SessionView>,
}

/// A session, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    pub session_id: SessionId,
    pub client_id: ClientId,
    pub api_key: Option<String>,
    /// `live`; `cannot-refresh` if only its access tokens are valid; `ended`.
    pub status: String,
    pub started_at: String,
    /// When the newest tokens were issued.
    pub issued_at: String,
    pub access_expires_at: String,
    pub refresh_expires_at: Option<String>,
    /// The receipt of the revocation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
}

/// Returns the sessions of a client of which a token may be valid.
///
/// # Errors
///
/// If there is no such client, or the store is unavailable.
pub async fn sessions(app: &App, id: ClientId, wanted: SessionQuery) -> Result<SessionsView, Error> {
    let (client, now) = (find(app, id).await?, app.clock.now());
    let limit = wanted.limit.unwrap_or(DEFAULT_SESSIONS);
    let mut found = SessionsView { client_id: id, live: 0, sessions: vec![] };
    let mut before = Some(SessionId::MAX >> 1);
    while let Some(end) = before {
        let part = app.store.sessions_of(id, end, SESSIONS_READ).await?;
        for session in part.sessions.iter().filter(|session| is_live(&client, session, now)) {
            found.live += 1;
            if found.sessions.len() < limit {
                found.sessions.push(view(&client, session));
            }
        }
        before = part.next;
    }
    Ok(found)
}

/// Revokes a session, with all its tokens.
///
/// # Errors
///
/// If there is no such session, or the change or its propagation fails.
pub async fn revoke_session(app: &Arc<App>, id: SessionId) -> Result<SessionView, Error> {
    // The stores' ids are at most `i64::MAX`.
    if i64::try_from(id).is_err() {
        return Err(Error::NotFound("session"));
    }
    let client = app.store.client_of_session(id).await?.filter(|&client| may_see(client));
    let client = client.ok_or(Error::NotFound("session"))?;
    let origin = app.by_operator();
    let end = move |client: &Client, session: &mut Session| {
        let event = (session.phase != Phase::Ended).then(|| changes::of_revocation(client, session, &origin));
        session.phase = Phase::Ended;
        (view(client, session), event)
    };
    let change = async move |app: Arc<App>| {
        let changed = app.change_session(client, id, end).await?;
        Ok(changed.map(|(view, _)| view).ok_or(Error::NotFound("session")))
    };
    let log = move |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
        info!(client, session = id, nodes, acknowledged, milliseconds, "session revoked");
    };
    let (view, receipt) = app.commit(change, log).await??;
    Ok(SessionView { receipt: Some(receipt), ..view })
}

fn is_live(client: &Client, session: &Session, now: UnixSeconds) -> bool {
    let credential = client.credentials.iter().find(|credential| credential.id == session.credential);
    session.generation == client.generation
        && credential.is_some_and(|credential| credential.revoked_at.is_none())
        && now < session.valid_until()
}

fn view(client: &Client, session: &Session) -> SessionView {
    let credential = client.credentials.iter().find(|credential| credential.id == session.credential);
    let status = match session.phase {
        Phase::Live => "live",
        Phase::RefreshEnded => "cannot-refresh",
        Phase::Ended => "ended",
    };
    let refreshes = session.phase == Phase::Live;
    SessionView {
        session_id: session.id,
        client_id: client.id,
        api_key: credential.map(|credential| credential.api_key.clone()),
        status: status.into(),
        started_at: rfc3339(session.started_at),
        issued_at: rfc3339(session.issued_at),
        access_expires_at: rfc3339(session.access_expires_at),
        refresh_expires_at: refreshes.then(|| rfc3339(session.refresh_expires_at)),
        receipt: None,
    }
}
