//! One client, and the form for a new one.

use std::sync::Arc;

use axum::{Router, routing::get};
use maud::{Markup, html};
use rescind_admin::{ClientView, CredentialView, SessionView, SessionsView, UsageView, UseView};
use rescind_base::model::{Role::Operator, Status};

use super::{
    Dashboard, allowlist,
    clients::{PATH, status},
    credentials,
    form::Form,
    page::{check, field, hidden, lines, time, time_or},
    shown_client::ShownClient,
    usage,
    visit::{Answered, Of, Visit},
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new().route("/clients/new", get(new)).route("/clients/{id}", get(show))
}

async fn new(visit: Visit) -> Answered {
    let fields = html! {
        (field("new-name", "Name", "For people.", &html! {
            input #new-name name="name" maxlength="200" required autofocus autocomplete="off" aria-describedby="new-name-hint";
        }))
        (lines("new-allow", "allow", "Allowlist", "The networks that the client may call from: addresses, networks or ranges, a line each, or a list as it is published. Empty: every address.", &[]))
        (lines("new-scopes", "scopes", "Scopes", "A line each.", &[]))
        details {
            summary { "More" }
            (lines("new-resources", "resources", "Resources", "URIs of the APIs that its tokens are for, a line each. Empty: the default audience.", &[]))
            (lines("new-certificates", "certificates", "Certificate names", "Such as dns:client.example, a line each. Empty: no certificate is needed.", &[]))
            (check("enforces_allowlist", "It enforces the allowlists of the tokens that it introspects"))
        }
    };
    let form = Form { operation: "createClient", fields, button: "Create", then: PATH, ..Form::default() };
    let body = html! {
        p { a href=(PATH) { "Clients" } }
        h1 { "New client" }
        section.narrow { (form.show(&visit)) }
    };
    Ok(visit.view("New client", body))
}

async fn show(visit: Visit, Of(id): Of<u64>) -> Answered {
    let (client, answer): (ClientView, _) = visit.api.read(&format!("/clients/{id}")).await?;
    let credentials: Vec<CredentialView> = visit.api.get(&format!("/clients/{id}/credentials")).await?;
    let uses: Vec<UseView> = visit.api.get(&format!("/clients/{id}/uses")).await?;
    let sessions: SessionsView = visit.api.get(&format!("/clients/{id}/sessions?limit=50")).await?;
    let usage: UsageView = visit.api.get(&format!("/clients/{id}/usage?since=7d")).await?;
    let check = allowlist::tested(&visit, id).await?;
    let denied = allowlist::denied_lately(&visit, id).await?;
    let shown = ShownClient { visit: &visit, client: &client, id: id.to_string(), version: answer.version };
    let body = html! {
        p { a href=(PATH) { "Clients" } }
        div.title { h1 { (client.name) } (status(client.status)) }
        (facts(&shown))
        (credentials::section(&shown, &credentials, &uses))
        (allowlist::section(&shown, check, &denied))
        (sessions_of(&shown, &sessions))
        (usage::section("Use, 7 days", &usage.hours))
        (properties(&shown))
        (danger(&shown, &sessions))
    };
    Ok(visit.view(&client.name, body))
}

