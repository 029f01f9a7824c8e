//! `rescind session`

use clap::Subcommand;
use rescind_admin::{SessionView, SessionsView};
use rescind_base::model::SessionId;

use super::{
    Context, Failure,
    lookup::{ClientRef, at_least, called, id},
    output::table,
};

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List the live sessions of a client, the newest first
    #[command(after_help = "Example:\n  rescind session list billing --limit 20")]
    List {
        /// Id or name
        client: ClientRef,
        /// At most this many
        #[arg(long, value_name = "N", default_value = "100", value_parser = at_least(0_usize))]
        limit: usize,
    },
    /// Revoke one session and its tokens, at once. The client's other sessions go on
    #[command(after_help = "Example:\n  rescind session revoke 1834")]
    Revoke {
        /// As `session list`, `token inspect` and `audit list` show it
        #[arg(value_name = "SESSION", value_parser = id("session list CLIENT"))]
        id: SessionId,
    },
}

pub(super) fn run(command: SessionCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    context.with_backend(false, async |backend| match command {
        SessionCommand::List { client, limit } => {
            let client = client.find(backend).await?;
            let path = format!("/clients/{}/sessions?limit={limit}", client.client_id);
            let found: SessionsView = backend.get(&path).await?;
            output.data(&found, |found| {
                let rows = found.sessions.iter().map(|s| {
                    let key = s.api_key.clone().unwrap_or("-".into());
                    let until = s.refresh_expires_at.as_ref().unwrap_or(&s.access_expires_at);
                    [
                        s.session_id.to_string(),
                        s.status.clone(),
                        s.started_at.clone(),
                        s.issued_at.clone(),
                        until.clone(),
                        key,
                    ]
                });
                let shown = found.sessions.len();
                let more =
                    if shown < found.live { format!(", of which {shown} are shown") } else { String::new() };
                let table = table(["SESSION", "STATUS", "STARTED", "REFRESHED", "UNTIL", "API KEY"], rows);
                format!("{table}{} live sessions of {}{more}", found.live, called(&client))
            })
        }
        SessionCommand::Revoke { id } => {
            output.confirm(&format!("Session {id} and its tokens will end. This cannot be undone."))?;
            let session: SessionView = backend.delete(&format!("/sessions/{id}")).await?;
            output.done(&format!("session {id} was revoked"), &session, |s| {
                let receipt = s.receipt.as_ref().map(|receipt| format!("{receipt}.")).unwrap_or_default();
                format!("Session {id} of client {} revoked; its tokens are refused.\n{receipt}", s.client_id)
            })
        }
    })
}
