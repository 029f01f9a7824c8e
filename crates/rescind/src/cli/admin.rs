//! The commands for keys, verifiers, tokens and the status.

use std::io::Read;

use anyhow::Context as _;
use clap::Subcommand;
use rescind_admin::{
    ClusterView, CreatedVerifier, ExpiringView, KeyRotation, KeyView, NewVerifier, StatusView, TokenView,
    VerifierView,
};
use rescind_base::files::data_folder;
use rescind_node::{
    app::ClockView,
    config::{Config, Span},
};
use serde_json::json;

use super::{
    Context, Failure,
    backend::{Backend, percent_encoded},
    lookup::id,
    output::{Output, facts, list, table},
    runtime,
};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// List the signing keys
    List,
    /// Sign with a new key; the old one verifies until its last token has expired
    Rotate {
        /// HS256, ES256, Ed25519 or EdDSA, which is Ed25519 by its older name [default: as now]
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
        /// Give the verifier HS256 keys too, with which it could also sign tokens. Ed25519 or ES256 keys (`rescind
        /// key rotate --algorithm Ed25519`) need no such trust
        #[arg(long)]
        share_hs256: bool,
    },
    /// List every verifier
    List,
    /// Revoke a verifier: it can no longer follow this service
    Revoke {
        #[arg(value_parser = id("verifier list"))]
        id: u64,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Show what a token contains and whether it is valid
    Inspect {
        /// The token, or - to read it from standard input
        token: String,
    },
}

pub(super) fn key(command: KeyCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    if let KeyCommand::Retire { kid } = &command {
        output.confirm(&format!("Every token signed with {kid} will be refused. This cannot be undone."))?;
    }
    let list = |keys: &Vec<KeyView>| {
        let rows = keys.iter().map(|k| {
            let retires = k.retires_at.clone().unwrap_or("-".into());
            [k.kid.clone(), k.algorithm.clone(), k.status.clone(), k.signs_from.clone(), retires]
        });
        table(["KID", "ALGORITHM", "STATUS", "SIGNS FROM", "RETIRES"], rows)
    };
    context.with_backend(false, async |backend| match command {
        KeyCommand::List => output.data(&backend.get("/keys").await?, list),
        KeyCommand::Rotate { algorithm, publish_ahead } => {
            let keys = backend.post("/keys/rotate", &KeyRotation { algorithm, publish_ahead }).await?;
            output.done("the signing key was rotated", &keys, list)
        }
        KeyCommand::Retire { kid } => {
            let keys = backend.post(&format!("/keys/{}/retire", percent_encoded(&kid)), &json!({})).await?;
            output.done(&format!("key {kid} was retired"), &keys, list)
        }
    })
}

pub(super) fn verifier(command: VerifierCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    if let VerifierCommand::Revoke { id } = &command {
        output.confirm(&format!(
            "Verifier {id} will follow no more, and refuse everything soon after. This cannot be undone."
        ))?;
    }
    let list = |verifiers: &Vec<VerifierView>| {
        let rows = verifiers.iter().map(|v| {
            let keys = if v.share_hs256 { "all, HS256 as well" } else { "public" };
            [v.verifier_id.to_string(), v.name.clone(), keys.to_owned(), v.created_at.clone()]
        });
        table(["ID", "NAME", "KEYS", "CREATED"], rows)
    };
    context.with_backend(false, async |backend| match command {
        VerifierCommand::Create { name, share_hs256 } => {
            let new = NewVerifier { name, share_hs256 };
            // Before the change, after which nothing may come between the token and its reader.
            let status: StatusView = backend.get("/status").await?;
            let created: CreatedVerifier = backend.post("/verifiers", &new).await?;
            let config = &context.config;
            let url = status.management_url.unwrap_or_else(|| config.management_url(config.server.management_listen));
            let done = format!("verifier {} was created and its token is lost, so revoke it", created.verifier_id);
            output.secret(&done, &created, |v| {
                format!(
                    "Verifier {} \"{}\" created.\n\n  token  {}\n         (shown this once, and never again)\n\nIt follows {url}",
                    v.verifier_id, v.name, v.token
                )
            })
        }
        VerifierCommand::List => output.data(&backend.get("/verifiers").await?, list),
        VerifierCommand::Revoke { id } => {
            let left = backend.delete(&format!("/verifiers/{id}")).await?;
            output.done(&format!("verifier {id} was revoked"), &left, list)
        }
    })
}

