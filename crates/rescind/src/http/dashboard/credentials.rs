//! The credentials of a client, and when and from where each was used last.

use maud::{Markup, html};
use rescind_admin::{CredentialView, UseView};
use rescind_base::model::Role::Operator;

use super::{
    form::Form,
    page::{field, hidden, time, time_or},
    shown_client::ShownClient,
};

pub(super) fn section(shown: &ShownClient<'_>, credentials: &[CredentialView], uses: &[UseView]) -> Markup {
    let expires = field(
        "expires",
        "Ends after",
        "Such as 90d. Empty: never.",
        &html! {
            input #expires name="expires_in" aria-describedby="expires-hint";
        },
    );
    let new = Form {
        operation: "createCredential",
        parameter: &shown.id,
        fields: expires,
        button: "One more credential",
        ..Form::default()
    };
    // The newest first.
    let (good, ended): (Vec<_>, Vec<_>) =
        credentials.iter().rev().partition(|credential| credential.status == "active");
    html! {
        section aria-labelledby="credentials" {
            h2 #credentials { "Credentials" }
            @if good.is_empty() { p.none { "No credential can log in." } }
            @for credential in good { (one(shown, credential, uses)) }
            @if shown.visit.may(Operator) { details { summary { "One more credential" } (new.show(shown.visit)) } }
            @if !ended.is_empty() {
                details {
                    summary { (ended.len()) " that have ended" }
                    @for credential in ended { (one(shown, credential, uses)) }
                }
            }
        }
    }
}

fn one(shown: &ShownClient<'_>, credential: &CredentialView, uses: &[UseView]) -> Markup {
    let key = credential.api_key.as_str();
    let last = uses.iter().find(|used| used.api_key == key);
    let badge = match (credential.status.as_str(), &credential.replaced_at) {
        ("active", Some(_)) => html! { span.badge.warn { "replaced" } },
        ("active", None) => html! { span.badge.good { "active" } },
        (status, _) => html! { span.badge.bad { (status) } },
    };
    html! {
        article.credential aria-label={ "Credential " (short(key)) } {
            div.title { h3 { code { (key) } } (badge) }
            dl {
                dt { "Last used" }
                dd {
                    @match last {
                        Some(used) => { (time(&used.last_at)) @if let Some(address) = used.address { " from " (address) } }
                        None => span.none { "never" }
                    }
                }
                dt { "Created" } dd { (time(&credential.created_at)) }
                @match &credential.revoked_at {
                    Some(at) => { dt { "Revoked" } dd { (time(at)) } }
                    None => { dt { "Ends" } dd { (time_or(credential.expires_at.as_deref(), "never")) } }
                }
                @if let Some(at) = &credential.replaced_at { dt { "Replaced" } dd { (time(at)) } }
                @if let Some(note) = &credential.note { dt { "Kept" } dd { (note) } }
            }
            @if credential.status == "active" && shown.visit.may(Operator) { (actions(shown, credential, last)) }
        }
    }
}

fn actions(shown: &ShownClient<'_>, credential: &CredentialView, last: Option<&UseView>) -> Markup {
    let key = credential.api_key.as_str();
    let form = |operation, button, done, dangerous, fields| {
        Form { operation, parameter: key, fields, button, done, dangerous, ..Form::default() }
            .show(shown.visit)
    };
    let id = |name: &str| format!("{name}-{}", short(key).trim_end_matches('…'));
    let (overlap, note) = (id("overlap"), id("note"));
    let rotation = field(
        &overlap,
        "The old secret stays good for",
        "",
        &html! {
            select #(overlap) name="overlap" {
                @for (value, text) in [("1h", "1 hour"), ("24h", "1 day"), ("7d", "7 days"), ("30d", "30 days")] {
                    option value=(value) selected[value == "24h"] { (text) }
                }
            }
        },
    );
    let kept = field(
        &note,
        "Where the secret is kept",
        "The place, never the secret.",
        &html! {
            input #(note) name="note" maxlength="200" value=(credential.note.as_deref().unwrap_or_default());
        },
    );
    html! {
        @if credential.replaced_at.is_some() {
            p {
                @match last {
                    Some(used) => { "It was used last at " (time(&used.last_at)) @if let Some(address) = used.address { " from " (address) } "." }
                    None => "It was never used."
                }
                " When nobody uses it any more, it can end before its time."
            }
            (form("revokeCredential", "End it now", "The old secret has ended, with the tokens of its sessions.", true, html! {}))
        } @else {
            details { summary { "Rotate" } (form("rotateCredential", "Rotate", "", false, rotation)) }
            details {
                summary { "Revoke" }
                p { "The secret and every token of its sessions are refused from the answer on." }
                (form("revokeCredential", "Revoke", "The credential is revoked, with the tokens of its sessions.", true, html! {}))
            }
        }
        details { summary { "Note where it is kept" } (form("noteCredential", "Save the note", "The note was saved.", false, kept)) }
    }
}

/// The form that makes a link for a secret which is shown just now.
pub(super) fn hand_over(visit: &super::visit::Visit, key: &str, secret: &str, then: &str) -> Markup {
    let fields = html! { (hidden("api_key", key)) (hidden("api_secret", secret)) };
    Form {
        operation: "handOverSecret",
        fields,
        button: "Make a one-time link instead",
        then,
        ..Form::default()
    }
    .show(visit)
}

/// An API key by its beginning, by which people tell it from others.
pub(super) fn short(key: &str) -> String {
    match key.get(..11) {
        Some(beginning) => format!("{beginning}…"),
        None => key.to_owned(),
    }
}
