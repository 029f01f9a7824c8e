//! Logout: revokes every token of a client.

use std::sync::Arc;

use rescind_base::model::{Actor, Client};
use rescind_node::{app::App, cluster::Receipt};
use rescind_verifier::Denied;
use tracing::info;

use super::{Caller, Error, is_logged, refusals::note_denied, uncertified, verify};

/// Revokes every token of this access token's client, by raising the client's generation.
///
/// # Errors
///
/// As [`verify()`]. [`Error::Store`] too if the change or its propagation fails: the logout may then have happened.
pub async fn logout(app: &Arc<App>, token: &str, caller: &Caller) -> Result<(), Error> {
    let verified = verify(app, token, caller).await?;
    let (client, generation) = (verified.claims().client, verified.claims().generation);
    let (now, origin) = (app.clock.now(), app.audit.origin(Actor::Caller, caller.address));
    let asking = caller.clone();
    // The second of two simultaneous logouts comes with a token of the generation that the first one revoked. It must
    // not revoke the tokens of a login in between.
    let rule = move |client: &mut Client| {
        if client.generation != generation {
            return Err(Error::from(Denied::Revoked));
        }
        if !asking.shows(&client.certificates, now) {
            return Err(Error::Uncertified);
        }
        client.revoke_tokens(now);
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
    app.commit(change, log).await?.map(drop).map_err(|error| {
        note_denied(app, token, &error, Some(verified.claims()));
        match error {
            Error::Uncertified => uncertified(app, client, caller),
            error => error,
        }
    })
}
