//! `rescind client list`

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use rescind_admin::{ClientQuery, ClientSort, ClientView};
use rescind_base::model::Status;
use rescind_node::config::Span;
use serde::de::DeserializeOwned;

use super::{Backend, Failure, Output, status_text};
use crate::cli::{
    backend::percent_encoded,
    lookup::at_least,
    output::{first, prose, table},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind client list --stale 90d
  rescind client list --status suspended --sort name")]
pub(in crate::cli) struct List {
    /// Only clients with this in their name, in any case
    #[arg(long, value_name = "PART")]
    name: Option<String>,
    /// Only clients of this status
    #[arg(long, value_parser = one_of::<Status, 2>(["active", "suspended"]))]
    status: Option<Status>,
    /// Only clients that were not used for so long, such as 90d: no login, refresh nor verification
    #[arg(long, value_name = "DURATION")]
    stale: Option<Span>,
    /// The order: by id, by name, the oldest first, or those first that were used longest ago
    #[arg(long, default_value = "id", value_parser = one_of::<ClientSort, 4>(["id", "name", "created", "last-used"]))]
    sort: ClientSort,
    /// At most this many
    #[arg(long, value_name = "N", value_parser = at_least(1_usize))]
    limit: Option<usize>,
}

/// Reads one of these names, as the admin API reads it.
fn one_of<T, const N: usize>(names: [&'static str; N]) -> impl TypedValueParser<Value = T>
where
    T: DeserializeOwned + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value(name.into()))
}

pub(super) async fn run(list: List, backend: &mut Backend, output: &Output) -> Result<(), Failure> {
    let List { name, status, stale, sort, limit } = list;
    // One more is asked for, which tells whether there are more.
    let asked = ClientQuery {
        name,
        status,
        stale,
        sort,
        limit: limit.map(|limit| limit.saturating_add(1)),
        after: None,
    };
    let mut clients: Vec<ClientView> = backend.get(&path(&asked)?).await?;
    let more = limit.is_some_and(|limit| clients.len() > limit);
    clients.truncate(limit.unwrap_or(usize::MAX));
    output.data(&clients, |clients| {
        let rows = clients.iter().map(|c| {
            let (id, status) = (c.client_id.to_string(), status_text(c.status).to_owned());
            let (allow, scopes) = (first(&c.allow, 2, "any address"), first(&c.scopes, 4, "-"));
            let used = c.last_used_at.clone().unwrap_or("-".into());
            [id, c.name.clone(), status, used, allow, scopes, c.created_at.clone()]
        });
        table(["ID", "NAME", "STATUS", "LAST USED", "ALLOW", "SCOPES", "CREATED"], rows)
    })?;
    if more {
        prose("There are more: a higher --limit shows them.");
    }
    Ok(())
}

fn path(asked: &ClientQuery) -> Result<String, Failure> {
    let asked = serde_json::to_value(asked)?;
    let given = asked.as_object().into_iter().flatten().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", percent_encoded(&text))
    });
    Ok(format!("/clients?{}", given.collect::<Vec<_>>().join("&")))
}
