//! `rescind client`

use clap::{ArgAction, Subcommand, builder::BoolishValueParser};
use serde_json::json;

use super::{
    Failure,
    admin::{percent_encoded, with_backend},
    backend::Backend,
    output::{Output, list, table},
};
use crate::{
    admin::{
        AddressCheck, AllowChange, CertificateChange, ClientView, CreatedClient, EnforcementChange, NewClient,
    },
    config::{Config, Environment},
    model::{ClientId, Status},
};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Create a client with its first API key and secret
    Create {
        /// A name for people
        #[arg(long)]
        name: String,
        /// An address or network that the client may call from [default: any address]
        #[arg(long, value_name = "CIDR")]
        allow: Vec<String>,
        /// A name that the client's certificate must have, such as dns:api.example.com or uri:spiffe://example.com/api;
        /// of several, one suffices [default: no certificate needed]
        #[arg(long, value_name = "NAME")]
        certificate: Vec<String>,
        /// A scope that the client's tokens may have
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<String>,
        /// When this client introspects tokens, it accepts each only from the addresses in the answer's `allow`
        #[arg(long)]
        enforces_allowlist: bool,
        /// Confirm that a network of prefix length 0 is intended
        #[arg(long)]
        allow_any: bool,
    },
    /// List every client
    List,
    /// Show one client
    Show { id: ClientId },
    /// Revoke all tokens of a client, and refuse its logins until it is resumed
    Suspend { id: ClientId },
    /// Let a suspended client log in again
    Resume { id: ClientId },
    /// Delete a client, and revoke its credentials and tokens
    Delete { id: ClientId },
    /// Revoke all tokens of a client
    Logout { id: ClientId },
    /// A client's allowlist: the addresses that it may call from
    #[command(subcommand)]
    Allow(AllowCommand),
    /// Change whether a client accepts each token that it introspects only from the addresses in the answer's `allow`
    EnforcesAllowlist {
        id: ClientId,
        #[arg(value_parser = BoolishValueParser::new(), action = ArgAction::Set, value_name = "yes|no")]
        enforces: bool,
    },
    /// The certificates of which a client must show one
    #[command(subcommand)]
    Certificate(CertificateCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum AllowCommand {
    /// Add addresses or networks
    Add {
        id: ClientId,
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Confirm that a network of prefix length 0 is intended
        #[arg(long)]
        allow_any: bool,
    },
    /// Remove addresses or networks
    Remove {
        id: ClientId,
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Confirm that the list may become empty, so that every address may call
        #[arg(long)]
        allow_any: bool,
    },
    /// Show whether the client may call from an address
    Check { id: ClientId, address: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum CertificateCommand {
    /// Bind the client to certificates by names, such as dns:api.example.com or
    /// uri:spiffe://example.com/api
    Add {
        id: ClientId,
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// Remove names
    Remove {
        id: ClientId,
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Confirm that no name may be left, so that the client needs no certificate
        #[arg(long)]
        unbind: bool,
    },
}

pub(super) fn run(
    command: ClientCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let make = matches!(command, ClientCommand::Create { .. });
    if let ClientCommand::Delete { id } = command {
        output.confirm(&format!("Client {id}, its credentials and all its tokens will end."))?;
    }
    with_backend(config, environment, make, async |backend| match command {
        ClientCommand::Create { name, allow, certificate, scope, enforces_allowlist, allow_any } => {
            let (certificates, scopes) = (certificate, scope);
            let new = NewClient { name, allow, certificates, scopes, enforces_allowlist, allow_any };
            let created: CreatedClient = backend.post("/admin/v1/clients", &new).await?;
            let listen = config.server.listen;
            output.data(&created, |c| {
                let (scheme, certificate) = match c.certificates.as_slice() {
                    [] => ("http", ""),
                    _ => ("https", " --cert certificate.pem --key key.pem"),
                };
                format!(
                    r#"Client {} "{}" created.

  API key     {}
  API secret  {}
              (shown this once, and never again)

Log in with:

  curl -s{certificate} {scheme}://{listen}/auth/login -H "Content-Type: application/json" -d '{{"username":"{}","password":"{}"}}'"#,
                    c.client_id, c.name, c.api_key, c.api_secret, c.api_key, c.api_secret
                )
            })
        }
        ClientCommand::List => {
            let clients: Vec<ClientView> = backend.get("/admin/v1/clients").await?;
            output.data(&clients, |clients| {
                let rows = clients.iter().map(|c| {
                    let status = status_text(c.status).to_owned();
                    let allow = list(&c.allow, "any address");
                    [
                        c.client_id.to_string(),
                        c.name.clone(),
                        status,
                        allow,
                        list(&c.scopes, "-"),
                        c.created_at.clone(),
                    ]
                });
                table(["ID", "NAME", "STATUS", "ALLOW", "SCOPES", "CREATED"], rows)
            })
        }
        ClientCommand::Show { id } => show(backend.get(&format!("/admin/v1/clients/{id}")).await?, output),
        ClientCommand::Suspend { id } => {
            act(backend, id, "suspend", "suspended; all its tokens are refused", output).await
        }
        ClientCommand::Resume { id } => {
            act(backend, id, "resume", "resumed; it may log in again", output).await
        }
        ClientCommand::Logout { id } => {
            act(backend, id, "logout", "logged out; all its tokens are refused", output).await
        }
        ClientCommand::Delete { id } => {
            let client: ClientView = backend.delete(&format!("/admin/v1/clients/{id}")).await?;
            output.prose(&format!("Client {id} deleted; all its tokens are refused."));
            acted(client, output)
        }
        ClientCommand::Allow(AllowCommand::Add { id, entries, allow_any }) => {
            let change = AllowChange { add: entries, remove: vec![], allow_any };
            show(backend.post(&format!("/admin/v1/clients/{id}/allow"), &change).await?, output)
        }
        ClientCommand::Allow(AllowCommand::Remove { id, entries, allow_any }) => {
            let change = AllowChange { add: vec![], remove: entries, allow_any };
            show(backend.post(&format!("/admin/v1/clients/{id}/allow"), &change).await?, output)
        }
        ClientCommand::Allow(AllowCommand::Check { id, address }) => {
            let path = format!("/admin/v1/clients/{id}/allow/check?address={}", percent_encoded(&address));
            let check: AddressCheck = backend.get(&path).await?;
            output.data(&check, |c| {
                let AddressCheck { address, entries, .. } = c;
                match (c.allowed, entries.as_slice()) {
                    (false, _) => format!("no: {address} is on no entry of client {id}'s allowlist"),
                    (true, []) => format!("yes: client {id} has no allowlist, every address may call"),
                    (true, entries) => format!("yes: {address} is on {}", entries.join(", ")),
                }
            })
        }
        ClientCommand::EnforcesAllowlist { id, enforces } => {
            let change = EnforcementChange { enforces_allowlist: enforces };
            show(backend.post(&format!("/admin/v1/clients/{id}/enforces-allowlist"), &change).await?, output)
        }
        ClientCommand::Certificate(CertificateCommand::Add { id, names }) => {
            let change = CertificateChange { add: names, ..CertificateChange::default() };
            show(backend.post(&format!("/admin/v1/clients/{id}/certificates"), &change).await?, output)
        }
        ClientCommand::Certificate(CertificateCommand::Remove { id, names, unbind }) => {
            let change = CertificateChange { remove: names, unbind, ..CertificateChange::default() };
            show(backend.post(&format!("/admin/v1/clients/{id}/certificates"), &change).await?, output)
        }
    })
}

async fn act(
    backend: &mut Backend,
    id: ClientId,
    action: &str,
    done: &str,
    output: &Output,
) -> Result<(), Failure> {
    let client: ClientView = backend.post(&format!("/admin/v1/clients/{id}/{action}"), &json!({})).await?;
    output.prose(&format!("Client {id} {done}."));
    acted(client, output)
}

fn acted(client: ClientView, output: &Output) -> Result<(), Failure> {
    if let Some(receipt) = &client.receipt {
        output.prose(&format!("{receipt}."));
    }
    if output.json { show(client, output) } else { Ok(()) }
}

fn show(client: ClientView, output: &Output) -> Result<(), Failure> {
    output.data(&client, |c| {
        format!(
            "client        {}\nname          {}\nstatus        {}\nallow         {}\ncertificates  {}\nscopes        {}\nenforces      {}\ncreated       {}",
            c.client_id,
            c.name,
            status_text(c.status),
            list(&c.allow, "any address"),
            list(&c.certificates, "none needed"),
            list(&c.scopes, "-"),
            if c.enforces_allowlist { "allowlists of the tokens that it introspects" } else { "-" },
            c.created_at
        )
    })
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Deleted => "deleted",
    }
}
