//! The pepper, under which secrets are hashed, and its rotation.

use std::sync::Arc;

use rescind_base::{
    model::{Client, ClientId, ManagementToken, UnixSeconds, VerifierRecord},
    secret::SecretHash,
};
use rescind_node::app::{AT_ONCE, App};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{
    Error, PEPPERS, credential::revoke_credential, ensure_nodes_know,
    management_token::revoke_management_token, verifier::revoke_verifier,
};

/// The most that is listed of each kind.
const LISTED: usize = 1000;

/// The valid peppers, and what is still under the former one.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PepperView {
    /// The number of the pepper that new hashes are under.
    pub present: u32,
    /// The number of the one before, while it is valid too.
    pub former: Option<u32>,
    /// What has not been used since the rotation: it is under the former pepper.
    pub left: Left,
}

/// Secrets that are known by their hashes under a former pepper. Of each kind the first 1000 are listed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Left {
    /// How many there are.
    pub count: u64,
    pub credentials: Vec<LeftCredential>,
    pub management_tokens: Vec<LeftToken>,
    pub verifiers: Vec<LeftToken>,
}

/// A credential that has not logged in since the rotation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LeftCredential {
    pub client_id: ClientId,
    pub client_name: String,
    pub api_key: String,
}

/// A management token or verifier that was not used since the rotation.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LeftToken {
    pub id: u64,
    pub name: String,
}

/// The end of the former pepper.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PepperRetirement {
    /// Revokes what is still under the former pepper. Otherwise it is refused while there is anything.
    #[serde(default)]
    pub revoke_left: bool,
}

/// Returns the numbers of the peppers, and what is still under the former one.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn pepper(app: &Arc<App>) -> Result<PepperView, Error> {
    let (present, former) = numbers(app);
    let left = left(app, present, app.clock.now()).await?;
    Ok(PepperView { present, former, left })
}

fn numbers(app: &App) -> (u32, Option<u32>) {
    let peppers = app.memory.peppers.load();
    (peppers.present(), peppers.former.as_ref().map(|former| former.number))
}

async fn left(app: &Arc<App>, present: u32, now: UnixSeconds) -> Result<Left, Error> {
    while !app.write_rehashes().await? {}
    let (clients, tokens) = (app.store.clients().await?, app.store.management_tokens().await?);
    Ok(left_of(&clients, &tokens, &app.memory.verifiers.load(), present, now))
}

fn left_of(
    clients: &[Client],
    tokens: &[ManagementToken],
    verifiers: &[VerifierRecord],
    present: u32,
    now: UnixSeconds,
) -> Left {
    let is_left = |hash: &SecretHash| hash.pepper < present;
    let mut left = Left::default();
    for client in clients {
        for credential in client.credentials.iter().filter(|c| c.is_good(now) && is_left(&c.secret_hash)) {
            let (client_id, client_name) = (client.id, client.name.clone());
            let api_key = credential.api_key.clone();
            left.add(|left| &mut left.credentials, LeftCredential { client_id, client_name, api_key });
        }
    }
    for token in tokens {
        if is_left(&token.token_hash) && token.expires_at.is_none_or(|at| now < at) {
            left.add(
                |left| &mut left.management_tokens,
                LeftToken { id: token.id, name: token.name.clone() },
            );
        }
    }
    for verifier in verifiers.iter().filter(|verifier| is_left(&verifier.token_hash)) {
        left.add(|left| &mut left.verifiers, LeftToken { id: verifier.id, name: verifier.name.clone() });
    }
    left
}

impl Left {
    /// Counts one, and lists it if there is room.
    fn add<T>(&mut self, list: fn(&mut Left) -> &mut Vec<T>, one: T) {
        self.count += 1;
        let list = list(self);
        if list.len() < LISTED {
            list.push(one);
        }
    }
}

/// Adds a pepper, under which new secrets are hashed, and others when they are presented. The former one stays valid.
///
/// # Errors
///
/// If the one before is still valid, a node knows one pepper only, or the change or its propagation fails.
pub async fn rotate_pepper(app: &Arc<App>) -> Result<PepperView, Error> {
    if numbers(app).1.is_some() {
        let problem = "the pepper was rotated before, and the former one is still valid: retire it first";
        return Err(Error::Refused(problem.into()));
    }
    ensure_nodes_know(app, PEPPERS, "knows one pepper only").await?;
    let new = app.memory.peppers.load().next(&app.memory.master, &app.random)?;
    let origin = app.by_operator();
    app.change_peppers(async move |app| app.store.rotate_pepper(new, origin).await).await??;
    info!(present = numbers(app).0, "pepper rotated");
    pepper(app).await
}

/// Ends the former pepper. A secret that is known by its hash under that pepper alone could not be used any more, so such
/// credentials, tokens and verifiers are revoked first.
///
/// # Errors
///
/// If there is no former pepper, something is still under it that is not to be revoked, or a change or its propagation
/// fails.
pub async fn retire_pepper(app: &Arc<App>, wanted: PepperRetirement) -> Result<PepperView, Error> {
    let (present, _) = numbers(app);
    let former = app.memory.peppers.load().former.clone();
    let former = former.ok_or_else(|| Error::Refused("only one pepper is valid: rotate it first".into()))?;
    if wanted.revoke_left {
        others_have_written(app, present).await?;
    }
    loop {
        let left = left(app, present, app.clock.now()).await?;
        if left.count == 0 {
            break;
        }
        if !wanted.revoke_left {
            return Err(Error::Refused(format!(
                "{} secrets are still under the former pepper: wait until they are used, rotate them, or have them \
                 revoked with revoke_left (--revoke-left)",
                left.count
            )));
        }
        revoke(app, left).await?;
    }
    let origin = app.by_operator();
    let name = former.name();
    app.change_peppers(async move |app| app.store.retire_pepper(name, origin).await).await??;
    info!(present, "former pepper retired");
    pepper(app).await
}

/// Waits until the other nodes have written what was used there before: it is not left.
async fn others_have_written(app: &Arc<App>, present: u32) -> Result<(), Error> {
    loop {
        let before = left(app, present, app.clock.now()).await?.count;
        if before == 0 || !app.others_rehash().await {
            return Ok(());
        }
        // Where more were used than are written at once, so many were written meanwhile, and more follow.
        let after = left(app, present, app.clock.now()).await?.count;
        if before.saturating_sub(after) < AT_ONCE as u64 {
            return Ok(());
        }
    }
}

async fn revoke(app: &Arc<App>, left: Left) -> Result<(), Error> {
    for credential in left.credentials {
        gone_already(revoke_credential(app, &credential.api_key).await)?;
    }
    for token in left.management_tokens {
        gone_already(revoke_management_token(app, token.id).await)?;
    }
    for verifier in left.verifiers {
        gone_already(revoke_verifier(app, verifier.id).await)?;
    }
    Ok(())
}

/// Somebody else may have revoked it meanwhile.
fn gone_already<T>(revoked: Result<T, Error>) -> Result<(), Error> {
    match revoked {
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}
