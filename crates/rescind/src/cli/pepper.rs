//! `rescind pepper`

use clap::Subcommand;
use rescind_admin::{PepperRetirement, PepperView};
use serde_json::json;

use super::{Context, Failure, backend::Backend, output::table};

#[derive(Debug, Subcommand)]
pub(super) enum PepperCommand {
    /// Hash new secrets under another pepper, and others when they are used next. The former pepper stays valid until it
    /// is retired
    #[command(after_help = "Example:\n  rescind pepper rotate")]
    Rotate,
    /// Show which peppers are valid, and what was not used since the rotation
    #[command(
        after_help = "Examples:\n  rescind pepper status\n  rescind --json pepper status | jq .left.count"
    )]
    Status,
    /// End the former pepper. Refused while anything is under it
    #[command(after_help = "Examples:\n  rescind pepper retire\n  rescind pepper retire --revoke-left")]
    Retire {
        /// Revoke the credentials, management tokens and verifiers that are still under the former pepper
        #[arg(long)]
        revoke_left: bool,
    },
}

pub(super) fn run(command: PepperCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    context.with_backend(false, async |backend: &mut Backend| match command {
        PepperCommand::Rotate => {
            output.confirm(
                "Secrets will be hashed under another pepper. Programs of earlier versions can use this store no more.",
            )?;
            let rotated: PepperView = backend.post("/pepper/rotate", &json!({})).await?;
            output.done("the pepper was rotated", &rotated, |pepper| {
                format!(
                    "{}\nEach is hashed under the new pepper when it is used next. Then: rescind pepper status",
                    told(pepper)
                )
            })
        }
        PepperCommand::Status => {
            let pepper: PepperView = backend.get("/pepper").await?;
            output.data(&pepper, |pepper| format!("{}\n{}", told(pepper), left(pepper)))
        }
        PepperCommand::Retire { revoke_left } => {
            let pepper: PepperView = backend.get("/pepper").await?;
            if revoke_left && pepper.left.count > 0 {
                output.confirm(&format!(
                    "{} secrets are still under the former pepper (`rescind pepper status` lists them). They will be revoked, and the tokens of their sessions. This cannot be undone.",
                    pepper.left.count
                ))?;
            }
            let wanted = PepperRetirement { revoke_left };
            let retired: PepperView = backend.post("/pepper/retire", &wanted).await?;
            output.done("the former pepper was retired", &retired, told)
        }
    })
}

fn told(pepper: &PepperView) -> String {
    match pepper.former {
        Some(former) => format!(
            "Peppers {former} and {} are valid; secrets under pepper {former}: {}.",
            pepper.present, pepper.left.count
        ),
        None => format!("Pepper {} is valid, and no other.", pepper.present),
    }
}

/// The table of what is still under the former pepper.
fn left(pepper: &PepperView) -> String {
    let left = &pepper.left;
    if left.count == 0 {
        return String::new();
    }
    let credentials = left.credentials.iter().map(|credential| {
        let owner = format!("client {} ({})", credential.client_id, credential.client_name);
        ["credential".into(), credential.api_key.clone(), owner]
    });
    let kinds = [("management token", &left.management_tokens), ("verifier", &left.verifiers)];
    let others = kinds.into_iter().flat_map(|(kind, found)| {
        found.iter().map(move |one| [kind.to_owned(), one.id.to_string(), one.name.clone()])
    });
    let shown = left.credentials.len() + left.management_tokens.len() + left.verifiers.len();
    let more = left.count.saturating_sub(shown as u64);
    let more = if more > 0 { format!("and {more} more\n") } else { String::new() };
    table(["KIND", "KEY OR ID", "OF"], credentials.chain(others)) + &more
}
