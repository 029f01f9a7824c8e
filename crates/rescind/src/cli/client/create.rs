//! `rescind client create`

use clap::Args;
use rescind_admin::{CreatedClient, EnsuredClient, NewClient, StatusView};
use rescind_node::config::Span;

use super::{Backend, Context, Failure, called, shown};
use crate::cli::{networks, output::prose};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rescind client create --name billing --allow 203.0.113.0/24 --scope invoices
  rescind client create --name billing --allow @networks.txt --if-absent")]
pub(in crate::cli) struct Create {
    /// A name for people
    #[arg(long)]
    name: String,
    /// Addresses or networks that the client may call from; @FILE or - for a list [default: any address]
    #[arg(long, value_name = "CIDR")]
    allow: Vec<String>,
    /// A name that the client's certificate must have, such as dns:api.example.com or uri:spiffe://example.com/api;
    /// of several, one suffices [default: no certificate needed]
    #[arg(long, value_name = "NAME")]
    certificate: Vec<String>,
    /// A scope that the client's tokens may have
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// The URI of an API that the client's tokens may be for [default: tokens.audience]
    #[arg(long, value_name = "URI")]
    resource: Vec<String>,
    /// When this client introspects tokens, it accepts each only from the addresses in the answer's `allow`
    #[arg(long)]
    enforces_allowlist: bool,
    /// When this client introspects tokens, the answers expire after this time: for software that keeps answers. 0s:
    /// the answers have no `exp` [default: when the token expires]
    #[arg(long, value_name = "DURATION")]
    introspect_lifetime: Option<Span>,
    /// Confirm that a network of prefix length 0 is intended
    #[arg(long)]
    allow_any: bool,
    /// If there is a client of this name, show that one and create none
    #[arg(long)]
    if_absent: bool,
}

pub(super) async fn run(create: Create, backend: &mut Backend, context: &Context<'_>) -> Result<(), Failure> {
    let Create {
        name,
        allow,
        certificate,
        scope,
        resource,
        enforces_allowlist,
        introspect_lifetime,
        allow_any,
        if_absent,
    } = create;
    let allow = networks::read(&allow)?.iter().map(ToString::to_string).collect();
    let new = NewClient {
        name,
        allow,
        certificates: certificate,
        scopes: scope,
        resources: resource,
        enforces_allowlist,
        introspect_lifetime,
        allow_any,
    };
    // Before the change, after which nothing may come between the secret and its reader.
    let status: StatusView = backend.get("/status").await?;
    let created = if if_absent {
        match backend.post("/clients/if-absent", &new).await? {
            EnsuredClient::Created(created) => created,
            EnsuredClient::There(client) => {
                prose(&format!("There is {} already; nothing was changed.", called(&client)));
                return context.output.data(&client, shown);
            }
        }
    } else {
        backend.post("/clients", &new).await?
    };
    let lost = format!(
        "client {} was created and its secret is lost: create another with `rescind credential create {0}`",
        created.client_id
    );
    let url = status.url.unwrap_or_else(|| context.config.public_url(context.config.server.listen));
    context.output.secret(&lost, &created, |client| welcome(client, &url))
}

fn welcome(c: &CreatedClient, url: &str) -> String {
    let certificate = if c.certificates.is_empty() { "" } else { " --cert certificate.pem --key key.pem" };
    format!(
        r#"Client {} "{}" created.

  API key     {}
  API secret  {}
              (shown this once, and never again)

Log in with:

  curl -s{certificate} {url}/auth/login -H "Content-Type: application/json" -d '{{"username":"{}","password":"{}"}}'"#,
        c.client_id, c.name, c.api_key, c.api_secret, c.api_key, c.api_secret
    )
}
