//! `rescind client`

mod allow;
mod create;
mod list;
mod usage;

use std::str::FromStr;

use clap::{ArgAction, Subcommand, builder::BoolishValueParser};
use rescind_admin::{
    CertificateChange, ClientView, EnforcementChange, LifetimeChange, NewName, NewSuspension, ResourceChange,
    ScopeChange,
};
use rescind_base::model::Status;
use rescind_node::config::Span;
use serde::Serialize;
use serde_json::json;

use super::{
    Context, Failure,
    backend::Backend,
    lookup::{ClientRef, called},
    output::{Output, facts, list, prose},
};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Create a client with its first API key and secret
    Create(create::Create),
    /// List clients
    List(list::List),
    /// Show one client
    Show {
        /// Id or name
        client: ClientRef,
    },
    /// Show how often a client was used within 30 days, and when and from where last
    Usage(usage::Usage),
    /// Give a client another name
    #[command(after_help = "Example:\n  rescind client rename billing billing-eu")]
    Rename {
        /// Id or name
        client: ClientRef,
        /// The new name, for people
        name: String,
    },
    /// The scopes that a client's tokens may have
    #[command(subcommand)]
    Scope(ScopeCommand),
    /// Revoke all tokens of a client, and refuse its logins until it is resumed
    #[command(
        after_help = "Example:\n  rescind client suspend billing --for 2h --reason \"key in a public repository\""
    )]
    Suspend {
        /// Id or name
        client: ClientRef,
        /// Time after which the client is resumed, within a minute, such as 2h [default: never]
        #[arg(long = "for", value_name = "DURATION")]
        lasts: Option<Span>,
        /// Why, for people: `client show` and the audit log show it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let a suspended client log in again
    Resume {
        /// Id or name
        client: ClientRef,
    },
    /// Delete a client, and revoke its credentials and tokens
    Delete {
        /// Id or name
        client: ClientRef,
    },
    /// Revoke all tokens of a client
    Logout {
        /// Id or name
        client: ClientRef,
    },
    /// A client's allowlist: the addresses that it may call from
    #[command(subcommand)]
    Allow(allow::AllowCommand),
    /// Change whether a client accepts each token that it introspects only from the addresses in the answer's `allow`
    EnforcesAllowlist {
        /// Id or name
        client: ClientRef,
        #[arg(value_parser = BoolishValueParser::new(), action = ArgAction::Set, value_name = "yes|no")]
        enforces: bool,
    },
    /// Change after what time the answers expire when a client introspects tokens: for software that keeps answers
    IntrospectLifetime {
        /// Id or name
        client: ClientRef,
        /// A duration; 0s: the answers have no `exp`; off: they expire when the token does
        #[arg(value_name = "DURATION|off")]
        lifetime: Lifetime,
    },
    /// The certificates, one of which a client must show
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// The APIs that a client's tokens may be for, by their URIs. If it loses one, all its tokens are revoked
    #[command(subcommand)]
    Resource(ResourceCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum ResourceCommand {
    /// Add resources. The first ones take the place of tokens.audience
    Add {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "URI")]
        resources: Vec<String>,
    },
    /// Remove resources. Without any, tokens are for tokens.audience again
    Remove {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "URI")]
        resources: Vec<String>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Lifetime(Option<Span>);

impl FromStr for Lifetime {
    type Err = String;

