//! Revokes what somebody has found in public. Possession is enough: whoever has a token or a secret can use it.

use std::{convert::Infallible, sync::Arc};

use rescind_base::{
    model::{Actor, ChangeOrigin, Client, EventKind, Session, VerifierRecord, changes},
    secret::{Hashes, MANAGEMENT_PREFIX, is_well_formed},
};
use rescind_node::{app::App, cluster::Receipt, memory::KnownCredential};
use rescind_store::StoreError;
use rescind_verifier::{Claims, Denied, Kind, State as _};
use tracing::warn;

use super::{
    Caller, Error, Failed, failed, is_logged, is_on_record,
    refusals::{Whose, log_refused},
};

/// What the report of a leak has revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaked {
    /// The session of an access or refresh token.
    Session,
    /// The credential of an API secret, with its sessions.
    Credential,
    /// The verifier of a verifier token.
    Verifier,
    ManagementToken,
}

impl Leaked {
    /// Returns the words of the answer, which never change.
    pub fn name(self) -> &'static str {
        match self {
            Leaked::Session => "session",
            Leaked::Credential => "credential",
            Leaked::Verifier => "verifier",
            Leaked::ManagementToken => "management token",
        }
    }
}

/// Revokes what a text opens: an access or refresh token, an API secret, also after its API key and a colon, a verifier
/// token or a management token. `None`: the text opens nothing.
///
/// A report that finds nothing is a failure as a failed login is, because both try secrets.
///
/// # Errors
///
/// [`Error::Throttled`] after too many failures; [`Error::Store`] if the node has no lease, or the change or its
/// propagation fails.
pub async fn report_leak(app: &Arc<App>, text: &str, caller: &Caller) -> Result<Option<Leaked>, Error> {
    let reported = try_report(app, text.trim(), caller).await;
    if let Err(error) = &reported {
        log_refused(app, "leak report", error, caller, Whose::default());
    }
    reported
}

async fn try_report(app: &Arc<App>, text: &str, caller: &Caller) -> Result<Option<Leaked>, Error> {
    app.cluster.lease.check().map_err(StoreError::from)?;
    let text = text.rsplit_once(':').map_or(text, |(_, secret)| secret);
    let opened = Opened::by(app, text);
    // Counted before the store is asked, so that a flood of guesses is refused without I/O. What memory knows is no guess.
    if !opened.as_ref().is_some_and(Opened::is_known) {
        let too_many = failed(app, Failed::Unknown(text.as_bytes()), caller, Error::InvalidCredentials);
        if let Error::Throttled(_) = too_many {
            return Err(too_many);
        }
    }
    let Some(opened) = opened else { return Ok(None) };
    let origin = app.audit.origin(Actor::Caller, caller.address);
    Ok(match opened {
        Opened::Credential(known) => revoke_credential(app, &known, origin).await?,
        Opened::Session { claims, .. } => end_session(app, claims, caller, origin).await?,
        Opened::Verifier(id) => {
            app.change_verifiers(async move |app| app.store.delete_verifier(id, origin).await).await?;
            warn!(verifier = id, "a verifier token was reported as leaked, and revoked");
            Some(Leaked::Verifier)
        }
        Opened::ByManagementToken(hashes) => revoke_management_token(app, hashes, origin).await?,
    })
}

/// What a text opens, as far as memory can tell.
enum Opened {
    Credential(Arc<KnownCredential>),
    Session {
        claims: Claims,
        /// By an access token that is valid.
        is_valid: bool,
    },
    Verifier(u64),
    /// Only the store knows management tokens. The text has the form of one.
    ByManagementToken(Hashes),
}

impl Opened {
    fn by(app: &App, text: &str) -> Option<Opened> {
        let hashes = app.memory.peppers.load().hashes(text);
        if let Some(known) = app.memory.registry.credential_of_secret(&hashes) {
            return Some(Opened::Credential(known));
        }
        let is_of = |verifier: &&VerifierRecord| hashes.iter().any(|hash| *hash == verifier.token_hash);
        if let Some(verifier) = app.memory.verifiers.load().iter().find(is_of) {
            return Some(Opened::Verifier(verifier.id));
        }
        if is_well_formed(MANAGEMENT_PREFIX, text) {
            return Some(Opened::ByManagementToken(hashes));
        }
        let keyring = app.memory.issuer.keyring().clone();
        // Expiry is ignored: the session may have other valid tokens.
        let read = |kind| keyring.authenticate_at_any_time(text, kind).map(|claims| (claims, kind));
        let (claims, kind) = read(Kind::Access).or_else(|_| read(Kind::Refresh)).ok()?;
        let policy = app.memory.registry.policy(claims.client);
        if let Some(Err(Denied::ClientInactive | Denied::Revoked)) =
            policy.map(|policy| policy.stands_behind(&claims))
        {
            return None;
        }
        let session = app.memory.registry.session(claims.session);
        if session.is_some_and(|session| session.ended) {
            return None;
        }
        let is_valid = kind == Kind::Access && session.is_some() && app.clock.now() < claims.expires_at;
        Some(Opened::Session { claims, is_valid })
    }

