//! The frame of every page, and the pieces that pages are made of. All text is escaped by `html!`.

use axum::response::{Html, IntoResponse, Redirect, Response};
use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue, RETRY_AFTER},
};
use maud::{DOCTYPE, Markup, html};
use rescind_base::model::{
    Administrator,
    Role::{self, Admin, Viewer},
};
use rescind_node::cluster::Receipt;
use serde::{Deserialize, Serialize};

use crate::http::admin::Refused;

/// The pages in the navigation, and the least role that they are of use to.
const PAGES: [(&str, &str, Role); 9] = [
    ("/dashboard/overview", "Overview", Viewer),
    ("/dashboard/clients", "Clients", Viewer),
    ("/dashboard/audit", "Audit", Viewer),
    ("/dashboard/refused", "Why refused?", Viewer),
    ("/dashboard/keys", "Keys", Viewer),
    ("/dashboard/cluster", "Nodes and verifiers", Viewer),
    ("/dashboard/settings", "Settings", Viewer),
    ("/dashboard/management-tokens", "Tokens", Admin),
    ("/dashboard/administrators", "Administrators", Admin),
];

pub(super) const FIRST: &str = "/dashboard";

/// Leads to another page. htmx would show that page's content in the frame of the present one, so it is told to load it.
pub(super) fn lead(headers: &HeaderMap, path: &str) -> Response {
    let here = headers.get("hx-current-url").and_then(|url| url.to_str().ok());
    match here {
        Some(here) if !is_at(here, path) => {
            let header = HeaderValue::try_from(path).ok();
            let header = header.map(|path| (HeaderName::from_static("hx-redirect"), path));
            let mut response = ().into_response();
            response.headers_mut().extend(header);
            response
        }
        _ => Redirect::to(path).into_response(),
    }
}

/// Whether a URL has this path, whatever their queries.
fn is_at(url: &str, path: &str) -> bool {
    let alone = |path: &str| path.split(['?', '#']).next().unwrap_or_default().to_owned();
    let of_url =
        url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map(|(_, path)| format!("/{path}"));
    of_url.is_some_and(|of_url| alone(&of_url) == alone(path))
}

/// A page that leads to another one at once.
pub(super) fn onward(path: &str) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta http-equiv="refresh" content={ "0; url=" (path) };
                title { "Rescind" }
            }
            body { p { a href=(path) { "Go on" } } }
        }
    };
    Html(page.into_string())
}

/// Whom a page is for, and where it is.
pub(super) struct Whose<'a> {
    pub(super) administrator: &'a Administrator,
    pub(super) path: &'a str,
}

/// What the change before a page has done.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) what: String,
    pub(super) receipt: Option<Receipt>,
}

/// Whether this is a path of the dashboard, and of nothing else.
pub(super) fn is_ours(path: &str) -> bool {
    let ours = path == "/dashboard" || path.starts_with("/dashboard/") || path.starts_with("/dashboard?");
    // What browsers read as ".." or as "/".
    let alone = path.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let is_odd = ["%2e", "%5c", "\\"].iter().any(|odd| alone.contains(odd));
    ours && !is_odd
        && path.bytes().all(|b| b.is_ascii_graphic())
        && !path.contains("..")
        && !path.contains("//")
}

/// A whole page. One that is for nobody has no navigation.
pub(super) fn whole(
    title: &str,
    whose: Option<&Whose<'_>>,
    said: Option<&Said>,
    body: Markup,
) -> Html<String> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content="includeIndicatorCSS:false, history:false, defaultTimeout:180000";
                title { (title) " · Rescind" }
                link rel="icon" href="/dashboard/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/dashboard/style.css";
                script src="/dashboard/htmx.min.js" defer {}
                script src="/dashboard/dashboard.js" defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.brand href="/dashboard" { "Rescind" }
                    @if let Some(whose) = whose { (navigation(whose)) }
                }
                main #main tabindex="-1" {
                    div #said role="status" aria-live="polite" {
                        @if let Some(Said { what, receipt }) = said {
                            p.done { (what) @if let Some(receipt) = receipt { " " (acknowledged(receipt)) } }
                        }
                    }
                    (body)
                }
            }
        }
    };
    Html(page.into_string())
}

