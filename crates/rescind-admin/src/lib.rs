//! The operators' actions, for the admin API and the command line.

mod administrator;
mod allowlist;
mod audit;
mod audit_chain;
mod backup;
mod certificate;
mod client;
mod client_list;
mod credential;
mod denial;
mod event_csv;
mod handover;
mod introspection;
mod key;
mod management_token;
mod master_key;
mod networks;
mod new_client;
mod password;
mod pepper;
mod resource;
mod session;
mod settings;
mod sign_in;
mod status;
mod token;
mod totp;
mod trends;
mod update;
mod usage;
mod verifier;

use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tracing::info;

pub use administrator::{
    AdministratorView, InvitedAdministrator, NewAdministrator, NewRole, administrators, change_role,
    create_administrator, remove_administrator, reset_administrator,
};
pub use allowlist::{AddressCheck, AllowChange, MAX_ALLOWLIST_ENTRIES, change_allowlist, check_address};
pub use audit::{EventQuery, EventView, EventsView, events};
pub use audit_chain::{
    AuditProblem, AuditProof, ChainView, CheckpointView, CheckpointsView, FaultView, ProofView, checkpoint,
    verify,
};
pub use backup::{EndedTokens, RestoreError, Restored, backup, restore, restored};
pub use certificate::{CertificateChange, change_certificates};
pub use client::{
    ClientView, NewName, NewSuspension, ScopeChange, change_scopes, client, delete, logout, rename, resume,
    suspend,
};
pub use client_list::{ClientQuery, ClientSort, clients};
pub use credential::{
    CreatedCredential, CredentialView, Expiry, NewCredential, NewNote, Replaced, Rotation, UseView,
    UsedCredential, create_credential, credential, credentials, expire_credential, note_credential,
    revoke_credential, rotate_credential, uses,
};
pub use denial::{DenialQuery, DenialView, DeniedClient, ExplainedDenial, denial, denials};
pub use event_csv::{CSV_HEADING, csv};
pub use handover::{CreatedHandover, LinkState, NewHandover, hand_over, link_state, read_handover};
pub use introspection::{EnforcementChange, LifetimeChange, change_enforcement, change_lifetime};
pub use key::{KeyRotation, KeyView, keys, retire_key, rotate_key, upgrade_key};
pub use management_token::{
    CreatedManagementToken, ManagementTokenView, NewManagementToken, create_management_token,
    management_tokens, revoke_management_token,
};
pub use master_key::{KeptKey, RotateError, rotate_master_key};
pub use networks::{Problem as NetworkProblem, parse_networks, shut_out};
pub use new_client::{CreatedClient, EnsuredClient, NewClient, create_client, ensure_client};
pub use pepper::{
    Left, LeftCredential, LeftToken, PepperRetirement, PepperView, pepper, retire_pepper, rotate_pepper,
};
pub use resource::{ResourceChange, change_resources};
pub use session::{SessionQuery, SessionView, SessionsView, revoke_session, sessions};
pub use settings::{SettingView, settings};
pub use sign_in::{
    Invited, OfferedSecret, Shown, SignInError, change_password, enrol, enrol_again, first_link, invited,
    named, offer_secret, sign_in, sign_out, signed_in,
};
pub use status::{ClusterView, ExpiringView, FollowerView, NodeView, StatusView, status};
pub use token::{TokenView, inspect};
pub use trends::{IntervalView, TrendsQuery, TrendsRange, TrendsView, trends};
pub use update::{ClientUpdate, update_client};
pub use usage::{
    CountsView, HourView, HoursView, LastView, TotalUsageQuery, UsageQuery, UsageView, total_usage, usage,
};
pub use verifier::{CreatedVerifier, NewVerifier, VerifierView, create_verifier, revoke_verifier, verifiers};

use rescind_base::{
    model::{Client, ClientId, Status},
    secret::SealError,
};
use rescind_node::{
    app::{ASKED, App, may_see},
    cluster::Receipt,
    memory::KeyringError,
};
use rescind_store::StoreError;

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
    /// No record of a request is kept, maybe for one of the reasons that the text has.
    #[error("{0}")]
    NotKept(String),
    /// The client is not as the request supposes.
    #[error("the client has changed meanwhile: read it again")]
    Changed,
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
    let origin = app.by_operator();
    visible(id)?;
    let asked = ASKED.try_get().ok();
    let accepts = move |version: &str| {
        let wanted = asked.as_ref().and_then(|asked| asked.versions.as_ref());
        wanted.is_none_or(|wanted| wanted.iter().any(|wanted| wanted == version))
    };
    let live_only = move |client: &mut Client| match client.status {
        Status::Deleted => Err(Error::NotFound("client")),
        _ if !accepts(&version(serde_json::to_value(client::view(client)).unwrap_or_default())) => {
            Err(Error::Changed)
        }
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

/// The version of a client, which differs whenever what the admin API shows of the client differs.
pub fn version(mut shown: Value) -> String {
    // A receipt is of one change, and a client's own logins are no change.
    if let Some(shown) = shown.as_object_mut() {
        shown.retain(|name, _| !["receipt", "last_used_at"].contains(&name.as_str()));
    }
    HEXLOWER.encode(&Sha256::digest(shown.to_string())[..16])
}

/// Checks that the present request may see this client, and that there can be one: the stores' ids are at most `i64::MAX`.
fn visible(id: ClientId) -> Result<(), Error> {
    let visible = may_see(id) && i64::try_from(id).is_ok();
    if visible { Ok(()) } else { Err(Error::NotFound("client")) }
}

async fn find(app: &App, id: ClientId) -> Result<Client, Error> {
    visible(id)?;
    let client = app.store.find(id, 0).await?.client;
    client.filter(|c| c.status != Status::Deleted).ok_or(Error::NotFound("client"))
}

/// The migrations that brought refresh keys; resources, and access tokens with `client_id` and `jti`; the lifetime of
/// introspection's answers; and several peppers.
const REFRESH_KEYS: i32 = 4;
const RESOURCES: i32 = 5;
const INTROSPECT_LIFETIME: i32 = 6;
const PEPPERS: i32 = 10;

/// Returns the name of a node whose version does not know this migration, if there is one.
async fn node_without(app: &App, migration: i32) -> Result<Option<String>, Error> {
    let Some(postgres) = app.store.postgres() else { return Ok(None) };
    let (_, _, nodes) = postgres.nodes().await?;
    Ok(nodes.into_iter().find(|node| !node.knows(migration)).map(|node| node.name))
}

/// Refuses what an older node would not enforce. The store does so too, for a node that joins meanwhile.
async fn ensure_nodes_know(app: &App, migration: i32, lacks: &str) -> Result<(), Error> {
    match node_without(app, migration).await? {
        Some(node) => {
            let problem = format!("is of an older version, which {lacks}: upgrade it first");
            Err(Error::Refused(format!("the node {node:?} {problem}")))
        }
        None => Ok(()),
    }
}

fn ensure(holds: bool, field: &'static str, problem: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(invalid(field, problem())) }
}

fn invalid(field: &'static str, problem: impl Into<String>) -> Error {
    Error::Invalid { field, problem: problem.into() }
}
