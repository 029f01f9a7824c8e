//! The list of clients.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::ClientView;
use rescind_base::model::Status;

use super::{
    Dashboard,
    page::{field, time, time_or},
    visit::{Answered, Visit},
};

pub(super) const PATH: &str = "/dashboard/clients";
/// Rows of a page.
const ROWS: &str = "50";

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/clients", get(list))
}

async fn list(visit: Visit) -> Answered {
    let wanted = visit.query_with(&[("limit", ROWS)]);
    let (clients, answer): (Vec<ClientView>, _) = visit.api.read(&format!("/clients?{wanted}")).await?;
    let next = answer.next.map(|after| format!("{PATH}?{}", visit.query_with(&[("after", &after)])));
    let body = html! {
        div.title { h1 { "Clients" } a.button href="/dashboard/clients/new" { "New client" } }
        (filters(&visit))
        div #list {
            @if clients.is_empty() { p.none { "There is no such client." } } @else { (table(&clients)) }
            @if let Some(next) = next { p { a href=(next) { "The next page" } } }
        }
    };
    Ok(visit.view("Clients", body))
}

fn filters(visit: &Visit) -> Markup {
    let chosen = |name: &str, value: &str| visit.query(name) == value;
    html! {
        form.filters role="search" method="get" action=(PATH) hx-get=(PATH) hx-trigger="input changed delay:300ms, submit"
            hx-target="#list" hx-select="#list" hx-swap="outerHTML" {
            (field("name", "Name", "", &html! { input #name name="name" type="search" value=(visit.query("name")); }))
            (field("status", "Status", "", &html! {
                select #status name="status" {
                    option value="" { "all" }
                    @for status in ["active", "suspended"] {
                        option value=(status) selected[chosen("status", status)] { (status) }
                    }
                }
            }))
            (field("stale", "Not used for", "", &html! {
                select #stale name="stale" {
                    option value="" { "any time" }
                    @for (value, text) in [("7d", "7 days"), ("30d", "30 days"), ("90d", "90 days")] {
                        option value=(value) selected[chosen("stale", value)] { (text) }
                    }
                }
            }))
            button.quiet { "Filter" }
        }
    }
}

fn table(clients: &[ClientView]) -> Markup {
    html! {
        table.cards {
            thead { tr { th { "Name" } th { "Status" } th { "Last used" } th { "Allowlist" } th { "Created" } th { "Id" } } }
            tbody {
                @for client in clients {
                    tr {
                        th scope="row" { a href={ (PATH) "/" (client.client_id) } { (client.name) } }
                        td data-label="Status" { (status(client.status)) }
                        td data-label="Last used" { (time_or(client.last_used_at.as_deref(), "never")) }
                        td data-label="Allowlist" { @match client.allow.len() { 0 => span.none { "any address" }, 1 => { (client.allow[0]) } n => { (n) " networks" } } }
                        td data-label="Created" { (time(&client.created_at)) }
                        td data-label="Id" { (client.client_id) }
                    }
                }
            }
        }
    }
}

pub(super) fn status(status: Status) -> Markup {
    let (class, text) = match status {
        Status::Active => ("good", "active"),
        Status::Suspended => ("warn", "suspended"),
        Status::Deleted => ("bad", "deleted"),
    };
    html! { span.badge.(class) { (text) } }
}