fn navigation(Whose { administrator, path: here }: &Whose<'_>) -> Markup {
    html! {
        nav aria-label="Pages" {
            ul {
                @for (path, title, role) in PAGES {
                    @if administrator.role >= role {
                        li { a href=(path) aria-current=[here.starts_with(path).then_some("page")] { (title) } }
                    }
                }
            }
        }
        div.who {
            span { a href="/dashboard/account" { (administrator.name) } " · " (administrator.role.name()) }
            form method="post" action="/dashboard/sign-out" { button.quiet { "Sign out" } }
        }
    }
}

/// A receipt in words.
pub(super) fn acknowledged(Receipt { nodes, acknowledged, milliseconds }: &Receipt) -> Markup {
    html! { span.receipt { (acknowledged) " of " (nodes) " acknowledged, " (milliseconds) " ms" } }
}

/// A page that says why another one cannot be shown.
pub(super) fn refused(error: impl Into<Refused>) -> Response {
    let refused = error.into();
    let body = html! {
        h1 { "That was refused" }
        p #refused role="alert" { (refused.detail) }
        p { a href="/dashboard" { "To the first page" } }
    };
    answered(refused, whole("Refused", None, None, body))
}

/// Answers with the status of a refusal.
pub(super) fn answered(refused: Refused, page: impl IntoResponse) -> Response {
    let Refused { status, failure, retry_after, .. } = refused;
    let mut response = (status, page).into_response();
    response.headers_mut().extend(retry_after.map(|value| (RETRY_AFTER, value)));
    if let Some(failure) = failure {
        response.extensions_mut().insert(failure);
    }
    response
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        refused(self)
    }
}

/// A time as people read it, with the exact one beside.
pub(super) fn time(text: &str) -> Markup {
    let short = text.get(..16).unwrap_or(text).replace('T', " ");
    html! { time datetime=(text) title=(text) { (short) } }
}

/// A time, or what there is in its place.
pub(super) fn time_or(text: Option<&str>, none: &str) -> Markup {
    match text {
        Some(text) => time(text),
        None => html! { span.none { (none) } },
    }
}

/// A field of a form with its label, and a hint below.
pub(super) fn field(id: &str, label: &str, hint: &str, input: &Markup) -> Markup {
    html! {
        div.field {
            label for=(id) { (label) }
            (input)
            @if !hint.is_empty() { small id={ (id) "-hint" } { (hint) } }
        }
    }
}

/// A field for several texts, a line each.
pub(super) fn lines(id: &str, name: &str, label: &str, hint: &str, texts: &[String]) -> Markup {
    field(
        id,
        label,
        hint,
        &html! {
            textarea #(id) name=(name) spellcheck="false" aria-describedby={ (id) "-hint" } { (texts.join("\n")) }
        },
    )
}

/// A box to tick.
pub(super) fn check(name: &str, label: &str) -> Markup {
    html! { div.field { label.check { input type="checkbox" name=(name) value="true"; (label) } } }
}

/// A field that nobody sees.
pub(super) fn hidden(name: &str, value: &str) -> Markup {
    html! { input type="hidden" name=(name) value=(value); }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_dashboard_leads_nowhere_else() {
        for path in ["/dashboard", "/dashboard?a=%2e%5C", "/dashboard/clients/1?name=%2E"] {
            assert!(is_ours(path), "{path}");
        }
        for path in [
            "/",
            "/dashboards",
            "//evil.example/dashboard",
            "/dashboard/../admin/v1",
            "/dashboard/%2e%2e/admin/v1",
            "/dashboard/.%2E/admin/v1",
            "/dashboard/%5c..",
            "/dashboard/\\evil.example",
        ] {
            assert!(!is_ours(path), "{path}");
        }
    }
}
