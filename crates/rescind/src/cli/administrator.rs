//! `rescind admin`

use anyhow::anyhow;
use clap::Subcommand;
use rescind_admin::{AdministratorView, InvitedAdministrator, NewAdministrator, NewRole, StatusView};
use rescind_base::model::Role;
use serde_json::json;

use super::{
    Context, Failure,
    backend::Backend,
    management_token::{self, ManagementTokenCommand},
    output::{Output, table},
};

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Create an administrator of the dashboard, and print the link to enrol by
    #[command(after_help = "Example:\n  rescind admin create alice --role operator")]
    Create {
        /// By it the administrator signs in
        name: String,
        /// viewer: reads; operator: also changes clients and their credentials; admin: everything
        #[arg(long)]
        role: Role,
    },
    /// List the administrators of the dashboard
    List,
    /// Give an administrator another role, and end the sign-ins
    Role { name: String, role: Role },
    /// Take an administrator's password, authenticator and sign-ins away, and print a link to enrol by
    Reset { name: String },
    /// Remove an administrator, whose sign-ins end
    Remove { name: String },
    /// Tokens for the admin API over the network
    #[command(subcommand)]
    Token(ManagementTokenCommand),
}

pub(super) fn run(command: AdminCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    match &command {
        AdminCommand::Reset { name } => {
            output.confirm(&format!("{name}'s password, authenticator and sign-ins will be taken away."))?;
        }
        AdminCommand::Remove { name } => output.confirm(&format!("{name} will be removed."))?,
        _ => {}
    }
    if let AdminCommand::Token(command) = command {
        return management_token::run(command, context);
    }
    context.with_backend(false, async |backend| match command {
        AdminCommand::Create { name, role } => {
            let server = backend.get("/status").await?;
            let invited = backend.post("/administrators", &NewAdministrator { name, role }).await?;
            invite(output, "created", invited, server)
        }
        AdminCommand::Reset { name } => {
            let id = find(backend, &name).await?.administrator_id;
            let server = backend.get("/status").await?;
            let invited = backend.post(&format!("/administrators/{id}/reset"), &json!({})).await?;
            invite(output, "reset", invited, server)
        }
        AdminCommand::Role { name, role } => {
            let id = find(backend, &name).await?.administrator_id;
            let path = format!("/administrators/{id}/role");
            let changed: AdministratorView = backend.post(&path, &NewRole { role }).await?;
            let done = format!("administrator {:?} is {} now", changed.name, changed.role.name());
            output.done(&done, &changed, |of| format!("Administrator {:?} is {}", of.name, of.role.name()))
        }
        AdminCommand::Remove { name } => {
            let id = find(backend, &name).await?.administrator_id;
            let removed: AdministratorView = backend.delete(&format!("/administrators/{id}")).await?;
            let done = format!("administrator {:?} was removed", removed.name);
            output.done(&done, &removed, |of| format!("Administrator {:?} removed", of.name))
        }
        AdminCommand::List | AdminCommand::Token(_) => {
            let all: Vec<AdministratorView> = backend.get("/administrators").await?;
            output.data(&all, |all| {
                let rows = all.iter().map(|of| {
                    let enrolled = if of.enrolled { "yes" } else { "no" };
                    let or = |time: &Option<String>, none: &str| time.clone().unwrap_or(none.into());
                    [
                        of.name.clone(),
                        of.role.name().into(),
                        enrolled.into(),
                        or(&of.signed_in_at, "never"),
                        or(&of.link_until, "-"),
                    ]
                });
                table(["NAME", "ROLE", "ENROLLED", "SIGNED IN", "LINK UNTIL"], rows)
            })
        }
    })
}

async fn find(backend: &mut Backend, name: &str) -> Result<AdministratorView, Failure> {
    let all: Vec<AdministratorView> = backend.get("/administrators").await?;
    let found = all.into_iter().find(|of| of.name == name);
    Ok(found.ok_or_else(|| anyhow!("there is no administrator {name:?}: see `rescind admin list`"))?)
}

/// Prints the link, with the address of the server that runs. That was asked before the change, after which nothing may come
/// between the link and its reader.
fn invite(
    output: &Output,
    what: &str,
    mut invited: InvitedAdministrator,
    server: StatusView,
) -> Result<(), Failure> {
    let url = server.management_url.unwrap_or_default();
    let is_whole = !url.is_empty();
    invited.link = url + &invited.link;
    let done = format!(
        "administrator {:?} was {what} and the link is lost: `rescind admin reset` makes another",
        invited.name
    );
    output.secret(&done, &invited, |of| {
        let place = if is_whole { "" } else { " (on the management listener)" };
        format!(
            "Administrator {:?} {what}, {}.\n\n  link  {}{place}\n        (good once, until {})",
            of.name,
            of.role.name(),
            of.link,
            of.link_until
        )
    })
}