    fn from_str(text: &str) -> Result<Lifetime, String> {
        match text {
            "off" => Ok(Lifetime(None)),
            text => text.parse().map(|span| Lifetime(Some(span))).map_err(|e| format!("{e}, or off")),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ScopeCommand {
    /// Add scopes
    Add {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
    },
    /// Remove scopes, from the client's tokens too
    Remove {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "SCOPE")]
        scopes: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Bind the client to certificates by names, such as dns:api.example.com or
    /// uri:spiffe://example.com/api
    Add {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove names
    Remove {
        /// Id or name
        client: ClientRef,
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Confirm that no name may be left, so that the client needs no certificate
        #[arg(long)]
        unbind: bool,
    },
}

pub(super) fn run(command: ClientCommand, context: &Context) -> Result<(), Failure> {
    let output = context.output;
    let make = matches!(command, ClientCommand::Create { .. });
    context.with_backend(make, async |backend| match command {
        ClientCommand::Create(create) => create::run(create, backend, context).await,
        ClientCommand::List(list) => list::run(list, backend, output).await,
        ClientCommand::Usage(wanted) => usage::run(wanted, backend, output).await,
        ClientCommand::Allow(command) => allow::run(command, backend, output).await,
        ClientCommand::Show { client } => {
            let client = client.find(backend).await?;
            output.data(&client, shown)
        }
        ClientCommand::Rename { client, name } => {
            let client = client.find(backend).await?;
            change(backend, &client, "name", &NewName { name }, output).await
        }
        ClientCommand::Scope(command) => {
            let (client, change_of_scopes) = match command {
                ScopeCommand::Add { client, scopes } => (client, ScopeChange { add: scopes, remove: vec![] }),
                ScopeCommand::Remove { client, scopes } => {
                    (client, ScopeChange { add: vec![], remove: scopes })
                }
            };
            let client = client.find(backend).await?;
            change(backend, &client, "scopes", &change_of_scopes, output).await
        }
        ClientCommand::Suspend { client, lasts, reason } => {
            let client = client.find(backend).await?;
            output.confirm(&format!(
                "All tokens of {} will end, and it cannot log in until it is resumed.",
                called(&client)
            ))?;
            let path = format!("/clients/{}/suspend", client.client_id);
            let client: ClientView = backend.post(&path, &NewSuspension { lasts, reason }).await?;
            let until = client.suspended_until.as_ref();
            let until = until.map(|at| format!(" until within a minute after {at}")).unwrap_or_default();
            acted(client, &format!("suspended{until}; all its tokens are refused"), output)
        }
        ClientCommand::Resume { client } => {
            let client = client.find(backend).await?;
            act(backend, &client, "resume", "resumed; it may log in again", output).await
        }
        ClientCommand::Logout { client } => {
            let client = client.find(backend).await?;
            let question = format!(
                "All tokens of {} will end. This cannot be undone; it may log in again.",
                called(&client)
            );
            output.confirm(&question)?;
            act(backend, &client, "logout", "logged out; all its tokens are refused", output).await
        }
        ClientCommand::Delete { client } => {
            let client = client.find(backend).await?;
            let question = format!(
                "The credentials and all tokens of {} will end. This cannot be undone.",
                called(&client)
            );
            output.confirm(&question)?;
            let client = backend.delete(&format!("/clients/{}", client.client_id)).await?;
            acted(client, "deleted; all its tokens are refused", output)
        }
        ClientCommand::EnforcesAllowlist { client, enforces } => {
            let client = client.find(backend).await?;
            let wanted = EnforcementChange { enforces_allowlist: enforces };
            change(backend, &client, "enforces-allowlist", &wanted, output).await
        }
        ClientCommand::IntrospectLifetime { client, lifetime } => {
            let client = client.find(backend).await?;
            let wanted = LifetimeChange { introspect_lifetime: lifetime.0 };
            change(backend, &client, "introspect-lifetime", &wanted, output).await
        }
        ClientCommand::Resource(command) => {
            let (client, wanted) = match command {
                ResourceCommand::Add { client, resources } => {
                    (client, ResourceChange { add: resources, remove: vec![] })
                }
                ResourceCommand::Remove { client, resources } => {
                    (client, ResourceChange { add: vec![], remove: resources })
                }
            };
            let client = client.find(backend).await?;
            change(backend, &client, "resources", &wanted, output).await
        }
        ClientCommand::Certificate(command) => {
            let (client, wanted) = match command {
                CertificateCommand::Add { client, names } => {
                    (client, CertificateChange { add: names, ..CertificateChange::default() })
                }
                CertificateCommand::Remove { client, names, unbind } => {
                    (client, CertificateChange { remove: names, unbind, ..CertificateChange::default() })
                }
            };
            let client = client.find(backend).await?;
            change(backend, &client, "certificates", &wanted, output).await
        }
    })
}

/// Changes a client, and shows it.
async fn change(
    backend: &mut Backend,
    client: &ClientView,
    what: &str,
    wanted: &impl Serialize,
    output: &Output,
) -> Result<(), Failure> {
    let changed: ClientView = backend.post(&format!("/clients/{}/{what}", client.client_id), wanted).await?;
    output.done(&format!("{} was changed", called(&changed)), &changed, shown)
}

async fn act(
    backend: &mut Backend,
    client: &ClientView,
    action: &str,
    done: &str,
    output: &Output,
) -> Result<(), Failure> {
    acted(backend.post(&format!("/clients/{}/{action}", client.client_id), &json!({})).await?, done, output)
}

fn acted(client: ClientView, done: &str, output: &Output) -> Result<(), Failure> {
    let ClientView { client_id, name, .. } = &client;
    prose(&format!("Client {client_id} \"{name}\" {done}."));
    if let Some(receipt) = &client.receipt {
        prose(&format!("{receipt}."));
    }
    if output.json { output.done(&format!("client {client_id} {done}"), &client, shown) } else { Ok(()) }
}

fn shown(c: &ClientView) -> String {
    let enforces = if c.enforces_allowlist { "allowlists of the tokens that it introspects" } else { "-" };
    let answers = match c.introspect_lifetime {
        None => "-".into(),
        Some(lifetime) if lifetime.seconds() == 0 => "of introspection have no exp".into(),
        Some(lifetime) => format!("of introspection expire after {lifetime}"),
    };
    let rows = [
        ("client", Some(c.client_id.to_string())),
        ("name", Some(c.name.clone())),
        ("status", Some(status_text(c.status).into())),
        ("until", c.suspended_until.clone()),
        ("reason", c.suspension_reason.clone()),
        ("allow", Some(list(&c.allow, "any address"))),
        ("certificates", Some(list(&c.certificates, "none needed"))),
        ("scopes", Some(list(&c.scopes, "-"))),
        ("resources", Some(list(&c.resources, "tokens.audience"))),
        ("enforces", Some(enforces.into())),
        ("answers", Some(answers)),
        ("created", Some(c.created_at.clone())),
        ("last used", c.last_used_at.clone()),
    ];
    facts(14, rows.into_iter().filter_map(|(name, value)| Some((name, value?))))
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Deleted => "deleted",
    }
}