    /// Whether memory knows that there is something to revoke. So each report of it is the last.
    fn is_known(&self) -> bool {
        match self {
            Opened::Credential(_) | Opened::Verifier(_) => true,
            Opened::Session { is_valid, .. } => *is_valid,
            Opened::ByManagementToken(_) => false,
        }
    }
}

/// There was nothing to revoke any more.
struct Nothing;

async fn revoke_credential(
    app: &Arc<App>,
    known: &KnownCredential,
    origin: ChangeOrigin,
) -> Result<Option<Leaked>, Error> {
    let (client, id, now) = (known.client, known.credential.id, origin.at);
    let rule = move |client: &mut Client| {
        let credential = client.credentials.iter_mut().find(|c| c.id == id && c.revoked_at.is_none());
        credential.ok_or(Nothing)?.revoked_at = Some(now);
        Ok(())
    };
    let change = async move |app: Arc<App>| {
        let changed = app.change_client(client, origin, rule).await?;
        Ok(changed.unwrap_or(Err(Nothing)))
    };
    let credential = known.credential.api_key.clone();
    let log = move |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
        let told = "an API secret was reported as leaked, and its credential revoked";
        warn!(client, credential, nodes, acknowledged, milliseconds, "{told}");
    };
    Ok(app.commit(change, log).await?.ok().map(|_| Leaked::Credential))
}

async fn end_session(
    app: &Arc<App>,
    claims: Claims,
    caller: &Caller,
    origin: ChangeOrigin,
) -> Result<Option<Leaked>, Error> {
    let (client, session, now, address) = (claims.client, claims.session, origin.at, caller.address);
    let until = now.saturating_add(app.rules.refresh_ttl);
    // A client can log in and report its own tokens as often as it likes.
    let on_record = is_on_record(app, EventKind::LeakReported, client);
    let end = move |client: &Client, session: Option<Session>| {
        client.policy().stands_behind(&claims).ok()?;
        let ended = match session {
            Some(session) => (now < session.valid_until()).then(|| session.ended(&claims)),
            // A follower would accept the token, because it knows only the sessions that have ended.
            None => (now < claims.expires_at).then(|| Session::lost(&claims, until)),
        }?;
        let event = on_record.then(|| changes::of_revocation(client, &ended, &origin));
        Some((ended, event))
    };
    let change = async move |app: Arc<App>| {
        let ended = app.end_session(client, session, end).await?;
        Ok(if ended { Ok(()) } else { Err(Nothing) })
    };
    let log = move |app: &App, (): &(), Receipt { nodes, acknowledged, milliseconds }| {
        if !on_record {
            app.audit.note(EventKind::LeakReported, Some(client), address);
        }
        if is_logged(app, client) {
            let told = "a token was reported as leaked, and its session revoked";
            warn!(client, session, nodes, acknowledged, milliseconds, "{told}");
        }
    };
    Ok(app.commit(change, log).await?.ok().map(|_| Leaked::Session))
}

async fn revoke_management_token(
    app: &Arc<App>,
    hashes: Hashes,
    origin: ChangeOrigin,
) -> Result<Option<Leaked>, Error> {
    let Some(token) = app.store.management_token(hashes, origin.at).await? else { return Ok(None) };
    let id = token.id;
    let revoke = async move |app: Arc<App>| {
        app.store.delete_management_token(id, origin).await.map(Ok::<_, Infallible>)
    };
    let log = move |_: &App, _: &_, _| {
        warn!(token = id, "a management token was reported as leaked, and revoked");
    };
    let Ok((revoked, _)) = app.commit(revoke, log).await?;
    Ok(revoked.map(|_| Leaked::ManagementToken))
}
