//! Administrators, for those with the role admin; and one's own account.

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    response::Response,
    routing::{get, post},
};
use maud::{Markup, html};
use rescind_admin::{self as admin, AdministratorView, Shown};
use rescind_base::model::Role;
use zeroize::Zeroizing;

use super::{
    Dashboard,
    form::{self, Fields, Form},
    page::{self, field, time, time_or},
    signing_in::{code_field, shown},
    visit::{self, Answered, Visit},
};
use crate::http::error::{ApiError, Class};

const ROLES: [Role; 3] = [Role::Viewer, Role::Operator, Role::Admin];
const ACCOUNT: &str = "/dashboard/account";

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/administrators", get(list))
        .route("/account", get(account))
        .route("/account/password", post(change_password))
        .route("/account/enrolment", post(enrol_again))
}

async fn list(visit: Visit) -> Answered {
    let administrators: Vec<AdministratorView> = visit.api.get("/administrators").await?;
    let fields = html! {
        (field("new-name", "Name", "By it the administrator signs in.", &html! {
            input #new-name name="name" maxlength="200" required autocomplete="off" aria-describedby="new-name-hint";
        }))
        (field("new-role", "Role", "A viewer reads. An operator also changes clients. An admin does everything.", &roles("new-role", Role::Viewer)))
    };
    let new = Form {
        operation: "createAdministrator",
        fields,
        button: "Create, and make a link",
        ..Form::default()
    };
    let body = html! {
        h1 { "Administrators" }
        section aria-label="Administrators" {
            table.cards {
                thead { tr { th { "Name" } th { "Role" } th { "Signed in" } th { "Created" } th { "Enrolled" } th { span.visually-hidden { "Actions" } } } }
                tbody { @for of in &administrators { (row(&visit, of)) } }
            }
        }
        section.narrow aria-labelledby="new" { h2 #new { "New administrator" } (new.show(&visit)) }
    };
    Ok(visit.view("Administrators", body))
}

fn row(visit: &Visit, of: &AdministratorView) -> Markup {
    let id = of.administrator_id.to_string();
    let form = |operation, button, done, dangerous, fields| {
        Form { operation, parameter: &id, fields, button, done, dangerous, ..Form::default() }.show(visit)
    };
    let select = format!("role-{id}");
    html! {
        tr {
            th scope="row" { (of.name) }
            td data-label="Role" { (of.role.name()) }
            td data-label="Signed in" { (time_or(of.signed_in_at.as_deref(), "never")) }
            td data-label="Created" { (time(&of.created_at)) }
            td data-label="Enrolled" {
                @match (of.enrolled, &of.link_until) {
                    (_, Some(until)) => { "by the link, until " (time(until)) }
                    (true, None) => { "yes" }
                    (false, None) => span.none { "no: the link has ended" }
                }
            }
            td {
                details {
                    summary { "Change" }
                    (form("changeRole", "Change the role", "The role was changed, and the sign-ins have ended.", false,
                        field(&select, "Role", "", &roles(&select, of.role))))
                    (form("resetAdministrator", "Reset", "", true, html! { p { "Takes the password, the authenticator and all sign-ins away, and makes a link." } }))
                    (form("removeAdministrator", "Remove", "The administrator was removed.", true, html! { p { "All sign-ins end." } }))
                }
            }
        }
    }
}

fn roles(id: &str, chosen: Role) -> Markup {
    html! {
        select #(id) name="role" { @for role in ROLES { option value=(role.name()) selected[role == chosen] { (role.name()) } } }
    }
}

async fn account(visit: Visit) -> Answered {
    let own = |path: &str, button: &str, fields: Markup| {
        let (action, id) = (format!("{ACCOUNT}/{path}"), format!("form-{path}"));
        html! {
            form #(id) method="post" action=(action) hx-post=(action) hx-target="main" hx-select="main" hx-swap="outerHTML" {
                input.visually-hidden value=(visit.administrator().name) autocomplete="username" readonly tabindex="-1" aria-hidden="true";
                (fields)
                div.outcome aria-live="assertive" {}
                button { (button) }
            }
        }
    };
    let password = |id: &str, name: &str, label: &str, kind: &str| {
        field(id, label, "", &html! { input #(id) name=(name) type="password" autocomplete=(kind) required; })
    };
    let of = visit.administrator();
    let body = html! {
        h1 { "Your account" }
        section { dl { dt { "Name" } dd { (of.name) } dt { "Role" } dd { (of.role.name()) } } }
        div.columns {
            section aria-labelledby="new-password" {
                h2 #new-password { "Another password" }
                p { "Your other sign-ins end." }
                (own("password", "Change the password", html! {
                    (password("present", "password", "Present password", "current-password"))
                    (password("new", "new", "New password, 12 characters or more", "new-password"))
                    (password("again", "again", "The new password again", "new-password"))
                    (code_field("code"))
                }))
            }
            section aria-labelledby="new-authenticator" {
                h2 #new-authenticator { "Another authenticator" }
                p { "You choose a password with it. What you have now is good until then." }
                (own("enrolment", "Set up again", html! {
                    (password("present-again", "password", "Present password", "current-password"))
                    (code_field("code-again"))
                }))
            }
        }
    };
    Ok(visit.view("Your account", body))
}

/// What the administrator who has signed in shows again.
fn again(visit: &Visit, fields: &Fields) -> Shown {
    Shown { name: visit.administrator().name.clone(), ..shown(fields) }
}

async fn change_password(mut visit: Visit, request: Request) -> Response {
    let headers = request.headers().clone();
    let changed = async {
        let fields = visit.form(request, Role::Viewer).await?;
        if fields.exact("new") != fields.exact("again") {
            return Err(ApiError::new(Class::Validation, "again: it is not the same password"));
        }
        let (app, new) = (&visit.dashboard.app, Zeroizing::new(fields.exact("new").to_owned()));
        let cookie = admin::change_password(app, again(&visit, &fields), new, visit.caller.peer).await?;
        let mut response =
            visit.go(ACCOUNT, "The password was changed, and your other sign-ins have ended.", None);
        visit::sign_in(&mut response, cookie.expose());
        Ok(response)
    };
    changed.await.unwrap_or_else(|e| form::refused_form(&headers, e.into(), ACCOUNT))
}

async fn enrol_again(mut visit: Visit, request: Request) -> Response {
    let headers = request.headers().clone();
    let link = async {
        let fields = visit.form(request, Role::Viewer).await?;
        Ok::<_, ApiError>(
            admin::enrol_again(&visit.dashboard.app, again(&visit, &fields), visit.caller.peer).await?,
        )
    };
    match link.await {
        Ok(link) => page::lead(&headers, &link),
        Err(e) => form::refused_form(&headers, e.into(), ACCOUNT),
    }
}
