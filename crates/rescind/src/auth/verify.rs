//! Whether an access token stands.

use rescind_verifier::{Denied, Kind, StandingToken, VerifiedToken};

use super::{Caller, Error, address_denied, refused};
use crate::{
    app::App,
    memory::ReadStamp,
    model::UnixSeconds,
    store::{Found, StoreError},
};

/// Decides over an access token that a caller presents.
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

/// Decides over an access token, whoever may present it: in memory, unless the token is newer than
/// that; then the store is asked once.
pub async fn stand(app: &App, token: &str) -> Result<StandingToken, Error> {
    // First, before anything is read that the verdict is made of.
    app.cluster.lease.check().map_err(StoreError::from)?;
    let now = app.clock.now();
    match app.memory.issuer.keyring().stand(token, now, &app.memory.registry) {
        // Its own allocation: nearly every request does without it.
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
    let asked = app.memory.registry.asking();
    let found = app.store.find(client, session).await?;
    learn(app, &found, asked);
    match keyring.stand(token, now, &found) {
        Err(Denied::NotKnown) => {}
        decided => return Ok(decided?),
    }
    let asked = app.memory.registry.asking();
    let found = app.store.find_surely(client, session).await?;
    learn(app, &found, asked);
    Ok(keyring.stand(token, now, &found)?)
}

fn learn(app: &App, found: &Found, asked: ReadStamp) {
    if let Some(client) = &found.client {
        app.memory.registry.learn_client(client, asked);
    }
    if let Some(session) = &found.session {
        app.memory.registry.learn(session, asked);
    }
}
