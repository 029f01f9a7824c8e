//! The networks that a client may call from.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use rescind_base::model::{Client, ClientId};
use rescind_node::app::App;
use rescind_verifier::{Allowlist, contains, parse_cidr};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Error, change,
    client::{ClientView, changed_view},
    ensure, find, invalid,
};

/// The most entries of an allowlist.
pub const MAX_ALLOWLIST_ENTRIES: usize = 10_000;

/// A change of an allowlist.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AllowChange {
    pub add: Vec<String>,
    pub remove: Vec<String>,
    /// The whole list, in the place of the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replace: Option<Vec<String>>,
    /// Confirms that every address may call: by an empty list, or by a network of prefix length 0.
    pub allow_any: bool,
}

/// Whether a client may be used from an address.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AddressCheck {
    pub client_id: ClientId,
    #[schema(value_type = String)]
    pub address: IpAddr,
    pub allowed: bool,
    /// The entries that contain the address. An empty allowlist allows it without an entry.
    pub entries: Vec<String>,
}

/// Changes a client's allowlist.
///
/// # Errors
///
/// As [`suspend`](super::suspend); also if an entry is invalid, or every address would be allowed without `allow_any`.
pub async fn change_allowlist(
    app: &Arc<App>,
    id: ClientId,
    wanted: AllowChange,
) -> Result<ClientView, Error> {
    let add = allowlist("add", &wanted.add, wanted.allow_any)?;
    let remove = allowlist("remove", &wanted.remove, true)?;
    let replace =
        wanted.replace.as_ref().map(|list| allowlist("replace", list, wanted.allow_any)).transpose()?;
    ensure(replace.is_none() || (add.is_empty() && remove.is_empty()), "replace", || {
        "expected alone, without add and remove".into()
    })?;
    let rule = move |client: &mut Client| {
        let before = &client.allowlist;
        let mut after: BTreeSet<_> = before.entries().iter().copied().collect();
        if let Some(missing) = remove.entries().iter().find(|net| !after.remove(net)) {
            return Err(invalid("remove", format!("{missing} is not on the allowlist")));
        }
        after.extend(add.entries());
        let after = replace.unwrap_or_else(|| after.into_iter().collect());
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

/// Returns whether a client may be used from an address, and which entries contain the address.
///
/// # Errors
///
/// If the address is invalid, there is no such client, or the store is unavailable.
pub async fn check_address(app: &App, id: ClientId, address: Option<&str>) -> Result<AddressCheck, Error> {
    let missing = || invalid("address", "expected one in the query, as ?address=203.0.113.7");
    let address = address.ok_or_else(missing)?;
    let address: IpAddr = address.parse().map_err(|_| {
        invalid("address", format!("{address:?} is not an IP address such as 203.0.113.7 or 2001:db8::1"))
    })?;
    let address = address.to_canonical();
    let client = find(app, id).await?;
    let entries = client.allowlist.entries().iter().filter(|net| contains(net, address));
    Ok(AddressCheck {
        client_id: id,
        address,
        allowed: client.allowlist.permits(Some(address)),
        entries: entries.map(ToString::to_string).collect(),
    })
}

pub(super) fn allowlist(field: &'static str, texts: &[String], allow_any: bool) -> Result<Allowlist, Error> {
    check_length(field, texts.len())?;
    let entries: Result<Vec<IpNet>, _> = texts.iter().map(|text| parse_cidr(text)).collect();
    let entries = entries.map_err(|e| invalid(field, e.to_string()))?;
    if let Some(any) = entries.iter().find(|net| net.prefix_len() == 0 && !allow_any) {
        let problem = "lets every address of its kind call: say so with allow_any (--allow-any)";
        return Err(invalid(field, format!("{any} {problem}")));
    }
    Ok(Allowlist::from_iter(entries))
}

fn check_length(field: &'static str, entries: usize) -> Result<(), Error> {
    ensure(entries <= MAX_ALLOWLIST_ENTRIES, field, || {
        format!("an allowlist has at most {MAX_ALLOWLIST_ENTRIES} entries: use wider networks")
    })
}
