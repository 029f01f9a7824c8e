//! `rescind client allow`

use anyhow::anyhow;
use clap::Subcommand;
use ipnet::IpNet;
use rescind_admin::{self as admin, AddressCheck, AllowChange, UseView};
use rescind_base::clock::Clock;
use rescind_node::config::Time;
use rescind_verifier::{Allowlist, parse_cidr};
use serde::Serialize;

use super::{Backend, ClientRef, ClientView, Failure, Output, called, change};
use crate::cli::{backend::percent_encoded, networks, output::table};

/// Addresses that were seen in this time are named before a change shuts them out, in seconds.
const LATELY: u64 = 24 * 3600;
/// The most of them that a question names.
const NAMED: usize = 10;

/// What is read as a list of networks.
const LISTS: &str = "Each CIDR is an address, a network, a range a-b, several of these between
commas, @FILE, or - for standard input. A file has them in lines, with # for
comments; a JSON array of strings and a geofeed (RFC 8805) are read too.
";

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum AllowCommand {
    /// Add addresses or networks
    #[command(after_help = format!("{LISTS}\nExamples:\n  rescind client allow add billing 203.0.113.0/24 2001:db8::/32\n  rescind client allow add billing @networks.txt\n  jq .ipv4 published.json | rescind client allow add billing -"))]
    Add {
        /// Id or name
        client: ClientRef,
        /// Addresses, networks, ranges, @FILE, or - for standard input
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Confirm that a network of prefix length 0 is intended
        #[arg(long)]
        allow_any: bool,
    },
    /// Replace the whole list
    #[command(after_help = format!("{LISTS}\nExample:\n  rescind client allow replace billing @networks.txt"))]
    Replace {
        /// Id or name
        client: ClientRef,
        /// Addresses, networks, ranges, @FILE, or - for standard input
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Confirm that a network of prefix length 0 is intended
        #[arg(long)]
        allow_any: bool,
    },
    /// Remove addresses or networks
    #[command(after_help = LISTS)]
    Remove {
        /// Id or name
        client: ClientRef,
        /// Addresses, networks, ranges, @FILE, or - for standard input
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Confirm that the list may become empty, so that every address may call
        #[arg(long)]
        allow_any: bool,
    },
    /// Show whether the client may call from an address, or what a new list would change. The exit code is 1 for no
    #[command(
        after_help = "Examples:\n  rescind client allow check billing 203.0.113.9\n  rescind client allow check billing --against new-networks.txt"
    )]
    Check {
        /// Id or name
        client: ClientRef,
        /// An address such as 203.0.113.9
        #[arg(required_unless_present = "against")]
        address: Option<String>,
        /// Show what this list would change, and which addresses it would shut out that the client was seen at
        #[arg(long, value_name = "FILE", conflicts_with = "address")]
        against: Option<String>,
    },
}

pub(super) async fn run(
    command: AllowCommand,
    backend: &mut Backend,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        AllowCommand::Add { client, entries, allow_any } => {
            let entries = networks::read(&entries)?;
            let client = client.find(backend).await?;
            let after = present(&client)?.entries().iter().chain(&entries).copied().collect();
            let add = texts(&entries);
            make(backend, &client, after, AllowChange { add, allow_any, ..AllowChange::default() }, output)
                .await
        }
        AllowCommand::Replace { client, entries, allow_any } => {
            let entries = networks::read(&entries)?;
            let client = client.find(backend).await?;
            let replace = Some(texts(&entries));
            let after = entries.into_iter().collect();
            make(
                backend,
                &client,
                after,
                AllowChange { replace, allow_any, ..AllowChange::default() },
                output,
            )
            .await
        }
        AllowCommand::Remove { client, entries, allow_any } => {
            let entries = networks::read(&entries)?;
            let client = client.find(backend).await?;
            let after =
                present(&client)?.entries().iter().filter(|net| !entries.contains(net)).copied().collect();
            let remove = texts(&entries);
            make(backend, &client, after, AllowChange { remove, allow_any, ..AllowChange::default() }, output)
                .await
        }
        AllowCommand::Check { client, address: Some(address), .. } => {
            let client = client.find(backend).await?;
            check(backend, &client, &address, output).await
        }
        AllowCommand::Check { client, against, .. } => {
            let list = against.map(|file| if file == "-" { file } else { format!("@{file}") });
            let new: Allowlist = networks::read(list.as_slice())?.into_iter().collect();
            let client = client.find(backend).await?;
            compare(backend, &client, &new, output).await
        }
    }
}

