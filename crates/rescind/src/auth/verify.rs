//! Decides whether an access token is valid.

use rescind_verifier::{Denied, Kind, StandingToken, VerifiedToken};

use super::{Caller, Error, address_denied, refused};
use crate::{
    app::App,
    memory::ReadStamp,
    model::UnixSeconds,
    store::{Found, StoreError},
};

/// Verifies an access token that a caller presents.
///
/// # Errors
///
/// As [`stand`], or [`Error::AddressNotAllowed`] if the caller's address is not on the client's allowlist.
pub async fn verify(app: &App, token: &str, caller: &Caller) -> Result<VerifiedToken, Error> {
    let verdict = stand(app, token).await.and_then(|token| {
        let client = token.claims().client;
        token.presented_by(caller.address).map_err(|denied| match denied {
            Denied::AddressNotAllowed => address_denied(app, client, caller),
            denied => denied.into(),
        })
    });
    verdict.inspect_err(|error| {
        if let Some(reason) = error.denial() {
            app.metrics.denied(reason);
        }
    })
}

/// Verifies an access token without regard to the caller. The decision is made in memory. If memory does not know the
/// token's session or pair, the store is read.
///
/// # Errors
///
/// [`Error::InvalidToken`] or [`Error::TokenExpired`]; [`Error::Store`] if the node has no lease, or a needed read of the
/// store fails.
pub async fn stand(app: &App, token: &str) -> Result<StandingToken, Error> {
    // The lease comes first. State read after a valid lease is as new as that lease requires, or newer.
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    match app.memory.issuer.keyring().stand(token, now, &app.memory.registry) {
        // Boxed, because nearly no request needs this large future.
        Err(Denied::NotKnown) => Box::pin(look_up(app, token, now)).await,
        decided => decided.map_err(|denied| refused(app, denied)),
    }
}

async fn look_up(app: &App, token: &str, now: UnixSeconds) -> Result<StandingToken, Error> {
    app.metrics.lookups.inc();
    let _changing = app.memory.changing().await;
    let keyring = app.memory.issuer.keyring().clone();
    let claims = keyring.authenticate(token, Kind::Access, now)?;
    let (client, session) = (claims.client, claims.session);
    let stamp = app.memory.registry.stamp();
    let found = app.store.find(client, session).await?;
    fill(app, &found, stamp);
    match keyring.stand(token, now, &found) {
        Err(Denied::NotKnown) => {}
        decided => return Ok(decided?),
    }
    let stamp = app.memory.registry.stamp();
    let found = app.store.find_confirmed(client, session).await?;
    fill(app, &found, stamp);
    Ok(keyring.stand(token, now, &found)?)
}

fn fill(app: &App, found: &Found, stamp: ReadStamp) {
    if let Some(client) = &found.client {
        app.memory.registry.fill_client(client, stamp);
    }
    if let Some(session) = &found.session {
        app.memory.registry.fill(session, stamp);
    }
}
