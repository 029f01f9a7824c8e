//! The commands that show and change what the service holds.

use std::io::Read;

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;

use super::{
    Failure,
    backend::Backend,
    output::{Output, list, table},
    runtime,
};
use crate::{
    admin::{
        AddressCheck, AllowChange, ClientView, CreatedClient, CreatedCredential, CreatedVerifier,
        CredentialView, KeyRotation, KeyView, NewClient, NewCredential, NewVerifier, Rotation, StatusView,
        TokenView, VerifierView,
    },
    config::{Config, Environment, Span},
    model::{ClientId, Status},
};

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Create a client with its first API key and secret
    Create {
        /// For people
        #[arg(long)]
        name: String,
        /// An address or network it may call from; none: from anywhere
        #[arg(long, value_name = "CIDR")]
        allow: Vec<String>,
        /// What its tokens may do
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<String>,
        /// Take a network of prefix length 0 for what it is
        #[arg(long)]
        allow_any: bool,
    },
    /// List every client
    List,
    /// Show one client
    Show { id: ClientId },
    /// Refuse a client and take back all it holds, until resumed
    Suspend { id: ClientId },
    /// Let a suspended client log in again
    Resume { id: ClientId },
    /// End a client, its credentials and all it holds
    Delete { id: ClientId },
    /// Take back all that a client holds
    Logout { id: ClientId },
    /// Where a client may call from
    #[command(subcommand)]
    Allow(AllowCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum AllowCommand {
    /// Add addresses or networks
    Add {
        id: ClientId,
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Take a network of prefix length 0 for what it is
        #[arg(long)]
        allow_any: bool,
    },
    /// Remove addresses or networks
    Remove {
        id: ClientId,
        #[arg(required = true, value_name = "CIDR")]
        entries: Vec<String>,
        /// Let the list become empty: every address may call
        #[arg(long)]
        allow_any: bool,
    },
    /// Tell whether an address may call
    Check { id: ClientId, address: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Give a client one more API key and secret
    Create {
        client_id: ClientId,
        /// When it ends by itself, such as 90d
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Span>,
    },
    /// List a client's credentials
    List { client_id: ClientId },
    /// Give a new API key and secret, and let the old one end after an overlap
    Rotate {
        api_key: String,
        /// For how long the old one still works [default: 24h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<Span>,
    },
    /// End a credential and everything born of it, at once
    Revoke { api_key: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the signing keys
    List,
    /// Sign with a new key; the old one verifies until its last token has run out
    Rotate {
        /// HS256, EdDSA or ES256 [default: as now]
        #[arg(long)]
        algorithm: Option<String>,
        /// For how long it is published before it signs [default: 10m; 0s for HS256]
        #[arg(long, value_name = "DURATION")]
        publish_ahead: Option<Span>,
    },
    /// Refuse every token signed with a key, at once
    Retire { kid: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum VerifierCommand {
    /// Let another process follow this service, and print its token
    Create {
        /// For people
        #[arg(long)]
        name: String,
        /// Give it HS256 keys as well. It could then sign tokens itself: EdDSA or ES256 keys (`rescind
        /// key rotate --algorithm EdDSA`) need no such trust
        #[arg(long)]
        share_hs256: bool,
    },
    /// List every verifier
    List,
    /// Let a verifier follow no more
    Revoke { id: u64 },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Tell what a token says and whether it stands
    Inspect {
        /// The token, or - to read it from standard input
        token: String,
    },
}

pub(super) fn client(
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
        ClientCommand::Create { name, allow, scope, allow_any } => {
            let new = NewClient { name, allow, scopes: scope, allow_any };
            let created: CreatedClient = backend.post("/admin/v1/clients", &new).await?;
            let listen = config.server.listen;
            output.data(&created, |c| {
                format!(
                    r#"Client {} "{}" created.

  API key     {}
  API secret  {}
              (shown this once, and never again)

Log in with:

  curl -s http://{listen}/auth/login -H "Content-Type: application/json" -d '{{"username":"{}","password":"{}"}}'"#,
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
            if output.json { show(client, output) } else { Ok(()) }
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
    })
}

pub(super) fn credential(
    command: CredentialCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    if let CredentialCommand::Revoke { api_key } = &command {
        output.confirm(&format!("Credential {api_key} and every token born of it will end."))?;
    }
    with_backend(config, environment, false, async |backend| match command {
        CredentialCommand::Create { client_id, expires_in } => {
            let path = format!("/admin/v1/clients/{client_id}/credentials");
            created(backend.post(&path, &NewCredential { expires_in }).await?, output)
        }
        CredentialCommand::List { client_id } => {
            let path = format!("/admin/v1/clients/{client_id}/credentials");
            let credentials: Vec<CredentialView> = backend.get(&path).await?;
            output.data(&credentials, |credentials| {
                let rows = credentials.iter().map(|c| {
                    let end = c.revoked_at.as_ref().or(c.expires_at.as_ref());
                    [
                        c.api_key.clone(),
                        c.status.clone(),
                        c.created_at.clone(),
                        end.cloned().unwrap_or("-".into()),
                    ]
                });
                table(["API KEY", "STATUS", "CREATED", "ENDS"], rows)
            })
        }
        CredentialCommand::Rotate { api_key, overlap } => {
            let path = format!("/admin/v1/credentials/{}/rotate", percent_encoded(&api_key));
            created(backend.post(&path, &Rotation { overlap }).await?, output)
        }
        CredentialCommand::Revoke { api_key } => {
            let path = format!("/admin/v1/credentials/{}/revoke", percent_encoded(&api_key));
            let credential: CredentialView = backend.post(&path, &json!({})).await?;
            output.data(&credential, |c| format!("{} revoked; every token born of it is refused", c.api_key))
        }
    })
}

pub(super) fn key(
    command: KeyCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    if let KeyCommand::Retire { kid } = &command {
        output.confirm(&format!("Every token signed with {kid} will be refused."))?;
    }
    with_backend(config, environment, false, async |backend| {
        let keys: Vec<KeyView> = match command {
            KeyCommand::List => backend.get("/admin/v1/keys").await?,
            KeyCommand::Rotate { algorithm, publish_ahead } => {
                backend.post("/admin/v1/keys/rotate", &KeyRotation { algorithm, publish_ahead }).await?
            }
            KeyCommand::Retire { kid } => {
                backend.post(&format!("/admin/v1/keys/{}/retire", percent_encoded(&kid)), &json!({})).await?
            }
        };
        output.data(&keys, |keys| {
            let rows = keys.iter().map(|k| {
                let retires = k.retires_at.clone().unwrap_or("-".into());
                [k.kid.clone(), k.algorithm.clone(), k.status.clone(), k.signs_from.clone(), retires]
            });
            table(["KID", "ALGORITHM", "STATUS", "SIGNS FROM", "RETIRES"], rows)
        })
    })
}

pub(super) fn verifier(
    command: VerifierCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    if let VerifierCommand::Revoke { id } = &command {
        output.confirm(&format!("Verifier {id} will follow no more, and refuse everything soon after."))?;
    }
    let list = |verifiers: &Vec<VerifierView>| {
        let rows = verifiers.iter().map(|v| {
            let keys = if v.share_hs256 { "all, HS256 as well" } else { "public" };
            [v.verifier_id.to_string(), v.name.clone(), keys.to_owned(), v.created_at.clone()]
        });
        table(["ID", "NAME", "KEYS", "CREATED"], rows)
    };
    with_backend(config, environment, false, async |backend| match command {
        VerifierCommand::Create { name, share_hs256 } => {
            let new = NewVerifier { name, share_hs256 };
            let created: CreatedVerifier = backend.post("/admin/v1/verifiers", &new).await?;
            output.data(&created, |v| {
                format!(
                    "Verifier {} \"{}\" created.\n\n  token  {}\n         (shown this once, and never again)\n\nIt follows http://{}",
                    v.verifier_id, v.name, v.token, config.server.management_listen
                )
            })
        }
        VerifierCommand::List => output.data(&backend.get("/admin/v1/verifiers").await?, list),
        VerifierCommand::Revoke { id } => {
            output.data(&backend.delete(&format!("/admin/v1/verifiers/{id}")).await?, list)
        }
    })
}

pub(super) fn token(
    command: TokenCommand,
    config: &Config,
    environment: &Environment,
    output: &Output,
) -> Result<(), Failure> {
    let TokenCommand::Inspect { mut token } = command;
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token).context("standard input")?;
    }
    with_backend(config, environment, false, async |backend| {
        let body = json!({ "token": token.trim() });
        let token: TokenView = backend.post("/admin/v1/tokens/inspect", &body).await?;
        output.data(&token, |t| {
            let number = |n: Option<u64>| n.map(|n| n.to_string());
            let rows = [
                ("verdict", Some(t.verdict.clone())),
                ("kind", t.kind.clone()),
                ("client", number(t.client_id)),
                ("session", number(t.session)),
                ("pair", number(t.pair)),
                ("generation", number(t.generation)),
                ("scopes", t.kind.is_some().then(|| list(&t.scopes, "-"))),
                ("issued", t.issued_at.clone()),
                ("expires", t.expires_at.clone()),
            ];
            let rows = rows.into_iter().filter_map(|(name, value)| Some(format!("{name:<11}{}\n", value?)));
            rows.collect()
        })
    })
}

pub(super) fn status(config: &Config, output: &Output) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let data_dir = &config.server.data_dir;
        let Some(mut server) = Backend::running(data_dir).await? else {
            return Err(Failure::NotReady(format!("not running: no server has {}", data_dir.display())));
        };
        let status: StatusView = server.get("/admin/v1/status").await?;
        output.data(&status, |s| {
            format!(
                "{}\nversion             {}\nstore               {}\nclients             {}\nsessions in memory  {}",
                if s.ready { "ready" } else { "draining" },
                s.version,
                s.store,
                s.clients,
                s.sessions_in_memory
            )
        })?;
        if status.ready { Ok(()) } else { Err(Failure::NotReady("not ready".into())) }
    })
}

fn with_backend(
    config: &Config,
    environment: &Environment,
    make: bool,
    command: impl AsyncFnOnce(&mut Backend) -> Result<(), Failure>,
) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut backend = Backend::open(config, environment, make).await?;
        command(&mut backend).await
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
    if output.json { show(client, output) } else { Ok(()) }
}

fn show(client: ClientView, output: &Output) -> Result<(), Failure> {
    output.data(&client, |c| {
        format!(
            "client   {}\nname     {}\nstatus   {}\nallow    {}\nscopes   {}\ncreated  {}",
            c.client_id,
            c.name,
            status_text(c.status),
            list(&c.allow, "any address"),
            list(&c.scopes, "-"),
            c.created_at
        )
    })
}

fn created(credential: CreatedCredential, output: &Output) -> Result<(), Failure> {
    output.data(&credential, |c| {
        let mut text = format!(
            "Credential of client {} created.\n\n  API key     {}\n  API secret  {}\n              (shown this once, and never again)\n",
            c.client_id, c.api_key, c.api_secret
        );
        if let Some(at) = &c.expires_at {
            text.push_str(&format!("\nIt ends at {at}.\n"));
        }
        if let Some(old) = &c.replaces {
            let at = old.expires_at.as_deref().unwrap_or("-");
            text.push_str(&format!("\n{} ends at {at}.\n", old.api_key));
        }
        text
    })
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Active => "active",
        Status::Suspended => "suspended",
        Status::Deleted => "deleted",
    }
}

/// A text as one segment of a path, or as a value in a query (RFC 3986 §2.1).
fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