pub(super) fn token(command: TokenCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    let TokenCommand::Inspect { mut token } = command;
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token).context("standard input")?;
    }
    context.with_backend(false, async |backend| {
        let body = json!({ "token": token.trim() });
        let token: TokenView = backend.inquire("/tokens/inspect", &body).await?;
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
                ("audience", t.kind.is_some().then(|| list(&t.audience, "-"))),
                ("issued", t.issued_at.clone()),
                ("expires", t.expires_at.clone()),
            ];
            facts(11, rows.into_iter().filter_map(|(name, value)| Some((name, value?))))
        })
    })
}

pub(super) fn status(config: &Config, output: &Output) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let data_dir = &config.server.data_dir;
        let Some(mut server) = Backend::running(data_dir).await? else {
            let folder = data_dir.display();
            return Err(Failure::NotReady(match data_folder::is_in_use(data_dir) {
                true => format!(
                    "running, but nobody answers at {folder}/rescind.sock: the server is starting or stopping, or its \
                     socket was removed, which it makes again within seconds"
                ),
                false => format!("not running: no server has {folder}"),
            }));
        };
        let status: StatusView = server.get("/status").await?;
        output.data(&status, |s| {
            let rows = [
                ("version", s.version.clone()),
                ("listens on", s.url.clone().unwrap_or("-".into())),
                ("management on", s.management_url.clone().unwrap_or("-".into())),
                ("store", s.store.clone()),
                ("clients", s.clients.to_string()),
                ("sessions in memory", s.sessions_in_memory.to_string()),
                ("attached verifiers", s.attached_verifiers.to_string()),
            ];
            let expiring = s.expiring_credentials.as_ref().map(|ExpiringView { count, next_at }| {
                ("expiring", format!("{count} credentials within 30 days, the next at {next_at}"))
            });
            let unwritable = s.unwritable.as_ref().map(|why| ("cannot write", why.clone()));
            let clock = s.clock.in_doubt.then(|| ("clock", doubt(&s.clock)));
            format!(
                "{}{}\n{}{}",
                if s.ready { "ready" } else { "not ready" },
                s.lease_not_renewed
                    .as_ref()
                    .map(|why| format!(": the lease is not renewed: {why}"))
                    .unwrap_or_default(),
                facts(20, rows.into_iter().chain(expiring).chain(clock).chain(unwritable)),
                s.cluster.as_ref().map(cluster).unwrap_or_default()
            )
        })?;
        if status.ready { Ok(()) } else { Err(Failure::NotReady("not ready".into())) }
    })
}

fn doubt(clock: &ClockView) -> String {
    let by = |seconds: i64| match seconds {
        0.. => format!("{seconds} s ahead"),
        ..0 => format!("{} s behind", seconds.unsigned_abs()),
    };
    let database = clock.ahead_of_database_seconds.map(|ahead| format!(", {} of the database's", by(ahead)));
    format!("in doubt: {}{}", by(clock.ahead_seconds), database.unwrap_or_default())
}

fn cluster(cluster: &ClusterView) -> String {
    let stand_bys = match cluster.synchronous_standby_names.as_str() {
        "" => "no stand-by",
        names => names,
    };
    let about = [
        ("lease", format!("{} ms", cluster.lease_ms)),
        ("changes", format!("{} of {} applied", cluster.applied, cluster.head)),
        ("history", cluster.history.clone()),
        ("commits wait for", stand_bys.into()),
    ];
    let rows = cluster.nodes.iter().map(|n| {
        let this = if n.node == cluster.node { " (this one)" } else { "" };
        let (name, heard) = (format!("{}{this}", n.name), format!("{} ms ago", n.heard_ms_ago));
        [n.node.to_string(), name, n.acknowledged.to_string(), n.lag.to_string(), heard]
    });
    let nodes = table(["NODE", "NAME", "ACKNOWLEDGED", "LAG", "HEARD"], rows);
    format!("{}\n{nodes}", facts(20, about))
}
