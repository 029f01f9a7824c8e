//! The nodes of the cluster, and the verifiers.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::{ClusterView, FollowerView, NodeView, StatusView, VerifierView};

use super::{
    Dashboard,
    form::Form,
    page::{field, time},
    visit::{Answered, Visit},
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/cluster", get(show))
}

async fn show(visit: Visit) -> Answered {
    let status: StatusView = visit.api.get("/status").await?;
    let verifiers: Vec<VerifierView> = visit.api.get("/verifiers").await?;
    let body = html! {
        h1 { "Nodes and verifiers" }
        section aria-labelledby="nodes" {
            h2 #nodes { "Nodes" }
            @match &status.cluster {
                Some(cluster) => (nodes(cluster, &status)),
                None => p { "One process has the store (" (status.store) ") to itself: there are no other nodes, and it needs no lease." },
            }
        }
        section aria-labelledby="followers" {
            h2 #followers { "Attached to this node" }
            p.hint { "Processes of verifiers that hold a lease. Every change waits until they have acknowledged it, or their lease has ended." }
            @if status.followers.is_empty() { p.none { "None is attached now." } } @else { (followers(&status.followers, &verifiers)) }
        }
        section aria-labelledby="verifiers" {
            h2 #verifiers { "Verifiers" }
            p.hint { "APIs that may follow the changes and decide on tokens in their own process." }
            @if verifiers.is_empty() { p.none { "There is none yet." } } @else { (registered(&visit, &verifiers)) }
        }
        (creation(&visit))
    };
    Ok(visit.view("Nodes and verifiers", body))
}

fn nodes(cluster: &ClusterView, status: &StatusView) -> Markup {
    let stand_bys = cluster.synchronous_standby_names.as_str();
    html! {
        dl {
            dt { "This node's lease" }
            dd { (seconds(cluster.lease_ms)) " left" @if let Some(why) = &status.lease_not_renewed { ". Not renewed: " (why) } }
            dt { "Changes" } dd { (cluster.applied) " of " (cluster.head) " in this node's memory" }
            dt { "Commits wait for" } dd { @if stand_bys.is_empty() { "no stand-by" } @else { code { (stand_bys) } } }
            @if !cluster.history.is_empty() { dt { "The database's history" } dd { (cluster.history) } }
        }
        table.cards {
            thead { tr { @for head in ["Node", "Number", "Behind by", "Acknowledged", "Heard of"] { th scope="col" { (head) } } } }
            tbody {
                @for NodeView { node, name, acknowledged, lag, heard_ms_ago } in &cluster.nodes {
                    tr {
                        th scope="row" { (name) @if *node == cluster.node { " " span.badge.good { "this one" } } }
                        td data-label="Number" { (node) }
                        td data-label="Behind by" { (behind(*lag)) }
                        td data-label="Acknowledged" { (acknowledged) }
                        td data-label="Heard of" { (seconds(*heard_ms_ago)) " ago" }
                    }
                }
            }
        }
    }
}

fn followers(followers: &[FollowerView], verifiers: &[VerifierView]) -> Markup {
    let name_of = |id: u64| {
        verifiers.iter().find(|verifier| verifier.verifier_id == id).map_or("?", |verifier| &verifier.name)
    };
    html! {
        table.cards {
            thead { tr { @for head in ["Process", "Verifier", "Behind by", "Acknowledged", "Lease ends within"] { th scope="col" { (head) } } } }
            tbody {
                @for FollowerView { verifier_id, name, acknowledged, lag, lease_ms } in followers {
                    tr {
                        th scope="row" { (name) }
                        td data-label="Verifier" { (name_of(*verifier_id)) }
                        td data-label="Behind by" { (behind(*lag)) }
                        td data-label="Acknowledged" { (acknowledged) }
                        td data-label="Lease ends within" { (seconds(*lease_ms)) }
                    }
                }
            }
        }
    }
}

fn registered(visit: &Visit, verifiers: &[VerifierView]) -> Markup {
    html! {
        table.cards {
            thead { tr { @for head in ["Name", "Number", "Keys", "Created", ""] { th scope="col" { (head) } } } }
            tbody {
                @for VerifierView { verifier_id, name, share_hs256, created_at } in verifiers {
                    tr {
                        th scope="row" { (name) }
                        td data-label="Number" { (verifier_id) }
                        td data-label="Keys" { @if *share_hs256 { "public, and HS256" } @else { "public" } }
                        td data-label="Created" { (time(created_at)) }
                        td { (revocation(visit, *verifier_id, name)) }
                    }
                }
            }
        }
    }
}

fn revocation(visit: &Visit, id: u64, name: &str) -> Markup {
    let form = Form {
        operation: "revokeVerifier",
        parameter: &id.to_string(),
        fields: html! { p { "It follows no longer, and refuses every token when its lease has ended." } },
        button: "Revoke it",
        done: "The verifier is revoked.",
        dangerous: true,
        ..Form::default()
    };
    let form = form.show(visit);
    html! {
        @if !form.0.is_empty() { details { summary { "Revoke" span.visually-hidden { " " (name) } } (form) } }
    }
}

fn creation(visit: &Visit) -> Markup {
    let fields = html! {
        (field("name", "Name", "", &html! { input #name name="name" required autocomplete="off"; }))
        div.field {
            label.check {
                input type="checkbox" name="share_hs256" value="true" aria-describedby="hs256-hint";
                span { "Give it HS256 keys too" }
            }
            small #hs256-hint { "It could sign tokens with them. Without them it verifies tokens of ES256 and Ed25519 keys." }
        }
    };
    let form = Form { operation: "createVerifier", fields, button: "Create", ..Form::default() }.show(visit);
    html! {
        @if !form.0.is_empty() {
            section aria-labelledby="new" { h2 #new { "A new verifier" } div.narrow { (form) } }
        }
    }
}

fn behind(changes: u64) -> Markup {
    html! {
        @match changes {
            0 => span.badge.good { "nothing" },
            1 => span.badge.warn { "1 change" },
            many => span.badge.warn { (many) " changes" },
        }
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}