/// Makes a change, after a question if it shuts out addresses that the client was seen at lately.
async fn make(
    backend: &mut Backend,
    client: &ClientView,
    after: Allowlist,
    wanted: AllowChange,
    output: &Output,
) -> Result<(), Failure> {
    let since = Clock::System.now().saturating_sub(LATELY);
    let mut shut_out = shut_out(backend, client, &after).await?;
    shut_out.retain(|used| used.last_at.parse::<Time>().is_ok_and(|at| at.seconds() >= since));
    if !shut_out.is_empty() {
        let named = shut_out.iter().take(NAMED).filter_map(|used| Some(used.address?.to_string()));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match shut_out.len().checked_sub(NAMED) {
            Some(more @ 1..) => format!(" and {more} more"),
            _ => String::new(),
        };
        let now = if client.allow.is_empty() { "Every address may call now. " } else { "" };
        output.confirm(&format!(
            "{now}This shuts out addresses from which {} logged in or refreshed in the last 24 h: {named}{more}.",
            called(client)
        ))?;
    }
    change(backend, client, "allow", &wanted, output).await
}

/// From where the client was seen, where the present list permits it and the other does not.
async fn shut_out(
    backend: &mut Backend,
    client: &ClientView,
    after: &Allowlist,
) -> Result<Vec<UseView>, Failure> {
    let uses: Vec<UseView> = backend.get(&format!("/clients/{}/uses", client.client_id)).await?;
    Ok(admin::shut_out(uses, &present(client)?, after))
}

async fn check(
    backend: &mut Backend,
    client: &ClientView,
    address: &str,
    output: &Output,
) -> Result<(), Failure> {
    let path = format!("/clients/{}/allow/check?address={}", client.client_id, percent_encoded(address));
    let check: AddressCheck = backend.get(&path).await?;
    output.data(&check, |c| {
        let AddressCheck { address, entries, .. } = c;
        match (c.allowed, entries.as_slice()) {
            (false, _) => format!("no: {address} is on no entry of {}'s allowlist", called(client)),
            (true, []) => format!("yes: {} has no allowlist, every address may call", called(client)),
            (true, entries) => format!("yes: {address} is on {}", entries.join(", ")),
        }
    })?;
    if check.allowed { Ok(()) } else { Err(Failure::No) }
}

/// What a new list would change.
#[derive(Debug, Serialize)]
struct Comparison {
    client_id: u64,
    added: Vec<String>,
    removed: Vec<String>,
    shut_out: Vec<UseView>,
}

async fn compare(
    backend: &mut Backend,
    client: &ClientView,
    new: &Allowlist,
    output: &Output,
) -> Result<(), Failure> {
    let old = present(client)?;
    let only = |these: &Allowlist, those: &Allowlist| {
        let only = these.entries().iter().filter(|net| those.entries().binary_search(net).is_err());
        only.map(ToString::to_string).collect::<Vec<_>>()
    };
    let comparison = Comparison {
        client_id: client.client_id,
        added: only(new, &old),
        removed: only(&old, new),
        shut_out: shut_out(backend, client, new).await?,
    };
    output.data(&comparison, |c| {
        let signed = |sign: char, these: &[String]| -> String {
            these.iter().map(|net| format!("{sign} {net}\n")).collect()
        };
        let seen = match c.shut_out.is_empty() {
            true => format!("{} was seen at no address that this would shut out.", capital(&called(client))),
            false => {
                let rows = c.shut_out.iter().map(|used| {
                    let address = used.address.map(|address| address.to_string()).unwrap_or_default();
                    [address, used.times.to_string(), used.last_at.clone(), used.api_key.clone()]
                });
                let table = table(["ADDRESS", "TIMES", "LAST", "API KEY"], rows);
                format!(
                    "{} was seen at addresses that this would shut out:\n{table}",
                    capital(&called(client))
                )
            }
        };
        format!("{}{}{seen}", signed('+', &c.added), signed('-', &c.removed))
    })?;
    if comparison.shut_out.is_empty() { Ok(()) } else { Err(Failure::No) }
}

fn present(client: &ClientView) -> Result<Allowlist, Failure> {
    let entries: Result<Vec<IpNet>, _> = client.allow.iter().map(|net| parse_cidr(net)).collect();
    Ok(entries.map_err(|e| anyhow!("{e}"))?.into_iter().collect())
}

fn texts(networks: &[IpNet]) -> Vec<String> {
    networks.iter().map(ToString::to_string).collect()
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
