//! `rescind admin token`

use clap::Subcommand;
use rescind_admin::{CreatedManagementToken, ManagementTokenView, NewManagementToken};
use rescind_base::model::Role;
use rescind_node::config::Span;

use super::{
    Context, Failure,
    lookup::{ClientRef, id},
    output::table,
};

#[derive(Debug, Subcommand)]
pub(super) enum ManagementTokenCommand {
    /// Create a management token, and print it
    Create {
        /// A name for people
        #[arg(long)]
        name: String,
        /// viewer: reads; operator: also changes clients and their credentials; admin: everything
        #[arg(long)]
        role: Role,
        /// The only clients that the token may see and change, each by id or name [default: all]
        #[arg(long = "client", value_name = "CLIENT")]
        clients: Vec<ClientRef>,
        /// Time after which the token is refused, such as 90d [default: never]
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Span>,
    },
    /// List every management token, and when each was used last
    List,
    /// Revoke a management token, at once
    Revoke {
        #[arg(value_parser = id("admin token list"))]
        id: u64,
    },
}

pub(super) fn run(command: ManagementTokenCommand, context: &Context) -> Result<(), Failure> {
    let Context { output, .. } = context;
    if let ManagementTokenCommand::Revoke { id } = &command {
        output.confirm(&format!("Management token {id} will be refused."))?;
    }
    context.with_backend(false, async |backend| match command {
        ManagementTokenCommand::Create { name, role, clients, expires_in } => {
            let mut ids = vec![];
            for client in clients {
                ids.push(client.id(backend).await?);
            }
            let new = NewManagementToken { name, role, clients: ids, expires_in };
            let created: CreatedManagementToken = backend.post("/management-tokens", &new).await?;
            let done = format!(
                "management token {0} was created and its text is lost: revoke it with `rescind admin token revoke {0}`",
                created.management_token_id
            );
            output.secret(&done, &created, |t| {
                format!(
                    "Management token {} \"{}\" created, {}.\n\n  token  {}\n         (shown this once, and never again)",
                    t.management_token_id,
                    t.name,
                    t.role.name(),
                    t.token
                )
            })
        }
        ManagementTokenCommand::List => {
            let tokens: Vec<ManagementTokenView> = backend.get("/management-tokens").await?;
            output.data(&tokens, |tokens| {
                let rows = tokens.iter().map(|t| {
                    let clients: Vec<_> = t.clients.iter().map(ToString::to_string).collect();
                    let or = |time: &Option<String>, none: &str| time.clone().unwrap_or(none.into());
                    [
                        t.management_token_id.to_string(),
                        t.name.clone(),
                        t.role.name().into(),
                        super::output::list(&clients, "all"),
                        or(&t.expires_at, "-"),
                        or(&t.last_used_at, "never"),
                    ]
                });
                table(["ID", "NAME", "ROLE", "CLIENTS", "ENDS", "LAST USED"], rows)
            })
        }
        ManagementTokenCommand::Revoke { id } => {
            let revoked: ManagementTokenView = backend.delete(&format!("/management-tokens/{id}")).await?;
            let done = format!("management token {id} was revoked");
            output.done(&done, &revoked, |t| format!("Management token {} revoked", t.management_token_id))
        }
    })
}
