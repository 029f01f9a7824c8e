//! The signing keys, with their lives.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::KeyView;
use rescind_base::model::UnixSeconds;

use super::{
    Dashboard,
    form::Form,
    key_lives::{self, KeyLife},
    page::{field, time, time_or},
    scale::seconds,
    visit::{Answered, Visit},
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/keys", get(show))
}

async fn show(visit: Visit) -> Answered {
    let keys: Vec<KeyView> = visit.api.get("/keys").await?;
    let body = html! {
        h1 { "Signing keys" }
        p {
            "A key is " strong { "published" } " first, so that every node and verifier has it. Then it " strong { "signs" }
            " until the next one does, and " strong { "verifies" } " until the last token that it signed has expired. Then it is "
            strong { "retired" } ": the service removes it."
        }
        figure.lives { (key_lives::draw(&lives(&keys), visit.dashboard.app.clock.now())) }
        section aria-labelledby="keys" {
            h2 #keys { "Keys" }
            (table(&visit, &keys))
        }
        (rotation(&visit))
    };
    Ok(visit.view("Signing keys", body))
}

/// The keys, the newest first.
fn table(visit: &Visit, keys: &[KeyView]) -> Markup {
    let heads = ["Key", "Algorithm", "State", "Created", "Signs from", "Retires", ""];
    html! {
        table.cards {
            thead { tr { @for head in heads { th scope="col" { (head) } } } }
            tbody {
                @for key in keys.iter().rev() {
                    tr {
                        th scope="row" { code { (key.kid) } }
                        td data-label="Algorithm" { (key.algorithm) }
                        td data-label="State" { (state(&key.status)) }
                        td data-label="Created" { (time(&key.created_at)) }
                        td data-label="Signs from" { (time(&key.signs_from)) }
                        td data-label="Retires" { (time_or(key.retires_at.as_deref(), "not yet known")) }
                        td { @if key.status == "verifying" { (retirement(visit, &key.kid)) } }
                    }
                }
            }
        }
    }
}

fn state(status: &str) -> Markup {
    let (class, text) = match status {
        "signing" => ("good", "signs"),
        "next" => ("warn", "published"),
        _ => ("", "verifies"),
    };
    html! { span.badge.(class) { (text) } }
}

fn retirement(visit: &Visit, kid: &str) -> Markup {
    let form = Form {
        operation: "retireKey",
        parameter: kid,
        fields: html! { p { "Every token that it signed is refused from then on." } },
        button: "Retire it now",
        done: "The key is retired.",
        dangerous: true,
        ..Form::default()
    };
    let form = form.show(visit);
    html! {
        @if !form.0.is_empty() { details { summary { "Retire" span.visually-hidden { " " (kid) } } (form) } }
    }
}

fn rotation(visit: &Visit) -> Markup {
    let fields = html! {
        (field("algorithm", "Algorithm", "", &html! {
            select #algorithm name="algorithm" {
                option value="" { "that of the newest key" }
                @for name in ["HS256", "ES256", "Ed25519", "EdDSA"] { option { (name) } }
            }
        }))
        (field("ahead", "Published for", "Before it signs: 2h, for example. Without a time it signs as soon as it safely can.", &html! {
            input #ahead name="publish_ahead" autocomplete="off" aria-describedby="ahead-hint";
        }))
    };
    let form = Form {
        operation: "rotateKey",
        fields,
        button: "Rotate",
        done: "There is a new key.",
        ..Form::default()
    };
    let form = form.show(visit);
    html! {
        @if !form.0.is_empty() {
            section aria-labelledby="rotation" {
                h2 #rotation { "A new key" }
                div.narrow { (form) }
            }
        }
    }
}

fn lives(keys: &[KeyView]) -> Vec<KeyLife> {
    let next = keys.iter().skip(1).map(|next| Some(seconds(&next.signs_from))).chain([None]);
    let life = |(key, signs_until): (&KeyView, Option<UnixSeconds>)| KeyLife {
        kid: key.kid.clone(),
        created: seconds(&key.created_at),
        signs_from: seconds(&key.signs_from),
        // One that was replaced before it signed never signs.
        signs_until: signs_until.map(|until| until.max(seconds(&key.signs_from))),
        retires: key.retires_at.as_deref().map(seconds),
    };
    keys.iter().zip(next).map(life).collect()
}
