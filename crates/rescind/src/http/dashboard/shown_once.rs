//! What is shown once, in the answer to its creation, and never again: secrets, tokens and links.

use axum::response::Response;
use maud::{Markup, html};
use rescind_node::app::App;
use serde_json::Value;

use super::{credentials, visit::Visit};

/// The page with the secret of what was created, if it has one. It is left by a button that says that the secret is stored.
pub(super) fn page(visit: &Visit, created: &Value, then: &str) -> Option<Response> {
    let text = |name: &str| created[name].as_str();
    let client = created["client_id"].as_u64().map(|id| format!("/dashboard/clients/{id}"));
    let then = client.as_deref().unwrap_or(then);
    let app = &visit.dashboard.app;
    let body = if let Some(secret) = text("api_secret") {
        let key = text("api_key").unwrap_or_default();
        html! {
            (credential(app, key, secret))
            p { "Somebody else can read it once, by a link that is good for a day:" }
            (credentials::hand_over(visit, key, secret, then))
        }
    } else if let Some(token) = text("token") {
        value("token", "The token", token)
    } else if let Some(link) = text("link") {
        let url = app.urls.get().map_or("", |urls| urls.management.as_str());
        value("link", "The link, which is good once", &format!("{url}{link}"))
    } else {
        return None;
    };
    let name = text("name").or_else(|| text("api_key")).unwrap_or_default();
    let body = html! {
        dialog.once open aria-labelledby="once" {
            h1 #once { "Shown once" @if !name.is_empty() { ": " (name) } }
            p { strong { "This is shown now, and never again." } " Store it before you go on." }
            (body)
            p { a.button #stored href=(then) { "I have stored it" } }
        }
    };
    Some(visit.view("Shown once", body))
}

/// A credential as people and programs need it.
pub(super) fn credential(app: &App, key: &str, secret: &str) -> Markup {
    let url = app.urls.get().map_or("", |urls| urls.public.as_str());
    let env = format!("RESCIND_URL={url}\nRESCIND_API_KEY={key}\nRESCIND_API_SECRET={secret}\n");
    let curl = format!(
        "curl -H 'Content-Type: application/json' {url}/auth/login \\\n  -d '{{\"username\": \"{key}\", \"password\": \"{secret}\"}}'\n"
    );
    html! {
        (value("key", "API key", key))
        (value("secret", "API secret", secret))
        (value("env", "As .env", &env))
        (value("curl", "A first login", &curl))
    }
}

/// A text with a button that copies it.
fn value(id: &str, label: &str, text: &str) -> Markup {
    html! {
        div.value {
            h2 #{ (id) "-label" } { (label) }
            pre #(id) tabindex="0" aria-labelledby={ (id) "-label" } { (text) }
            button.copy.quiet type="button" data-copy=(id) hidden { "Copy" span.visually-hidden { " " (label) } }
        }
    }
}
