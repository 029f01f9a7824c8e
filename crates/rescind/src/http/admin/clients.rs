//! Operations on clients and their credentials.

use std::sync::Arc;

use hyper::Method;
use rescind_admin::{self as admin, CreatedClient, CreatedCredential};
use rescind_base::model::Role::{Operator, Viewer};
use rescind_node::app::App;
use serde::Deserialize;
use utoipa::ToSchema;

use super::operation::{
    Operation,
    Reach::{Clients, Everything},
};

/// Makes a handler of an operator's action. Its arguments are the path's one parameter (`id`, or `&name` for a text) and
/// the `input`.
macro_rules! act {
    ($action:ident()) => {
        |app: std::sync::Arc<rescind_node::app::App>, (), _: super::operation::Nothing| async move {
            rescind_admin::$action(&app).await
        }
    };
    ($action:ident(input)) => {
        |app: std::sync::Arc<rescind_node::app::App>, (), input| async move {
            rescind_admin::$action(&app, input).await
        }
    };
    ($action:ident(id)) => {
        |app: std::sync::Arc<rescind_node::app::App>, id: u64, _: super::operation::Nothing| async move {
            rescind_admin::$action(&app, id).await
        }
    };
    ($action:ident(id, input)) => {
        |app: std::sync::Arc<rescind_node::app::App>, id: u64, input| async move {
            rescind_admin::$action(&app, id, input).await
        }
    };
    ($action:ident(&name)) => {
        |app: std::sync::Arc<rescind_node::app::App>, name: String, _: super::operation::Nothing| async move {
            rescind_admin::$action(&app, &name).await
        }
    };
    ($action:ident(&name, input)) => {
        |app: std::sync::Arc<rescind_node::app::App>, name: String, input| async move {
            rescind_admin::$action(&app, &name, input).await
        }
    };
}
pub(super) use act;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Address {
    /// An IP address.
    #[schema(example = "203.0.113.7")]
    address: Option<String>,
}

