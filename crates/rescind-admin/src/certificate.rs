//! The certificates that a client is bound to.

use std::sync::Arc;

use rescind_base::model::{CertificateNames, Client, ClientId};
use rescind_node::app::App;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error, change,
    client::{ClientView, certificate_names, changed_view, check_number},
    invalid,
};

/// A change of the names that a client is bound to. Its certificate must have one of them.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CertificateChange {
    pub add: Vec<String>,
    pub remove: Vec<String>,
    /// Confirms that no name is left, so that the client needs no certificate.
    pub unbind: bool,
}

/// Changes the certificate names that a client is bound to.
///
/// # Errors
///
/// If a name is invalid, no name would be left without `unbind`, there is no such client, or the change or its
/// propagation fails.
pub async fn change_certificates(
    app: &Arc<App>,
    id: ClientId,
    wanted: CertificateChange,
) -> Result<ClientView, Error> {
    let add = certificate_names("add", &wanted.add)?;
    let remove = certificate_names("remove", &wanted.remove)?;
    let rule = move |client: &mut Client| {
        let before = &client.certificates;
        if let Some(missing) = remove.iter().find(|name| !before.contains(name)) {
            return Err(invalid("remove", format!("the client is not bound to {missing}")));
        }
        let kept = before.iter().filter(|name| !remove.contains(name));
        let after: CertificateNames = kept.chain(add.iter()).cloned().collect();
        if after.is_empty() && !before.is_empty() && !wanted.unbind {
            let problem = "this would leave no name, and the client would need no certificate: say so with unbind (--unbind)";
            return Err(Error::Refused(problem.into()));
        }
        check_number("add", after.len())?;
        client.certificates = after;
        Ok(())
    };
    changed_view(change(app, id, "certificates changed", rule).await?)
}
