//! Clients and their allowlists.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use rescind_verifier::{Allowlist, ScopeError, parse_cidr};
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{Changed, Error, change, credential::new_credential, find, invalid};
use crate::{
    app::App,
    clock::rfc3339,
    cluster::Receipt,
    model::{Actor, CertificateNames, Client, ClientId, Status},
};

const MAX_NAME_LENGTH: usize = 200;
const MAX_ALLOWLIST_ENTRIES: usize = 256;

const MAX_CERTIFICATES: usize = 64;

/// The properties of a new client.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewClient {
    pub name: String,
    #[serde(default)]
    pub allow: Vec<String>,
    #[serde(default)]
    pub certificates: Vec<String>,
    #[serde(default)]
    pub scopes: Vec<String>,
    /// When this client introspects tokens, it accepts them only from addresses on their clients' allowlists.
    #[serde(default)]
    pub enforces_allowlist: bool,
    /// Confirms that a network of prefix length 0 is intended.
    #[serde(default)]
    pub allow_any: bool,
}

/// A change of an allowlist.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowChange {
    #[serde(default)]
    pub add: Vec<String>,
    #[serde(default)]
    pub remove: Vec<String>,
    /// Confirms that every address may call: by an empty list, or by a network of prefix length 0.
    #[serde(default)]
    pub allow_any: bool,
}

/// A change of whether a client enforces the allowlists of the tokens that it introspects.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnforcementChange {
    pub enforces_allowlist: bool,
}

/// A client, as the admin API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct ClientView {
    pub client_id: ClientId,
    pub name: String,
    pub allow: Vec<String>,
    pub certificates: Vec<String>,
    pub scopes: Vec<String>,
    pub enforces_allowlist: bool,
    pub status: Status,
    pub created_at: String,
    /// The receipt of the change that had this result.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub receipt: Option<Receipt>,
}

/// A new client, with its first secret. The secret is shown only here.
#[derive(Serialize, Deserialize)]
pub struct CreatedClient {
    pub client_id: ClientId,
    pub name: String,
    pub allow: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub certificates: Vec<String>,
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub enforces_allowlist: bool,
    pub status: Status,
    pub api_key: String,
    pub api_secret: String,
}

/// Whether a client may be used from an address.
#[derive(Debug, Serialize, Deserialize)]
pub struct AddressCheck {
    pub client_id: ClientId,
    pub address: IpAddr,
    pub allowed: bool,
    /// The entries that contain the address. An empty allowlist allows it without an entry.
    pub entries: Vec<String>,
}

/// Creates a client with its first credential.
///
/// # Errors
///
/// [`Error::Invalid`] for a field; [`Error::Store`] if the change or its propagation fails.
pub async fn create_client(app: &Arc<App>, new: NewClient) -> Result<CreatedClient, Error> {
    let allowlist = allowlist("allow", &new.allow, new.allow_any)?;
    let certificates = certificate_names("certificates", &new.certificates)?;
    let scopes = new.scopes.join(" ").parse().map_err(|e: ScopeError| invalid("scopes", e.to_string()))?;
    let (credential, secret) = new_credential(app, None);
    let client = Client {
        id: 0,
        name: checked_name(&new.name)?,
        status: Status::Active,
        generation: 0,
        revision: 0,
        allowlist,
        certificates,
        scopes,
        enforces_allowlist: new.enforces_allowlist,
        created_at: app.clock.now(),
        credentials: vec![credential],
    };
    let origin = app.audit.origin(Actor::Operator, None);
    let create = async move |app: Arc<App>| app.create_client(client, origin).await.map(Ok::<_, Infallible>);
    let log = |_: &App, client: &Client, _| info!(client = client.id, "client created");
    let Ok((client, _)) = app.commit(create, log).await?;
    let api_key = client.credentials.first().map(|c| c.api_key.clone()).unwrap_or_default();
    let ClientView { client_id, name, allow, certificates, scopes, enforces_allowlist, status, .. } =
        view(&client);
    Ok(CreatedClient {
        client_id,
        name,
        allow,
        certificates,
        scopes,
        enforces_allowlist,
        status,
        api_key,
        api_secret: secret.expose().to_owned(),
    })
}

/// Returns every client that was not deleted.
///
/// # Errors
///
/// If the store is unavailable.
pub async fn clients(app: &App) -> Result<Vec<ClientView>, Error> {
    Ok(app.store.clients().await?.iter().map(view).collect())
}

/// Returns one client.
///
/// # Errors
///
/// If there is no such client, or the store is unavailable.
pub async fn client(app: &App, id: ClientId) -> Result<ClientView, Error> {
    Ok(view(&find(app, id).await?))
}

/// Suspends a client and revokes all its tokens.
///
/// # Errors
///
/// If there is no such client, or the change or its propagation fails.
pub async fn suspend(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let rule = |client: &mut Client| {
        client.status = Status::Suspended;
        client.generation += 1;
        Ok(())
    };
    changed_view(change(app, id, "client suspended", rule).await?)
}

/// Lets a suspended client log in again. Its earlier tokens stay revoked.
///
/// # Errors
///
/// As [`suspend`].
pub async fn resume(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let rule = |client: &mut Client| {
        client.status = Status::Active;
        Ok(())
    };
    changed_view(change(app, id, "client resumed", rule).await?)
}

/// Revokes all tokens of a client.
///
/// # Errors
///
/// As [`suspend`].
pub async fn logout(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let rule = |client: &mut Client| {
        client.generation += 1;
        Ok(())
    };
    changed_view(change(app, id, "client logged out", rule).await?)
}