pub(super) fn operations() -> Vec<Operation> {
    let new = |method, path, says, role| Operation::new(method, path, says, role, Clients);
    let reads = |path, says| new(Method::GET, path, says, Viewer);
    let changes = |method, path, says| new(method, path, says, Operator);
    let posts = |path, says| changes(Method::POST, path, says);
    let client = |created: &CreatedClient| format!("{}/clients/{}", super::PREFIX, created.client_id);
    let credential =
        |created: &CreatedCredential| format!("{}/credentials/{}", super::PREFIX, created.api_key);
    let check = |app: Arc<App>, id, Address { address }| async move {
        admin::check_address(&app, id, address.as_deref()).await
    };
    let every = |operation| Operation { reach: Everything, ..operation };
    vec![
        reads("/clients", ("listClients", "Lists the clients"))
            .pages(|app: Arc<App>, query| async move { admin::clients(&app, query).await }),
        every(posts("/clients", ("createClient", "Creates a client, with its first credential")))
            .creates(act!(create_client(input)), client),
        every(posts(
            "/clients/if-absent",
            ("ensureClient", "Creates a client, unless there is one of its name"),
        ))
        .acts(act!(ensure_client(input))),
        reads("/clients/{id}", ("showClient", "Shows a client")).versioned().acts(act!(client(id))),
        changes(
            Method::PATCH,
            "/clients/{id}",
            ("updateClient", "Changes those properties of a client that are given"),
        )
        .versioned()
        .acts(act!(update_client(id, input))),
        changes(
            Method::DELETE,
            "/clients/{id}",
            ("deleteClient", "Deletes a client, and revokes its credentials and tokens"),
        )
        .versioned()
        .acts(act!(delete(id))),
        posts("/clients/{id}/name", ("renameClient", "Renames a client"))
            .versioned()
            .acts(act!(rename(id, input))),
        posts(
            "/clients/{id}/scopes",
            ("changeScopes", "Adds scopes that a client's tokens may have, and removes others"),
        )
        .versioned()
        .acts(act!(change_scopes(id, input))),
        posts("/clients/{id}/suspend", ("suspendClient", "Suspends a client, and revokes all its tokens"))
            .versioned()
            .acts(act!(suspend(id, input))),
        posts("/clients/{id}/resume", ("resumeClient", "Lets a suspended client log in again"))
            .versioned()
            .acts(act!(resume(id))),
        posts("/clients/{id}/logout", ("logOutClient", "Revokes all tokens of a client"))
            .versioned()
            .acts(act!(logout(id))),
        posts(
            "/clients/{id}/allow",
            ("changeAllowlist", "Adds entries to a client's allowlist, and removes others"),
        )
        .versioned()
        .acts(act!(change_allowlist(id, input))),
        reads(
            "/clients/{id}/allow/check",
            ("checkAddress", "Says whether a client may call from an address"),
        )
        .acts(check),
        posts(
            "/clients/{id}/certificates",
            ("changeCertificates", "Changes the certificate names that a client is bound to"),
        )
        .versioned()
        .acts(act!(change_certificates(id, input))),
        posts(
            "/clients/{id}/resources",
            ("changeResources", "Changes the resources that a client's tokens may be for"),
        )
        .versioned()
        .acts(act!(change_resources(id, input))),
        posts(
            "/clients/{id}/enforces-allowlist",
            (
                "changeEnforcement",
                "Changes whether a client enforces the allowlists of the tokens that it introspects",
            ),
        )
        .versioned()
        .acts(act!(change_enforcement(id, input))),
        posts(
            "/clients/{id}/introspect-lifetime",
            ("changeLifetime", "Changes how long a client may keep introspection's answers"),
        )
        .versioned()
        .acts(act!(change_lifetime(id, input))),
        reads("/clients/{id}/uses", ("listUses", "Lists from where a client's credentials were used"))
            .acts(act!(uses(id))),
        reads(
            "/clients/{id}/usage",
            ("showUsage", "Shows how often a client was used, by hours, and when and from where last"),
        )
        .acts(act!(usage(id, input))),
        reads(
            "/clients/{id}/sessions",
            ("listSessions", "Lists the live sessions of a client, the newest first"),
        )
        .acts(act!(sessions(id, input))),
        changes(
            Method::DELETE,
            "/sessions/{id}",
            ("revokeSession", "Revokes a session, with all its tokens"),
        )
        .acts(act!(revoke_session(id))),
        reads(
            "/clients/{id}/credentials",
            ("listCredentials", "Lists a client's credentials, with the revoked ones"),
        )
        .acts(act!(credentials(id))),
        posts("/clients/{id}/credentials", ("createCredential", "Gives a client one more credential"))
            .creates(act!(create_credential(id, input)), credential),
        reads("/credentials/{api_key}", ("showCredential", "Shows a credential, and from where it was used"))
            .acts(act!(credential(&name))),
        posts("/credentials/{api_key}/expire", ("expireCredential", "Changes when a credential expires"))
            .acts(act!(expire_credential(&name, input))),
        posts("/credentials/{api_key}/note", ("noteCredential", "Notes where a credential's secret is kept"))
            .acts(act!(note_credential(&name, input))),
        every(posts(
            "/handovers",
            ("handOverSecret", "Makes a link by which somebody may read a credential's secret, once"),
        ))
        .acts(act!(hand_over(input))),
        posts(
            "/credentials/{api_key}/rotate",
            (
                "rotateCredential",
                "Gives a credential's client a new one, and lets the old one expire after an overlap",
            ),
        )
        .creates(act!(rotate_credential(&name, input)), credential),
        posts(
            "/credentials/{api_key}/revoke",
            ("revokeCredential", "Revokes a credential, and every token of its sessions"),
        )
        .acts(act!(revoke_credential(&name))),
    ]
}
