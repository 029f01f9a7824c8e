//! `rescind credential`

use std::io::{Read, stdin};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use rescind_admin::{
    CreatedCredential, CreatedHandover, CredentialView, Expiry, LastView, NewCredential, NewHandover,
    NewNote, Rotation, StatusView, UsedCredential,
};
use rescind_node::config::{Span, Time};
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Context, Failure,
    backend::percent_encoded,
    lookup::ClientRef,
    output::{Output, facts, table},
};

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Give a client one more API key and secret
    #[command(after_help = "Example:\n  rescind credential create billing --expires-in 90d")]
    Create {
        /// Id or name
        client: ClientRef,
        /// Time after which the credential expires, such as 90d [default: never]
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Span>,
    },
    /// List a client's credentials
    List {
        /// Id or name
        client: ClientRef,
    },
    /// Show a credential: whose it is, from where it is used, and when last
    #[command(after_help = "Example:\n  rescind credential show rk_…")]
    Show {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
    },
    /// Create a new API key and secret; the old ones expire after an overlap
    #[command(after_help = "Example:\n  rescind credential rotate rk_… --overlap 7d")]
    Rotate {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
        /// For how long the old ones stay valid [default: 24h]
        #[arg(long, value_name = "DURATION")]
        overlap: Option<Span>,
    },
    /// Change when a credential expires. From then on it cannot log in or refresh
    #[command(
        after_help = "Examples:\n  rescind credential expire rk_… --in 7d\n  rescind credential expire rk_… --at 2027-01-31"
    )]
    Expire {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
        #[command(flatten)]
        when: When,
    },
    /// Note where a credential's secret is kept; without a text, remove the note
    #[command(after_help = "Example:\n  rescind credential note rk_… 'vault: kv/billing'")]
    Note {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
        /// The place, for people; never the secret itself
        text: Option<String>,
    },
    /// Read the secret from standard input, and print a link by which somebody may read it once
    #[command(after_help = "Example:\n  rescind credential hand-over rk_… <secret.txt")]
    HandOver {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
    },
    /// Revoke a credential and every token of its sessions, at once
    Revoke {
        #[arg(value_parser = api_key, value_name = "KEY")]
        api_key: String,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct When {
    /// After this time, such as 7d
    #[arg(long = "in", value_name = "DURATION")]
    after: Option<Span>,
    /// At this time (UTC), such as 2027-01-31 or 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<Time>,
}

/// Accepts API keys only: a secret given in the place of a key would be shown in questions and answers.
pub(super) fn api_key(text: &str) -> Result<String, &'static str> {
    if text.starts_with("rk_") {
        Ok(text.to_owned())
    } else {
        Err("expected an API key, which begins with rk_")
    }
}