/// Deletes a client and revokes its credentials and tokens.
///
/// # Errors
///
/// As [`suspend`].
pub async fn delete(app: &Arc<App>, id: ClientId) -> Result<ClientView, Error> {
    let now = app.clock.now();
    let rule = move |client: &mut Client| {
        client.status = Status::Deleted;
        client.generation += 1;
        for credential in &mut client.credentials {
            credential.revoked_at.get_or_insert(now);
        }
        Ok(())
    };
    changed_view(change(app, id, "client deleted", rule).await?)
}

/// Changes a client's allowlist.
///
/// # Errors
///
/// As [`suspend`]; also if an entry is invalid, or every address would be allowed without `allow_any`.
pub async fn change_allowlist(
    app: &Arc<App>,
    id: ClientId,
    wanted: AllowChange,
) -> Result<ClientView, Error> {
    let add = allowlist("add", &wanted.add, wanted.allow_any)?;
    let remove = allowlist("remove", &wanted.remove, true)?;
    let rule = move |client: &mut Client| {
        let before = &client.allowlist;
        if let Some(missing) = remove.entries().iter().find(|net| !before.entries().contains(net)) {
            return Err(invalid("remove", format!("{missing} is not on the allowlist")));
        }
        let kept = before.entries().iter().filter(|net| !remove.entries().contains(net));
        let after: Allowlist = kept.chain(add.entries()).copied().collect();
        if after.is_empty() && !before.is_empty() && !wanted.allow_any {
            let problem = "this would leave no entry, and an empty allowlist lets every address call: say so with allow_any (--allow-any)";
            return Err(Error::Refused(problem.into()));
        }
        check_length("add", after.entries().len())?;
        client.allowlist = after;
        Ok(())
    };
    changed_view(change(app, id, "allowlist changed", rule).await?)
}

/// Changes whether a client enforces the allowlists of the tokens that it introspects.
///
/// # Errors
///
/// As [`suspend`].
pub async fn change_enforcement(
    app: &Arc<App>,
    id: ClientId,
    wanted: EnforcementChange,
) -> Result<ClientView, Error> {
    let rule = move |client: &mut Client| {
        client.enforces_allowlist = wanted.enforces_allowlist;
        Ok(())
    };
    changed_view(change(app, id, "enforcement of allowlists changed", rule).await?)
}

/// Returns whether a client may be used from an address, and which entries contain the address.
///
/// # Errors
///
/// If the address is invalid, there is no such client, or the store is unavailable.
pub async fn check_address(app: &App, id: ClientId, address: &str) -> Result<AddressCheck, Error> {
    let address: IpAddr = address.parse().map_err(|_| {
        invalid("address", format!("{address:?} is not an IP address such as 203.0.113.7 or 2001:db8::1"))
    })?;
    let address = address.to_canonical();
    let client = find(app, id).await?;
    let entries = client.allowlist.entries().iter().filter(|net| net.contains(&address));
    Ok(AddressCheck {
        client_id: id,
        address,
        allowed: client.allowlist.permits(Some(address)),
        entries: entries.map(ToString::to_string).collect(),
    })
}

pub(super) fn checked_name(name: &str) -> Result<String, Error> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > MAX_NAME_LENGTH || name.chars().any(moves_others) {
        return Err(invalid(
            "name",
            format!(
                "expected 1 to {MAX_NAME_LENGTH} characters, no control characters and no marks of direction among them"
            ),
        ));
    }
    Ok(name.to_owned())
}

/// Whether a character can move the text around it in a list or a log: a control character, a separator of lines or
/// paragraphs, or one of Unicode's `Bidi_Control` (UAX #9 §2).
fn moves_others(c: char) -> bool {
    let turns =
        matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

fn allowlist(field: &'static str, texts: &[String], allow_any: bool) -> Result<Allowlist, Error> {
    check_length(field, texts.len())?;
    let entries: Result<Vec<IpNet>, _> = texts.iter().map(|text| parse_cidr(text)).collect();
    let entries = entries.map_err(|e| invalid(field, e.to_string()))?;
    if let Some(any) = entries.iter().find(|net| net.prefix_len() == 0 && !allow_any) {
        return Err(invalid(
            field,
            format!("{any} lets every address of its kind call: say so with allow_any (--allow-any)"),
        ));
    }
    Ok(Allowlist::from_iter(entries))
}

fn check_length(field: &'static str, entries: usize) -> Result<(), Error> {
    if entries > MAX_ALLOWLIST_ENTRIES {
        return Err(invalid(
            field,
            format!("an allowlist has at most {MAX_ALLOWLIST_ENTRIES} entries: use wider networks"),
        ));
    }
    Ok(())
}

pub(super) fn changed_view(changed: Changed<()>) -> Result<ClientView, Error> {
    Ok(ClientView { receipt: Some(changed.receipt), ..view(&changed.client) })
}

fn view(client: &Client) -> ClientView {
    ClientView {
        client_id: client.id,
        name: client.name.clone(),
        allow: client.allowlist.entries().iter().map(ToString::to_string).collect(),
        certificates: client.certificates.iter().map(ToString::to_string).collect(),
        scopes: client.scopes.iter().map(str::to_owned).collect(),
        enforces_allowlist: client.enforces_allowlist,
        status: client.status,
        created_at: rfc3339(client.created_at),
        receipt: None,
    }
}

pub(super) fn certificate_names(field: &'static str, texts: &[String]) -> Result<CertificateNames, Error> {
    check_number(field, texts.len())?;
    let names: Result<CertificateNames, _> = texts.iter().map(|text| text.parse()).collect();
    names.map_err(|e| invalid(field, e.to_string()))
}

pub(super) fn check_number(field: &'static str, names: usize) -> Result<(), Error> {
    if names > MAX_CERTIFICATES {
        return Err(invalid(field, format!("a client is bound to at most {MAX_CERTIFICATES} names")));
    }
    Ok(())
}
