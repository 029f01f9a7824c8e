//! New clients.

use std::sync::Arc;

use rescind_base::model::{Client, ClientId, Status, Suspension};
use rescind_node::{app::App, config::Span};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::ToSchema;

use super::{
    Error, INTROSPECT_LIFETIME, RESOURCES,
    allowlist::allowlist,
    client::{ClientView, certificate_names, checked_client_name, checked_scopes, client, resources, view},
    credential::new_credential,
    ensure_nodes_know,
};

/// The properties of a new client.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewClient {
    pub name: String,
    #[serde(default)]
    pub allow: Vec<String>,
    #[serde(default)]
    pub certificates: Vec<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// URIs of the APIs that the client's tokens may be for. None: the default audience.
    #[serde(default)]
    pub resources: Vec<String>,
    /// When this client introspects tokens, it accepts them only from addresses on their clients' allowlists.
    #[serde(default)]
    pub enforces_allowlist: bool,
    /// For how long this client may keep introspection's answers: for software that keeps them until their `exp`. Zero:
    /// the answers have none.
    #[serde(default)]
    pub introspect_lifetime: Option<Span>,
    /// Confirms that a network of prefix length 0 is intended.
    #[serde(default)]
    pub allow_any: bool,
}

/// A new client, with its first secret. The secret is shown only here.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct CreatedClient {
    pub client_id: ClientId,
    pub name: String,
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub certificates: Vec<String>,
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub enforces_allowlist: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub introspect_lifetime: Option<Span>,
    pub status: Status,
    pub api_key: String,
    pub api_secret: String,
}

/// A client that was created, or one of its name that was there.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EnsuredClient {
    /// It was created.
    Created(CreatedClient),
    /// It was there, and is as it was.
    There(ClientView),
}

/// Creates a client with its first credential.
///
/// # Errors
///
/// [`Error::Invalid`] for a field; [`Error::Store`] if the change or its propagation fails.
pub async fn create_client(app: &Arc<App>, new: NewClient) -> Result<CreatedClient, Error> {
    create(app, new, false).await?.map_err(|_| Error::Refused("there is a client of this name".into()))
}

/// Creates a client with its first credential, unless there is one of its name.
///
/// # Errors
///
/// As [`create_client`].
pub async fn ensure_client(app: &Arc<App>, new: NewClient) -> Result<EnsuredClient, Error> {
    match create(app, new, true).await? {
        Ok(created) => Ok(EnsuredClient::Created(created)),
        Err(there) => client(app, there).await.map(EnsuredClient::There),
    }
}

/// The inner error is the id of a client of this name, if one is looked for.
async fn create(
    app: &Arc<App>,
    new: NewClient,
    if_absent: bool,
) -> Result<Result<CreatedClient, ClientId>, Error> {
    let allowlist = allowlist("allow", &new.allow, new.allow_any)?;
    let certificates = certificate_names("certificates", &new.certificates)?;
    let scopes = checked_scopes("scopes", &new.scopes)?;
    let resources = resources("resources", &new.resources)?;
    if !resources.is_empty() {
        ensure_nodes_know(app, RESOURCES, "does not know resources").await?;
    }
    if new.introspect_lifetime.is_some() {
        ensure_nodes_know(app, INTROSPECT_LIFETIME, "ignores introspect_lifetime").await?;
    }
    let (credential, secret) = new_credential(app, None);
    let client = Client {
        id: 0,
        name: checked_client_name(&new.name)?,
        status: Status::Active,
        suspension: Suspension::default(),
        generation: 0,
        tokens_revoked_at: None,
        revision: 0,
        allowlist,
        certificates,
        scopes,
        resources,
        enforces_allowlist: new.enforces_allowlist,
        introspect_lifetime: new.introspect_lifetime.map(Span::seconds),
        created_at: app.clock.now(),
        credentials: vec![credential],
    };
    let origin = app.by_operator();
    let create = async move |app: Arc<App>| app.create_client(client, if_absent, origin).await;
    let log = |_: &App, client: &Client, _| info!(client = client.id, "client created");
    let client = match app.commit(create, log).await? {
        Ok((client, _)) => client,
        Err(there) => return Ok(Err(there)),
    };
    let api_key = client.credentials.first().map(|c| c.api_key.clone()).unwrap_or_default();
    let ClientView {
        client_id,
        name,
        allow,
        certificates,
        scopes,
        resources,
        enforces_allowlist,
        introspect_lifetime,
        status,
        ..
    } = view(&client);
    Ok(Ok(CreatedClient {
        client_id,
        name,
        allow,
        certificates,
        scopes,
        resources,
        enforces_allowlist,
        introspect_lifetime,
        status,
        api_key,
        api_secret: secret.expose().to_owned(),
    }))
}
