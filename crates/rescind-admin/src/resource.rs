//! The resources that a client's tokens may be for.

use std::sync::Arc;

use rescind_base::model::{Client, ClientId};
use rescind_node::app::App;
use rescind_verifier::Resources;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error, RESOURCES, change,
    client::{ClientView, changed_view, resources},
    ensure_nodes_know, invalid,
};

/// A change of a client's resources.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceChange {
    pub add: Vec<String>,
    pub remove: Vec<String>,
}

/// Changes the resources that a client's tokens may be for. If the client loses one, all its tokens are revoked: a token
/// names its resources itself, to APIs that ask nobody.
///
/// # Errors
///
/// If a resource is invalid, or to be removed and not there; if there is no such client, or the change or its
/// propagation fails.
pub async fn change_resources(
    app: &Arc<App>,
    id: ClientId,
    wanted: ResourceChange,
) -> Result<ClientView, Error> {
    let add = resources("add", &wanted.add)?;
    let remove = resources("remove", &wanted.remove)?;
    if !add.is_empty() {
        ensure_nodes_know(app, RESOURCES, "does not know resources").await?;
    }
    let default = app.memory.issuer.profile().audience().to_owned();
    let rule = move |client: &mut Client| {
        let before = &client.resources;
        if let Some(missing) = remove.iter().find(|resource| !before.contains(resource)) {
            return Err(invalid("remove", format!("{missing} is not one of the client's resources")));
        }
        let kept = before.iter().filter(|resource| !remove.contains(resource));
        let after = Resources::new(kept.chain(add.iter())).map_err(|e| invalid("add", e.to_string()))?;
        let has_lost = if before.is_empty() {
            !after.names(&default, &default)
        } else {
            !before.iter().all(|resource| after.names(resource, &default))
        };
        client.generation += u64::from(has_lost);
        client.resources = after;
        Ok(())
    };
    changed_view(change(app, id, "resources changed", rule).await?)
}
