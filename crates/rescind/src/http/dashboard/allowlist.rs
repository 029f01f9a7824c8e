//! The allowlist of a client: a pasted list is read, compared with the present one, and then saved.

use std::{net::IpAddr, sync::Arc};

use axum::{Router, extract::Request, response::Response, routing::post};
use ipnet::IpNet;
use maud::{Markup, html};
use rescind_admin::{AddressCheck, ClientView, DenialView, UseView, shut_out};
use rescind_base::model::Role::Operator;
use rescind_node::config::Time;
use rescind_verifier::{Allowlist, Denied, parse_cidr};

use super::{
    Dashboard,
    form::{self, Form},
    page::{check, field, hidden, lines, time},
    shown_client::ShownClient,
    visit::{Answered, Of, Visit},
};
use crate::http::error::ApiError;

/// In seconds: who was seen in this time is named before a list shuts them out.
const LATELY: u64 = 24 * 3600;
/// The most entries that a page names.
const NAMED: usize = 100;
/// How many denials are looked through for the addresses that a page offers, and how many of these there are.
const DENIALS: usize = 200;
const OFFERED: usize = 5;

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/clients/{id}/allow", post(review))
}

/// The answer to the question whether an address may call, if the page is asked it.
pub(super) async fn tested(
    visit: &Visit,
    client: u64,
) -> Result<Option<Markup>, crate::http::admin::Refused> {
    let address = visit.query("address").trim();
    if address.is_empty() {
        return Ok(None);
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return Ok(Some(
            html! { p.warning { (address) " is no IP address such as 203.0.113.7 or 2001:db8::1." } },
        ));
    };
    let AddressCheck { address, allowed, entries, .. } =
        visit.api.get(&format!("/clients/{client}/allow/check?address={address}")).await?;
    Ok(Some(html! {
        p {
            @match (allowed, entries.as_slice()) {
                (false, _) => { span.badge.bad { "no" } " " (address) " is on no entry." }
                (true, []) => { span.badge.good { "yes" } " There is no allowlist: every address may call." }
                (true, entries) => { span.badge.good { "yes" } " " (address) " is on " (entries.join(", ")) "." }
            }
        }
    }))
}

