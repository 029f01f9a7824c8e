//! Management tokens.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::ManagementTokenView;

use super::{
    Dashboard,
    form::Form,
    page::{field, time, time_or},
    visit::{Answered, Visit},
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/management-tokens", get(show))
}

async fn show(visit: Visit) -> Answered {
    let tokens: Vec<ManagementTokenView> = visit.api.get("/management-tokens").await?;
    let body = html! {
        h1 { "Management tokens" }
        p { "Programs use the admin API with them: a pipeline, a monitor. People sign in here instead." }
        section aria-labelledby="tokens" {
            h2 #tokens { "Tokens" }
            @if tokens.is_empty() { p.none { "There is none." } } @else { (table(&visit, &tokens)) }
        }
        (creation(&visit))
    };
    Ok(visit.view("Management tokens", body))
}

fn table(visit: &Visit, tokens: &[ManagementTokenView]) -> Markup {
    html! {
        table.cards {
            thead { tr { @for head in ["Name", "Role", "Clients", "Created", "Expires", "Last used", ""] { th scope="col" { (head) } } } }
            tbody {
                @for token in tokens {
                    @let clients: Vec<_> = token.clients.iter().map(ToString::to_string).collect();
                    tr {
                        th scope="row" { (token.name) }
                        td data-label="Role" { (token.role.name()) }
                        td data-label="Clients" { @if clients.is_empty() { "all" } @else { (clients.join(", ")) } }
                        td data-label="Created" { (time(&token.created_at)) }
                        td data-label="Expires" { (time_or(token.expires_at.as_deref(), "never")) }
                        td data-label="Last used" { (time_or(token.last_used_at.as_deref(), "never")) }
                        td { (revocation(visit, token)) }
                    }
                }
            }
        }
    }
}

fn revocation(visit: &Visit, token: &ManagementTokenView) -> Markup {
    let form = Form {
        operation: "revokeManagementToken",
        parameter: &token.management_token_id.to_string(),
        fields: html! { p { "Every node refuses it from then on." } },
        button: "Revoke it",
        done: "The management token is revoked.",
        dangerous: true,
        ..Form::default()
    };
    html! { details { summary { "Revoke" span.visually-hidden { " " (token.name) } } (form.show(visit)) } }
}

fn creation(visit: &Visit) -> Markup {
    let roles = [
        ("viewer", "viewer: reads"),
        ("operator", "operator: also changes clients"),
        ("admin", "admin: does everything"),
    ];
    let fields = html! {
        (field("name", "Name", "What will use it.", &html! { input #name name="name" required autocomplete="off" aria-describedby="name-hint"; }))
        (field("role", "Role", "", &html! {
            select #role name="role" { @for (role, text) in roles { option value=(role) { (text) } } }
        }))
        (field("clients", "Clients", "Their numbers, if it may see and change only these.", &html! {
            input #clients name="clients" autocomplete="off" inputmode="numeric" aria-describedby="clients-hint";
        }))
        (field("expires", "Expires in", "90d, for example. Without a time it does not expire.", &html! {
            input #expires name="expires_in" autocomplete="off" aria-describedby="expires-hint";
        }))
    };
    let form = Form { operation: "createManagementToken", fields, button: "Create", ..Form::default() };
    html! {
        section aria-labelledby="new" { h2 #new { "A new token" } div.narrow { (form.show(visit)) } }
    }
}
