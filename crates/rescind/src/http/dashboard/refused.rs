//! "Why was I refused": the explanation of a denial, by the id of its request.

use std::sync::Arc;

use axum::{Router, routing::get};
use hyper::StatusCode;
use maud::{Markup, html};
use serde_json::Value;

use super::{
    Dashboard,
    page::{field, time},
    visit::{Answered, Visit},
};
use crate::{
    admin::DenialView,
    http::admin::{Refused, segment},
};

const PATH: &str = "/dashboard/refused";

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/refused", get(show))
}

async fn show(visit: Visit) -> Answered {
    let id = visit.query("id").trim();
    let found = match id {
        "" => html! {},
        id => match visit.api.get::<Value>(&format!("/denials/{}", segment(id))).await {
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

/// What is known of a denial. What the page has no words for is shown as the admin API tells it.
fn explanation(denial: &Value) -> Markup {
    let facts = [
        ("When", "at"),
        ("Asked for", "operation"),
        ("Answer", "status"),
        ("Check that failed", "reason"),
        ("Address", "address"),
        ("API key", "api_key"),
        ("Node", "node"),
    ];
    let list = |name: &str| denial[name].as_array().into_iter().flatten();
    let (client, event, missed) = (&denial["client"], &denial["event"], &denial["allowlist"]);
    html! {
        section aria-labelledby="why" {
            h2 #why { (text(&denial["what"])) }
            p { (text(&denial["advice"])) }
            dl {
                @for (name, member) in facts {
                    @if !denial[member].is_null() { dt { (name) } dd { (text(&denial[member])) } }
                }
                @if let Some(id) = denial["client_id"].as_u64() {
                    dt { "Client" }
                    dd { a href={ "/dashboard/clients/" (id) } { (id) } @if !client.is_null() { " " (text(&client["name"])) ", " (text(&client["status"])) } }
                }
                @if !missed.is_null() {
                    dt { "Allowlist" }
                    dd {
                        (text(&missed["entries"])) " entries; the nearest: "
                        @for (i, entry) in missed["nearest"].as_array().into_iter().flatten().enumerate() { @if i > 0 { ", " } code { (text(entry)) } }
                    }
                }
                @if !event.is_null() {
                    dt { "Because of" }
                    dd {
                        (text(&event["kind"]).replace('_', " ")) ", " (time(&text(&event["at"])))
                        " by " @if event["operator"].is_null() { (text(&event["by"])) } @else { (text(&event["operator"])) }
                    }
                }
            }
            @if list("hops").next().is_some() {
                h3 { "The way of the request, the nearest hop first" }
                ol { @for hop in list("hops") { li { code { (text(&hop["address"])) } " " (text(&hop["role"])) " (" (text(&hop["named_by"])) ")" } } }
            }
            details { summary { "All that is known" } pre tabindex="0" { (serde_json::to_string_pretty(denial).unwrap_or_default()) } }
        }
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| value.to_string())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_names_the_check_the_way_and_the_range_that_was_missed() {
        let denial = json!({
            "request_id": "r", "at": "2025-01-15T12:00:00Z", "operation": "verify", "status": 403, "reason": "address_not_allowed",
            "what": "The address is not on the allowlist", "advice": "Add it.", "address": "203.0.113.7", "client_id": 7,
            "client": {"name": "<b>", "status": "active"}, "allowlist": {"entries": 2, "nearest": ["203.0.113.0/30"]},
            "hops": [{"address": "10.0.0.1", "named_by": "connection", "role": "trusted"}],
            "event": {"kind": "allowlist_changed", "at": "2025-01-15T11:00:00Z", "by": "operator", "operator": "ada"},
        });
        let page = explanation(&denial).into_string();
        for part in [
            "The address is not on the allowlist",
            "Add it.",
            "address_not_allowed",
            "href=\"/dashboard/clients/7\"",
            "&lt;b&gt;, active",
            "2 entries; the nearest: <code>203.0.113.0/30</code>",
            "<code>10.0.0.1</code> trusted (connection)",
            "allowlist changed, ",
            " by ada",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert!(!page.contains("<b>"));
    }
}
