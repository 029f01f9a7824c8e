//! "Why was I refused": the explanation of a denial, by the id of its request.

use std::sync::Arc;

use axum::{Router, routing::get};
use hyper::StatusCode;
use maud::{Markup, html};
use rescind_admin::{DenialView, ExplainedDenial};

use super::{
    Dashboard,
    page::{field, time},
    visit::{Answered, Visit},
};
use crate::http::admin::{Refused, segment};

const PATH: &str = "/dashboard/refused";

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/refused", get(show))
}

async fn show(visit: Visit) -> Answered {
    let id = visit.query("id").trim();
    let found = match id {
        "" => html! {},
        id => match visit.api.get::<ExplainedDenial>(&format!("/denials/{}", segment(id))).await {
            Ok(denial) => explanation(&denial),
            Err(Refused { status, detail, .. }) if status == StatusCode::NOT_FOUND => {
                html! { p role="alert" { (detail) } }
            }
            Err(refused) => return Err(refused),
        },
    };
    let latest = match id {
        "" => visit.api.get("/denials?limit=50").await?,
        _ => vec![],
    };
    let body = html! {
        h1 { "Why was I refused?" }
        p { "Every refusal has its request's id, in the header " code { "X-Request-Id" } " of the answer." }
        form.filters role="search" method="get" action=(PATH) {
            (field("id", "Request id", "", &html! {
                input #id name="id" size="30" required autocomplete="off" spellcheck="false" value=(id);
            }))
            button { "Explain" }
        }
        (found)
        @if !latest.is_empty() {
            section aria-labelledby="latest" { h2 #latest { "The latest" } (table(&latest)) }
        }
    };
    Ok(visit.view("Why was I refused?", body))
}

fn table(denials: &[DenialView]) -> Markup {
    html! {
        table.cards {
            thead { tr { @for head in ["When", "Why", "Asked for", "Client", "From", "Request"] { th scope="col" { (head) } } } }
            tbody {
                @for denial in denials {
                    tr {
                        td data-label="When" { (time(&denial.at)) }
                        th scope="row" { (denial.what) }
                        td data-label="Asked for" { (denial.operation) }
                        td data-label="Client" { (or_dash(denial.client_id)) }
                        td data-label="From" { (or_dash(denial.address.as_ref())) }
                        td data-label="Request" { a href={ (PATH) "?" (query(&denial.request_id)) } { code { (denial.request_id) } } }
                    }
                }
            }
        }
    }
}

fn query(id: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("id", id).finish()
}

/// What is known of a denial, and all of it as the admin API tells it.
fn explanation(found: &ExplainedDenial) -> Markup {
    let ExplainedDenial { denial, client, event, .. } = found;
    let details = &denial.details;
    let facts = [
        ("When", Some(denial.at.clone())),
        ("Asked for", Some(denial.operation.clone())),
        ("Answer", Some(denial.status.to_string())),
        ("Check that failed", Some(denial.reason.clone())),
        ("Address", denial.address.clone()),
        ("API key", details.api_key.clone()),
        ("Node", Some(denial.node.clone())),
    ];
    html! {
        section aria-labelledby="why" {
            h2 #why { (denial.what) }
            p { (denial.advice) }
            dl {
                @for (name, value) in facts {
                    @if let Some(value) = value { dt { (name) } dd { (value) } }
                }
                @if let Some(id) = denial.client_id {
                    dt { "Client" }
                    dd { a href={ "/dashboard/clients/" (id) } { (id) } @if let Some(client) = client { " " (client.name) ", " (client.status) } }
                }
                @if let Some(at) = client.as_ref().and_then(|client| client.tokens_revoked_at.as_ref()) {
                    dt { "All its tokens were revoked last" }
                    dd { (time(at)) }
                }
                @if let Some(missed) = &details.allowlist {
                    dt { "Allowlist" }
                    dd {
                        (missed.entries) " entries; the nearest: "
                        @for (i, entry) in missed.nearest.iter().enumerate() { @if i > 0 { ", " } code { (entry) } }
                    }
                }
                @if let Some(event) = event {
                    dt { "Because of" }
                    dd { (event.kind.replace('_', " ")) ", " (time(&event.at)) " by " (event.operator.as_ref().unwrap_or(&event.by)) }
                }
            }
            @if !details.hops.is_empty() {
                h3 { "The way of the request, the nearest hop first" }
                ol { @for hop in &details.hops { li { code { (hop.address) } " (" (hop.named_by) "): " (hop.role.explained()) } } }
            }
            details { summary { "All that is known" } pre tabindex="0" { (serde_json::to_string_pretty(found).unwrap_or_default()) } }
        }
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_names_the_check_the_way_and_the_range_that_was_missed() {
        let denial = json!({
            "id": 1, "others": 0, "node": "n", "proven": true, "credential": null,
            "request_id": "r", "at": "2025-01-15T12:00:00Z", "operation": "verify", "status": 403, "reason": "address_not_allowed",
            "what": "The address is not on the allowlist", "advice": "Add it.", "address": "203.0.113.7", "client_id": 7,
            "client": {"name": "<b>", "status": "active", "generation": 2, "tokens_revoked_at": null}, "allowlist": {"entries": 2, "nearest": ["203.0.113.0/30"]},
            "hops": [{"address": "10.0.0.1", "named_by": "connection", "role": "trusted"}],
            "event": {"kind": "allowlist_changed", "at": "2025-01-15T11:00:00Z", "by": "operator", "operator": "ada",
                "id": 5, "client_id": 7, "api_key": null, "session": null, "address": null, "node": "n", "request_id": null,
                "detail": null, "count": 1},
        });
        let page = explanation(&serde_json::from_value(denial).unwrap()).into_string();
        for part in [
            "The address is not on the allowlist",
            "Add it.",
            "address_not_allowed",
            "href=\"/dashboard/clients/7\"",
            "&lt;b&gt;, active",
            "2 entries; the nearest: <code>203.0.113.0/30</code>",
            "<code>10.0.0.1</code> (connection): trusted to name the one before it",
            "allowlist changed, ",
            " by ada",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<b>"));
    }
}