pub(super) fn run(command: CredentialCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    let path = |api_key: &str, action| format!("/credentials/{}{action}", percent_encoded(api_key));
    context.with_backend(false, async |backend| match command {
        CredentialCommand::Create { client, expires_in } => {
            let client = client.find(backend).await?;
            let path = format!("/clients/{}/credentials", client.client_id);
            created(&backend.post(&path, &NewCredential { expires_in }).await?, output)
        }
        CredentialCommand::List { client } => {
            let client = client.find(backend).await?;
            let path = format!("/clients/{}/credentials", client.client_id);
            let credentials: Vec<CredentialView> = backend.get(&path).await?;
            output.data(&credentials, |credentials| {
                let rows = credentials
                    .iter()
                    .map(|c| [c.api_key.clone(), c.status.clone(), c.created_at.clone(), end(c).unwrap_or("-".into())]);
                table(["API KEY", "STATUS", "CREATED", "ENDS"], rows)
            })
        }
        CredentialCommand::Show { api_key } => {
            let shown: UsedCredential = backend.get(&path(&api_key, "")).await?;
            output.data(&shown, |c| {
                let about = [
                    ("API key", Some(c.credential.api_key.clone())),
                    ("client", Some(format!("{} \"{}\"", c.client_id, c.client_name))),
                    ("status", Some(c.credential.status.clone())),
                    ("created", Some(c.credential.created_at.clone())),
                    ("kept", c.credential.note.clone()),
                    ("replaced", c.credential.replaced_at.clone()),
                    ("revoked", c.credential.revoked_at.clone()),
                    ("ends", c.credential.expires_at.clone().filter(|_| c.credential.revoked_at.is_none())),
                    ("verified", c.last_verification.as_ref().map(verified)),
                ];
                let about = facts(12, about.into_iter().filter_map(|(name, value)| Some((name, value?))));
                let rows = c.uses.iter().map(|used| {
                    let from = used.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
                    [used.last_at.clone(), from, used.times.to_string()]
                });
                match c.uses.is_empty() {
                    true => format!("{about}\nNo login or refresh is known."),
                    false => format!("{about}\n{}", table(["LAST", "FROM", "TIMES"], rows)),
                }
            })
        }
        CredentialCommand::Rotate { api_key, overlap } => {
            created(&backend.post(&path(&api_key, "/rotate"), &Rotation { overlap }).await?, output)
        }
        CredentialCommand::Expire { api_key, when: When { after, at } } => {
            let credential: CredentialView =
                backend.post(&path(&api_key, "/expire"), &Expiry { after, at }).await?;
            let until = credential.expires_at.clone().unwrap_or_default();
            let done = format!("{api_key} ends at {until}");
            output.done(&done, &credential, |_| format!("{done}."))
        }
        CredentialCommand::Note { api_key, text } => {
            let credential: CredentialView =
                backend.post(&path(&api_key, "/note"), &NewNote { note: text }).await?;
            let done = format!("the note of {api_key} was changed");
            output.done(&done, &credential, |c| match &c.note {
                Some(note) => format!("The secret of {api_key} is kept: {note}"),
                None => format!("{api_key} has no note."),
            })
        }
        CredentialCommand::HandOver { api_key } => {
            let mut text = Zeroizing::new(String::new());
            stdin().read_to_string(&mut text).context("standard input")?;
            let new = NewHandover { api_key, api_secret: text.trim().to_owned() };
            // Before the change, after which nothing may come between the link and its reader.
            let status: StatusView = backend.get("/status").await?;
            let mut created: CreatedHandover = backend.post("/handovers", &new).await?;
            created.link = status.management_url.unwrap_or_default() + &created.link;
            output.secret("a link was made and is lost: it ends in a day", &created, |created| {
                format!("{}\n(good once, until {})", created.link, created.link_until)
            })
        }
        CredentialCommand::Revoke { api_key } => {
            let shown: UsedCredential = backend.get(&path(&api_key, "")).await?;
            if let Some(at) = shown.credential.revoked_at {
                return Err(anyhow!("{api_key} was revoked at {at}").into());
            }
            output.confirm(&format!(
                "Credential {api_key} of client {} \"{}\" and every token of its sessions will end. This cannot be undone.",
                shown.client_id, shown.client_name
            ))?;
            let credential: CredentialView = backend.post(&path(&api_key, "/revoke"), &json!({})).await?;
            let done = format!("{api_key} was revoked");
            output.done(&done, &credential, |c| format!("{} revoked; every token of its sessions is refused", c.api_key))
        }
    })
}

/// When and from where one of a credential's tokens was verified last.
fn verified(LastView { at, address, .. }: &LastView) -> String {
    let from = address.map(|address| format!(" from {address}")).unwrap_or_default();
    format!("{at}{from}")
}

fn end(credential: &CredentialView) -> Option<String> {
    credential.revoked_at.clone().or(credential.expires_at.clone())
}

fn created(credential: &CreatedCredential, output: &Output) -> Result<(), Failure> {
    let CreatedCredential { client_id, api_key, replaces, .. } = credential;
    let mut lost = format!("credential {api_key} was created and its secret is lost, so revoke it");
    if let Some(old) = replaces {
        let at = old.expires_at.as_deref().unwrap_or("-");
        lost.push_str(&format!("; {} ends at {at}, which `rescind credential expire` changes", old.api_key));
    }
    output.secret(&lost, credential, |c| {
        let mut text = format!(
            "Credential of client {client_id} created.\n\n  API key     {}\n  API secret  {}\n              (shown this once, and never again)\n",
            c.api_key, c.api_secret
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