/// The addresses that were lately refused because they are on no entry, the newest first.
pub(super) async fn denied_lately(
    visit: &Visit,
    client: u64,
) -> Result<Vec<IpAddr>, crate::http::admin::Refused> {
    let path = format!(
        "/denials?client={client}&reason={}&since={LATELY}s&limit={DENIALS}",
        Denied::AddressNotAllowed.name()
    );
    let denials: Vec<DenialView> = visit.api.get(&path).await?;
    let mut addresses = vec![];
    for address in denials.iter().filter_map(|denial| denial.address.as_ref()?.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

pub(super) fn section(shown: &ShownClient<'_>, tested: Option<Markup>, denied: &[IpAddr]) -> Markup {
    let (allow, path) = (&shown.client.allow, format!("/dashboard/clients/{}", shown.id));
    html! {
        section aria-labelledby="allowlist" {
            h2 #allowlist { "Allowlist" }
            @if allow.is_empty() { p { strong { "Every address may call." } } } @else {
                p.code { @for net in allow.iter().take(NAMED) { (net) " " } @if allow.len() > NAMED { "and " (allow.len() - NAMED) " more" } }
            }
            div #tested aria-live="polite" { @if let Some(tested) = tested { (tested) } }
            form.row method="get" action=(path) hx-get=(path) hx-target="#tested" hx-select="#tested" hx-swap="outerHTML" {
                (field("address", "May this address call?", "", &html! { input #address name="address" value=(shown.visit.query("address")); }))
                button.quiet { "Test" }
            }
            @if !denied.is_empty() { (offered(shown, denied)) }
            @if shown.visit.may(Operator) {
                details {
                    summary { "Change the allowlist" }
                    form #review method="post" action={ (path) "/allow" } hx-post={ (path) "/allow" }
                        hx-target="main" hx-select="main" hx-swap="outerHTML" {
                        (lines("list", "list", "Networks", "Addresses, networks or ranges a-b; # begins a comment. A list as it is published can be pasted: lines, commas, a JSON array, a geofeed. Nothing is changed before you have seen what it means.", allow))
                        div.outcome aria-live="assertive" {}
                        button { "Read the list" }
                    }
                }
            }
        }
    }
}

/// Each address with a form that reads the present list and the address.
fn offered(shown: &ShownClient<'_>, denied: &[IpAddr]) -> Markup {
    let allow = shown.client.allow.join("\n");
    html! {
        h3 { "Refused in the last 24 hours" }
        ul {
            @for address in denied.iter().take(OFFERED) {
                li {
                    @if shown.visit.may(Operator) {
                        form.row method="post" action={ "/dashboard/clients/" (shown.id) "/allow" } {
                            (hidden("list", &format!("{allow}\n{address}")))
                            code { (address) }
                            button.quiet { "Add" span.visually-hidden { " " (address) } }
                        }
                    } @else { code { (address) } }
                }
            }
        }
    }
}

/// Shows what a list would change. Changes nothing.
async fn review(mut visit: Visit, Of(id): Of<u64>, request: Request) -> Response {
    let (headers, back) = (request.headers().clone(), format!("/dashboard/clients/{id}"));
    let reviewed = async {
        let fields = visit.form(request, Operator).await?;
        compared(&visit, id, &form::networks("list", &fields)?, &back).await
    };
    reviewed.await.unwrap_or_else(|refused| form::refused_form(&headers, refused, &back))
}

async fn compared(visit: &Visit, id: u64, given: &Vec<IpNet>, back: &str) -> Answered {
    let (client, answer): (ClientView, _) = visit.api.read(&format!("/clients/{id}")).await?;
    let count = given.len();
    let merged = IpNet::aggregate(given);
    let (before, after) = (list(&client)?, merged.iter().copied().collect::<Allowlist>());
    let uses: Vec<UseView> = visit.api.get(&format!("/clients/{id}/uses")).await?;
    let since = visit.dashboard.app.clock.now().saturating_sub(LATELY);
    let mut out = shut_out(uses, &before, &after);
    out.retain(|used| used.last_at.parse::<Time>().is_ok_and(|at| at.seconds() >= since));
    let only = |these: &Allowlist, those: &Allowlist| -> Vec<IpNet> {
        these.entries().iter().filter(|net| those.entries().binary_search(net).is_err()).copied().collect()
    };
    let (added, removed) = (only(&after, &before), only(&before, &after));
    let any = after.is_empty() || merged.iter().any(|net| net.prefix_len() == 0);
    let texts: Vec<_> = merged.iter().map(ToString::to_string).collect();
    let id = id.to_string();
    let fields = html! {
        (hidden("replace", &texts.join("\n")))
        @if any { (check("allow_any", "Every address may call")) }
    };
    let save = Form {
        operation: "changeAllowlist",
        parameter: &id,
        fields,
        button: "Save this list",
        done: "The allowlist was changed.",
        version: answer.version.as_deref(),
        dangerous: !out.is_empty(),
        then: back,
    };
    let named = |sign: &str, nets: &[IpNet]| {
        html! { @if !nets.is_empty() {
            pre { @for net in nets.iter().take(NAMED) { (sign) " " (net) "\n" } @if nets.len() > NAMED { "and " (nets.len() - NAMED) " more" } }
        } }
    };
    let body = html! {
        p { a href=(back) { (client.name) } }
        h1 { "The list as it was read" }
        section {
            p {
                (texts.len()) @if texts.len() == 1 { " network" } @else { " networks" }
                @if count > texts.len() { ", from " (count) " entries: what overlaps or is side by side was merged" }
                "."
            }
            @if added.is_empty() && removed.is_empty() { p { "It is the present list." } }
            (named("+", &added))
            (named("-", &removed))
            @if after.is_empty() { p.warning { "An empty list lets every address call." } }
            @if out.is_empty() { p { "Nobody who was seen in the last 24 hours is shut out." } } @else { (shut(&out)) }
            (save.show(visit))
            p { a href=(back) { "Leave it as it is" } }
        }
    };
    Ok(visit.view("Allowlist", body))
}

fn shut(out: &[UseView]) -> Markup {
    html! {
        div.warning role="alert" {
            strong { "This shuts out addresses that were seen in the last 24 hours:" }
            ul {
                @for used in out.iter().take(NAMED) {
                    @if let Some(address) = used.address { li { (address) ", " (used.times) " times, last at " (time(&used.last_at)) } }
                }
            }
        }
    }
}

fn list(client: &ClientView) -> Result<Allowlist, ApiError> {
    let entries = client.allow.iter().map(|net| parse_cidr(net)).collect::<Result<Vec<_>, _>>();
    entries.map(Allowlist::from_iter).map_err(ApiError::internal)
}
