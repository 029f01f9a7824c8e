//! A change of several of a client's properties at once.

use std::sync::Arc;

use rescind_base::model::{Client, ClientId};
use rescind_node::app::App;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error,
    allowlist::allowlist,
    change,
    client::{ClientView, certificate_names, changed_view, checked_client_name, checked_scopes},
};

/// New values of a client's properties. What is absent stays as it is, and a list replaces the list before.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientUpdate {
    pub name: Option<String>,
    pub allow: Option<Vec<String>>,
    pub certificates: Option<Vec<String>>,
    pub scopes: Option<Vec<String>>,
    pub enforces_allowlist: Option<bool>,
    /// Confirms that every address may call: by an empty list, or by a network of prefix length 0.
    pub allow_any: bool,
    /// Confirms that no certificate name is left, so that the client needs no certificate.
    pub unbind: bool,
}

/// Changes a client's properties.
///
/// # Errors
///
/// If a value is invalid or needs to be confirmed, there is no such client, or the change or its propagation fails.
pub async fn update_client(app: &Arc<App>, id: ClientId, wanted: ClientUpdate) -> Result<ClientView, Error> {
    let ClientUpdate { name, allow, certificates, scopes, enforces_allowlist, allow_any, unbind } = wanted;
    let name = name.as_deref().map(checked_client_name).transpose()?;
    let allow = allow.map(|texts| allowlist("allow", &texts, allow_any)).transpose()?;
    let certificates = certificates.map(|texts| certificate_names("certificates", &texts)).transpose()?;
    let scopes = scopes.map(|texts| checked_scopes("scopes", &texts)).transpose()?;
    let rule = move |client: &mut Client| {
        if allow.as_ref().is_some_and(|after| after.is_empty() && !client.allowlist.is_empty() && !allow_any)
        {
            let problem = "allow: an empty allowlist lets every address call: say so with allow_any";
            return Err(Error::Refused(problem.into()));
        }
        if certificates
            .as_ref()
            .is_some_and(|after| after.is_empty() && !client.certificates.is_empty() && !unbind)
        {
            let problem =
                "certificates: without a name the client would need no certificate: say so with unbind";
            return Err(Error::Refused(problem.into()));
        }
        client.name = name.unwrap_or_else(|| client.name.clone());
        client.allowlist = allow.unwrap_or_else(|| client.allowlist.clone());
        client.certificates = certificates.unwrap_or_else(|| client.certificates.clone());
        client.scopes = scopes.unwrap_or_else(|| client.scopes.clone());
        client.enforces_allowlist = enforces_allowlist.unwrap_or(client.enforces_allowlist);
        Ok(())
    };
    changed_view(change(app, id, "client updated", rule).await?)
}
