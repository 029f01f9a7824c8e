//! Decides whether an access token is valid.

use rescind_node::{app::App, memory::ReadStamp};
use rescind_store::{Found, StoreError};
use rescind_verifier::{Claims, Denied, Kind, Refused, StandingToken, VerifiedToken};

use super::{Caller, Error, address_denied, refusals::log_denied, refused};

/// Why a token is refused, and its claims if its issuer wrote them.
pub(super) struct Unverified {
    pub(super) error: Error,
    pub(super) claims: Option<Box<Claims>>,
}

impl Unverified {
    fn new(app: &App, Refused { reason, claims, .. }: Refused) -> Unverified {
        Unverified { error: refused(app, reason), claims }
    }
}

impl From<StoreError> for Unverified {
    fn from(error: StoreError) -> Unverified {
        Unverified { error: error.into(), claims: None }
    }
}

/// Verifies an access token that a caller presents.
///
/// # Errors
///
/// [`Error::InvalidToken`] or [`Error::TokenExpired`]; [`Error::AddressNotAllowed`] if the caller's address is not on the client's
/// allowlist; [`Error::Store`] if the node has no lease, or a needed read of the store fails.
pub async fn verify(app: &App, token: &str, caller: &Caller) -> Result<VerifiedToken, Error> {
    presented(app, token, stand(app, token).await, caller)
}

/// Like [`verify`], but never reads the store. `None`: the store must be read.
pub fn verify_in_memory(app: &App, token: &str, caller: &Caller) -> Option<Result<VerifiedToken, Error>> {
    stand_in_memory(app, token).map(|verdict| presented(app, token, verdict, caller))
}

fn presented(
    app: &App,
    token: &str,
    verdict: Result<StandingToken, Unverified>,
    caller: &Caller,
) -> Result<VerifiedToken, Error> {
    let verdict = verdict.and_then(|token| {
        let client = token.claims().client;
        token.presented_by_explained(caller.address).map_err(|refused| Unverified {
            error: match refused.reason {
                Denied::AddressNotAllowed => address_denied(app, client, caller),
                denied => denied.into(),
            },
            claims: refused.claims,
        })
    });
    if let Ok(token) = &verdict {
        app.usage.verified(token.claims(), caller.address);
    }
    verdict.map_err(|Unverified { error, claims }| {
        if let Some(reason) = error.denial() {
            app.metrics.denied(reason);
            log_denied(app, token, (&error, reason), claims.as_deref(), caller);
        }
        error
    })
}

/// Verifies an access token without regard to the caller. The decision is made in memory. If memory does not know the
/// token's session or pair, the store is read.
///
/// # Errors
///
/// [`Error::InvalidToken`] or [`Error::TokenExpired`]; [`Error::Store`] if the node has no lease, or a needed read of the
/// store fails.
pub(super) async fn stand(app: &App, token: &str) -> Result<StandingToken, Unverified> {
    match stand_in_memory(app, token) {
        Some(decided) => decided,
        // Boxed, because nearly no request needs this large future.
        None => Box::pin(look_up(app, token)).await,
    }
}

fn stand_in_memory(app: &App, token: &str) -> Option<Result<StandingToken, Unverified>> {
    // The lease comes first. State read after a valid lease is as new as that lease requires, or newer.
    if let Err(lapsed) = app.cluster.lease.check() {
        return Some(Err(StoreError::from(lapsed).into()));
    }
    match app.memory.issuer.keyring().stand(token, app.clock.now(), &app.memory.registry) {
        Err(refused) if refused.reason == Denied::NotKnown => None,
        decided => Some(decided.map_err(|refused| Unverified::new(app, refused))),
    }
}

async fn look_up(app: &App, token: &str) -> Result<StandingToken, Unverified> {
    app.metrics.lookups.inc();
    let now = app.clock.now();
    let _changing = app.memory.changing().await;
    let keyring = app.memory.issuer.keyring().clone();
    let unverified = |refused| Unverified::new(app, refused);
    let claims = keyring.authenticate(token, Kind::Access, now).map_err(unverified)?;
    let (client, session) = (claims.client, claims.session);
    let stamp = app.memory.registry.stamp();
    let found = app.store.find(client, session).await?;
    fill(app, &found, stamp);
    match keyring.stand(token, now, &found) {
        Err(refused) if refused.reason == Denied::NotKnown => {}
        decided => return decided.map_err(unverified),
    }
    let stamp = app.memory.registry.stamp();
    let found = app.store.find_confirmed(client, session).await?;
    fill(app, &found, stamp);
    keyring.stand(token, now, &found).map_err(unverified)
}

fn fill(app: &App, found: &Found, stamp: ReadStamp) {
    if let Some(client) = &found.client {
        app.memory.registry.apply(client);
    }
    if let Some(session) = &found.session {
        app.memory.registry.fill(session, stamp);
    }
}
