//! The audit log: filters, pages, and a file for a spreadsheet.

use std::{io, sync::Arc};

use axum::{Router, body::Body, response::IntoResponse, routing::get};
use bytes::Bytes;
use http_body_util::channel::Channel;
use hyper::{
    StatusCode,
    header::{CONTENT_DISPOSITION, CONTENT_TYPE},
};
use maud::{Markup, html};
use rescind_admin::{CSV_HEADING, EventView, EventsView, csv};
use rescind_base::model::EventKind;

use super::{
    Dashboard,
    page::{field, time},
    visit::{Answered, Visit},
};
use crate::http::admin::Refused;

pub(super) const PATH: &str = "/dashboard/audit";
/// Rows of a page.
const ROWS: &str = "50";
/// Events that are read at once for a file.
const MOST: u64 = 1000;

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/audit", get(list)).route("/audit.csv", get(file))
}

async fn list(visit: Visit) -> Answered {
    let wanted = visit.query_with(&[("limit", ROWS)]);
    let (page, problem) = match visit.api.get(&format!("/audit?{wanted}")).await {
        Ok(page) => (page, None),
        Err(Refused { status, detail, .. }) if status == StatusCode::BAD_REQUEST => {
            (EventsView::default(), Some(detail))
        }
        Err(refused) => return Err(refused),
    };
    let older = page.events.first().filter(|_| page.more);
    let older =
        older.map(|event| format!("{PATH}?{}", visit.query_with(&[("before", &event.id.to_string())])));
    let exported = format!("{PATH}.csv?{}", visit.query_with(&[("before", "")]));
    let body = html! {
        div.title { h1 { "Audit" } a.button.quiet href=(exported) download { "Export as CSV" } }
        (filters(&visit))
        div #list {
            @if let Some(problem) = problem {
                p role="alert" { (problem) }
            } @else if page.events.is_empty() {
                p.none { "There is no such event." }
            } @else {
                (table(&page.events))
            }
            nav.pages aria-label="Pages of the log" {
                @if !visit.query("before").is_empty() {
                    a href={ (PATH) "?" (visit.query_with(&[("before", "")])) } { "The newest" }
                }
                @if let Some(older) = older { a rel="next" href=(older) { "Older events" } }
            }
        }
    };
    Ok(visit.view("Audit", body))
}

fn filters(visit: &Visit) -> Markup {
    html! {
        form.filters role="search" method="get" action=(PATH) {
            (field("kind", "Event", "", &html! {
                select #kind name="kind" {
                    option value="" { "all" }
                    @for kind in EventKind::ALL {
                        option value=(kind.name()) selected[visit.query("kind") == kind.name()] { (words(kind.name())) }
                    }
                }
            }))
            (field("client", "Client", "", &html! {
                input #client name="client" inputmode="numeric" placeholder="number" value=(visit.query("client"));
            }))
            (field("since", "Since", "", &html! {
                input #since name="since" placeholder="24h, or 2026-01-31" value=(visit.query("since"));
            }))
            (field("until", "Until", "", &html! {
                input #until name="until" placeholder="1h, or 2026-01-31" value=(visit.query("until"));
            }))
            button.quiet { "Filter" }
        }
    }
}

/// The events, the newest first.
fn table(events: &[EventView]) -> Markup {
    html! {
        table.cards {
            thead { tr { @for head in ["When", "Event", "Who", "Client", "From", "Details"] { th scope="col" { (head) } } } }
            tbody {
                @for event in events.iter().rev() {
                    tr {
                        td.whole data-label="When" { (time(&event.at)) }
                        th scope="row" { (words(&event.kind)) @if event.count > 1 { " " span.badge { (event.count) " times" } } }
                        td data-label="Who" { (event.operator.as_deref().unwrap_or(&event.by)) }
                        td data-label="Client" {
                            @match event.client_id {
                                Some(id) => a href={ "/dashboard/clients/" (id) } { (id) },
                                None => "–",
                            }
                        }
                        td.whole data-label="From" { (event.address.as_deref().unwrap_or("–")) }
                        td data-label="Details" { (details(event)) }
                    }
                }
            }
        }
    }
}

fn details(event: &EventView) -> Markup {
    let EventView { api_key, session, node, request_id, detail, .. } = event;
    html! {
        @if let Some(detail) = detail { (detail) }
        small {
            @if let Some(key) = api_key { code { (key) } " " }
            @if let Some(session) = session { "session " (session) " " }
            "node " (node)
            @if let Some(request) = request_id { " request " code { (request) } }
        }
    }
}

fn words(kind: &str) -> String {
    kind.replace('_', " ")
}

/// Sends the events of the filters, the oldest first, page after page.
async fn file(mut visit: Visit) -> Answered {
    let wanted = visit.query_with(&[("limit", &MOST.to_string()), ("after", "0"), ("before", "")]);
    // A wrong filter is told before the file begins.
    let mut page: EventsView = visit.api.get(&format!("/audit?{wanted}")).await?;
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    tokio::spawn(async move {
        let mut text = format!("{CSV_HEADING}\n");
        loop {
            text.extend(page.events.iter().map(|event| csv(event) + "\n"));
            if sender.send_data(std::mem::take(&mut text).into()).await.is_err()
                || (page.events.len() as u64) < MOST
            {
                // The caller has disconnected, or has all.
                return;
            }
            let wanted = visit.query_with(&[
                ("limit", &MOST.to_string()),
                ("after", &page.last.to_string()),
                ("before", ""),
            ]);
            // Whoever reads slowly may have lost the sign-in meanwhile.
            let next = async {
                visit.still().await?;
                visit.api.get(&format!("/audit?{wanted}")).await
            };
            page = match next.await {
                Ok(page) => page,
                Err(refused) => return sender.abort(io::Error::other(refused.detail)),
            };
        }
    });
    let headers = [
        (CONTENT_TYPE, "text/csv; charset=utf-8"),
        (CONTENT_DISPOSITION, "attachment; filename=\"rescind-audit.csv\""),
    ];
    Ok((headers, Body::new(body)).into_response())
}
