//! The operators' actions, for the admin API and the command line.

mod audit;
mod backup;
mod certificate;
mod client;
mod credential;
mod key;
mod status;
mod token;
mod verifier;

use std::sync::Arc;

use thiserror::Error;
use tracing::info;

pub use audit::{EventView, EventsView, EventsWanted, events};
pub use backup::{EndedTokens, RestoreError, Restored, backup, restore, restored};
pub use certificate::{CertificateChange, change_certificates};
pub use client::{
    AddressCheck, AllowChange, ClientView, CreatedClient, EnforcementChange, NewClient, change_allowlist,
    change_enforcement, check_address, client, clients, create_client, delete, logout, resume, suspend,
};
pub use credential::{
    CreatedCredential, CredentialView, NewCredential, Replaced, Rotation, create_credential, credentials,
    revoke_credential, rotate_credential,
};
pub use key::{KeyRotation, KeyView, keys, retire_key, rotate_key, upgrade_key};
pub use status::{ClusterView, NodeView, StatusView, status};
pub use token::{TokenView, inspect};
pub use verifier::{CreatedVerifier, NewVerifier, VerifierView, create_verifier, revoke_verifier, verifiers};

use crate::{
    app::App,
    cluster::Receipt,
    memory::KeyringError,
    model::{Actor, Client, ClientId, Status},
    secret::SealError,
    store::StoreError,
};

/// Why an action was refused or failed.
#[derive(Debug, Error)]
pub enum Error {
    /// A field of the request is invalid.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong, and what is expected.
        problem: String,
    },
    /// No record has this name or id.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The request is valid, but a rule forbids the action.
    #[error("{0}")]
    Refused(String),
    /// The store is unavailable or unreadable, or the propagation failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A key could not be opened again.
    #[error(transparent)]
    Keys(#[from] KeyringError),
}

/// Lets a rule change a client that was not deleted. Returns when every verification that begins from then on sees the
/// change.
async fn change<T: Send + 'static>(
    app: &Arc<App>,
    id: ClientId,
    what: &'static str,
    rule: impl FnOnce(&mut Client) -> Result<T, Error> + Send + 'static,
) -> Result<Changed<T>, Error> {
    let origin = app.audit.origin(Actor::Operator, None);
    let live_only = move |client: &mut Client| match client.status {
        Status::Deleted => Err(Error::NotFound("client")),
        Status::Active | Status::Suspended => rule(client),
    };
    let change = async move |app: Arc<App>| {
        let changed = app.change_client(id, origin, live_only).await?;
        Ok(changed.unwrap_or(Err(Error::NotFound("client"))))
    };
    let log = move |_: &App, _: &_, Receipt { nodes, acknowledged, milliseconds }| {
        info!(client = id, nodes, acknowledged, milliseconds, "{what}");
    };
    let ((outcome, client), receipt) = app.commit(change, log).await??;
    Ok(Changed { outcome, client, receipt })
}

/// A change of a client, after its propagation.
struct Changed<T> {
    outcome: T,
    client: Client,
    receipt: Receipt,
}

async fn find(app: &App, id: ClientId) -> Result<Client, Error> {
    let client = app.store.find(id, 0).await?.client;
    client.filter(|c| c.status != Status::Deleted).ok_or(Error::NotFound("client"))
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Error {
    Error::Invalid { field, problem: problem.into() }
}
