//! Whether an access token stands.

use rescind_verifier::{Denied, Kind, StandingToken, VerifiedToken};

use super::{Caller, Error, address_denied, refused};
use crate::{
    app::App,
    registry::Asked,
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
    match app.issuer.keyring().verifier().stand(token, now, &app.registry) {
        Err(Denied::NotKnown) => {}
        decided => return decided.map_err(|denied| refused(app, denied)),
    }

    app.metrics.lookups.inc();
    let keyring = app.issuer.keyring().clone();
    let claims = keyring.verifier().authenticate(token, Kind::Access, now)?;
    let (client, session) = (claims.client, claims.session);
    let asked = app.registry.asking(session);
    let found = app.store.find(client, session).await?;
    learn(app, &found, asked);
    match keyring.verifier().stand(token, now, &found) {
        Err(Denied::NotKnown) => {}
        decided => return Ok(decided?),
    }
    let asked = app.registry.asking(session);
    let found = app.store.find_surely(client, session).await?;
    learn(app, &found, asked);
    Ok(keyring.verifier().stand(token, now, &found)?)
}

fn learn(app: &App, found: &Found, asked: Asked) {
    if let Some(client) = &found.client {
        app.registry.apply(client);
    }
    if let Some(session) = &found.session {
        app.registry.learn(session.id, session.state(), asked);
    }
}
