//! The commands for credentials, keys, verifiers, tokens and the status.

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
        ClusterView, CreatedCredential, CreatedVerifier, CredentialView, KeyRotation, KeyView, NewCredential,
        NewVerifier, Rotation, StatusView, TokenView, VerifierView,
    },
    app::ClockView,
    config::{Config, Environment, Span},
    model::ClientId,
};

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Give a client one more API key and secret
    Create {
        client_id: ClientId,
        /// Time after which the credential expires, such as 90d [default: never]
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Span>,
    },
    /// List a client's credentials
    List { client_id: ClientId },
    /// Create a new API key and secret; the old ones expire after an overlap
    Rotate {
        #[arg(value_parser = api_key)]
        api_key: String,
        /// For how long the old ones stay valid [default: 24h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<Span>,
    },
    /// Revoke a credential and every token of its sessions, at once
    Revoke {
        #[arg(value_parser = api_key)]
        api_key: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the signing keys
    List,
    /// Sign with a new key; the old one verifies until its last token has expired
    Rotate {
        /// HS256, EdDSA or ES256 [default: as now]
        #[arg(long)]
        algorithm: Option<String>,
        /// For how long the new key is published before it signs [default: 10m; 0s for HS256]
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
        /// A name for people
        #[arg(long)]
        name: String,
        /// Give the verifier HS256 keys too, with which it could also sign tokens. EdDSA or ES256 keys (`rescind
        /// key rotate --algorithm EdDSA`) need no such trust
        #[arg(long)]
        share_hs256: bool,
    },
    /// List every verifier
    List,
    /// Revoke a verifier: it can no longer follow this service
    Revoke { id: u64 },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Show what a token contains and whether it is valid
    Inspect {
        /// The token, or - to read it from standard input
        token: String,
    },
}

/// Accepts API keys only: a secret given in the place of a key would be shown in questions and answers.
fn api_key(text: &str) -> Result<String, &'static str> {
    if text.starts_with("rk_") {
        Ok(text.to_owned())
    } else {
        Err("expected an API key, which begins with rk_")
    }
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
                "{}{}\nversion             {}\nstore               {}\nclients             {}\nsessions in memory  {}\nattached verifiers  {}{}{}",
                if s.ready { "ready" } else { "not ready" },
                s.refused.as_ref().map(|why| format!(": {why}")).unwrap_or_default(),
                s.version,
                s.store,
                s.clients,
                s.sessions_in_memory,
                s.attached_verifiers,
                clock(&s.clock),
                s.cluster.as_ref().map(cluster).unwrap_or_default()
            )
        })?;
        if status.ready { Ok(()) } else { Err(Failure::NotReady("not ready".into())) }
    })
}

/// The row about the clock. Empty: the clock is not in doubt.
fn clock(clock: &ClockView) -> String {
    let by = |seconds: i64| match seconds {
        0.. => format!("{seconds} s ahead"),
        ..0 => format!("{} s behind", seconds.unsigned_abs()),
    };
    let database = clock.ahead_of_database_seconds.map(|ahead| format!(", {} of the database's", by(ahead)));
    match clock.in_doubt {
        true => {
            format!(
                "\nclock               in doubt: {}{}",
                by(clock.ahead_seconds),
                database.unwrap_or_default()
            )
        }
        false => String::new(),
    }
}

fn cluster(cluster: &ClusterView) -> String {
    let rows = cluster.nodes.iter().map(|n| {
        let this = if n.node == cluster.node { " (this one)" } else { "" };
        [
            n.node.to_string(),
            format!("{}{this}", n.name),
            n.acknowledged.to_string(),
            n.lag.to_string(),
            format!("{} ms ago", n.heard_ms_ago),
        ]
    });
    format!(
        "\nlease               {} ms\nchanges             {} of {} applied\nhistory             {}\ncommits wait for    {}\n\n{}",
        cluster.lease_ms,
        cluster.applied,
        cluster.head,
        cluster.history,
        match cluster.synchronous_standby_names.as_str() {
            "" => "no stand-by",
            names => names,
        },
        table(["NODE", "NAME", "ACKNOWLEDGED", "LAG", "HEARD"], rows)
    )
}

pub(super) fn with_backend(
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

/// Encodes a text as one segment of a path, or as a value in a query (RFC 3986 §2.1).
pub(super) fn percent_encoded(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