fn facts(shown: &ShownClient<'_>) -> Markup {
    let client = shown.client;
    let rename = html! {
        (field("name", "Name", "", &html! { input #name name="name" maxlength="200" required value=(client.name); }))
    };
    html! {
        section aria-label="The client" {
            dl {
                dt { "Id" } dd { (client.client_id) }
                dt { "Created" } dd { (time(&client.created_at)) }
                dt { "Last used" } dd { (time_or(client.last_used_at.as_deref(), "never")) }
                @if client.status == Status::Suspended {
                    dt { "Suspended" }
                    dd {
                        @match &client.suspended_until { Some(until) => { "until " (time(until)) } None => "until somebody resumes it" }
                        @if let Some(reason) = &client.suspension_reason { ": " (reason) }
                    }
                }
            }
            @if shown.visit.may(Operator) {
                details { summary { "Rename" } (shown.form("renameClient", "Rename", "The client has another name.", rename)) }
            }
        }
    }
}

fn sessions_of(shown: &ShownClient<'_>, sessions: &SessionsView) -> Markup {
    html! {
        section aria-labelledby="sessions" {
            h2 #sessions { "Sessions" }
            @if sessions.sessions.is_empty() { p.none { "No session is live." } } @else {
                p { (sessions.live) " live" @if sessions.live > sessions.sessions.len() { ", the newest " (sessions.sessions.len()) " are shown" } }
                table.cards {
                    thead { tr { th { "Id" } th { "Began" } th { "Last tokens" } th { "Ends" } th { "Credential" } th { "Status" } th { span.visually-hidden { "Actions" } } } }
                    tbody { @for session in &sessions.sessions { (session_row(shown, session)) } }
                }
            }
        }
    }
}

fn session_row(shown: &ShownClient<'_>, session: &SessionView) -> Markup {
    let id = session.session_id.to_string();
    let end = Form {
        operation: "revokeSession",
        parameter: &id,
        button: "End",
        done: "The session has ended, with all its tokens.",
        ..Form::default()
    };
    let key = session.api_key.as_deref().unwrap_or_default();
    html! {
        tr {
            th scope="row" { (id) }
            td data-label="Began" { (time(&session.started_at)) }
            td data-label="Last tokens" { (time(&session.issued_at)) }
            td data-label="Ends" { (time(session.refresh_expires_at.as_ref().unwrap_or(&session.access_expires_at))) }
            td data-label="Credential" { code title=(key) { (credentials::short(key)) } }
            td data-label="Status" { (session.status) }
            td { (end.show(shown.visit)) }
        }
    }
}

fn properties(shown: &ShownClient<'_>) -> Markup {
    let client = shown.client;
    let lifetime = client.introspect_lifetime.map(|span| span.to_string()).unwrap_or_default();
    let list = |name: &str, texts: &[String], none: &str| {
        html! {
            dt { (name) }
            dd { @if texts.is_empty() { span.none { (none) } } @for text in texts { code { (text) } br; } }
        }
    };
    let kept =
        html! { @for uri in &client.resources { (check_value("remove", uri, &format!("Remove {uri}"))) } };
    html! {
        section aria-labelledby="properties" {
            h2 #properties { "What its tokens may" }
            dl {
                (list("Scopes", &client.scopes, "none"))
                (list("Resources", &client.resources, "the default audience"))
                (list("Certificate names", &client.certificates, "no certificate is needed"))
                dt { "Introspection" }
                dd {
                    @if client.enforces_allowlist { "enforces allowlists" } @else { span.none { "enforces no allowlists" } }
                    @if !lifetime.is_empty() { ", keeps answers for " (lifetime) }
                }
            }
            @if shown.visit.may(Operator) {
                details { summary { "Change the scopes" }
                    (shown.form("updateClient", "Save the scopes", "The client has these scopes.",
                        lines("scopes", "scopes", "Scopes", "A line each.", &client.scopes)))
                }
                details { summary { "Change the resources" }
                    (shown.form("changeResources", "Save the resources", "The client has these resources.",
                        html! { (kept) (lines("add-resources", "add", "New resources", "URIs, a line each. If the client loses one, all its tokens are revoked.", &[])) }))
                }
                details { summary { "Change the certificate names" }
                    (shown.form("updateClient", "Save the names", "The client is bound to these names.",
                        html! {
                            (lines("certificates", "certificates", "Certificate names", "A line each.", &client.certificates))
                            (check("unbind", "No name may be left, so that the client needs no certificate"))
                        }))
                }
                details { summary { "Change its introspection" }
                    (shown.form("changeEnforcement", "Save", "It was saved.", html! {
                        div.field { label.check { input type="checkbox" name="enforces_allowlist" value="true" checked[client.enforces_allowlist]; "It enforces the allowlists of the tokens that it introspects" } }
                        (hidden("enforces_allowlist", "false"))
                    }))
                    (shown.form("changeLifetime", "Save", "It was saved.",
                        field("lifetime", "It keeps answers for", "Such as 30s. Empty: until the token expires.", &html! {
                            input #lifetime name="introspect_lifetime" value=(lifetime) aria-describedby="lifetime-hint";
                        })))
                }
            }
        }
    }
}

fn check_value(name: &str, value: &str, label: &str) -> Markup {
    html! { div.field { label.check { input type="checkbox" name=(name) value=(value); (label) } } }
}

fn danger(shown: &ShownClient<'_>, sessions: &SessionsView) -> Markup {
    if !shown.visit.may(Operator) {
        return Markup::default();
    }
    let dangerous = |operation, button, done, then: &str, fields| {
        let (parameter, version) = (shown.id.as_str(), shown.version.as_deref());
        let form = Form { operation, parameter, fields, button, done, version, then, dangerous: true };
        form.show(shown.visit)
    };
    let suspend = html! {
        div.row {
            (field("for", "For", "Such as 2h. Empty: until somebody resumes it.", &html! { input #for name="for" aria-describedby="for-hint"; }))
            (field("reason", "Reason", "For people.", &html! { input #reason name="reason" maxlength="200" aria-describedby="reason-hint"; }))
        }
    };
    html! {
        section.danger aria-labelledby="danger" {
            h2 #danger { "Danger zone" }
            h3 { "Revoke all tokens" }
            p { "Every token of its " strong { (sessions.live) " live sessions" } " is refused from the answer on. The client can log in again at once." }
            (dangerous("logOutClient", "Revoke all tokens", "All tokens are revoked.", "", html! {}))
            @if shown.client.status == Status::Suspended {
                h3 { "Suspended" }
                (shown.form("resumeClient", "Resume", "The client can log in again.", html! {}))
            } @else {
                h3 { "Suspend" }
                p { "All tokens are revoked, and the client cannot log in." }
                (dangerous("suspendClient", "Suspend", "The client is suspended, and all its tokens are revoked.", "", suspend))
            }
            h3 { "Delete" }
            p { "Its credentials and every token of its " strong { (sessions.live) " live sessions" } " are revoked. This cannot be undone." }
            (dangerous("deleteClient", "Delete the client", "The client was deleted.", PATH, html! {}))
        }
    }
}
