//! The end of every token of a client.

use std::sync::Arc;

use rescind_verifier::Denied;
use tracing::info;

use super::{Caller, Error, is_logged, uncertified, verify};
use crate::{
    app::App,
    cluster::Receipt,
    model::{Actor, Client},
};

/// Takes back every token of the client that this access token is of: one increment.
pub async fn logout(app: &Arc<App>, token: &str, caller: &Caller) -> Result<(), Error> {
    let verified = verify(app, token, caller).await?;
    let (client, generation) = (verified.claims().client, verified.claims().generation);
    let (now, origin) = (app.clock.now(), app.audit.origin(Actor::Caller, caller.address));
    let asking = caller.clone();
    // Of two logouts with one generation's tokens the later one comes with revoked ones: it
    // must not take back what a login in between has given.
    let rule = move |client: &mut Client| {
        if client.generation != generation {
            return Err(Error::from(Denied::Revoked));
        }
        if !asking.shows(&client.certificates, now) {
            return Err(Error::Uncertified);
        }
        client.generation += 1;
        Ok(())
    };
    let change = async move |app: Arc<App>| {
        let changed = app.change_client(client, origin, rule).await?;
        Ok(changed.unwrap_or(Err(Denied::NotKnown.into())))
    };
    let log = move |app: &App, (_, changed): &(_, Client), receipt| {
        let Receipt { nodes, acknowledged, milliseconds } = receipt;
        if is_logged(app, client) {
            info!(client, generation = changed.generation, nodes, acknowledged, milliseconds, "logout");
        }
    };
    app.commit(change, log).await?.map(drop).map_err(|error| match error {
        Error::Uncertified => uncertified(app, client, caller),
        error => error,
    })
}
