//! Pages without a sign-in: the sign-in itself, and an administrator's enrolment.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{RawQuery, Request, State},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use hyper::HeaderMap;
use maud::{Markup, html};
use qrcodegen::{QrCode, QrCodeEcc};
use rescind_admin::{self as admin, Invited, OfferedSecret, Shown, SignInError};
use rescind_base::secret::ApiSecret;
use zeroize::Zeroizing;

use super::{
    Dashboard,
    form::{self, Fields},
    page::{self, field, hidden, whole},
    visit::{self, Answered, Of, Visit},
};
use crate::{
    auth::Caller,
    http::{
        admin::Refused,
        error::{ApiError, Class},
    },
};

pub(super) fn routes() -> Router<Arc<Dashboard>> {
    Router::new()
        .route("/sign-in", get(sign_in_page).post(sign_in))
        .route("/sign-out", post(sign_out))
        .route("/enrol/{link}", get(enrolment_page).post(enrol))
}

impl From<SignInError> for ApiError {
    fn from(error: SignInError) -> ApiError {
        match error {
            SignInError::Refused => ApiError::new(Class::Unauthorized, error.to_string()),
            SignInError::Throttled => {
                ApiError::new(Class::TooManyRequests, error.to_string()).retry_after(60)
            }
            SignInError::Failed(error) => error.into(),
        }
    }
}

async fn sign_in_page(RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut query = form_urlencoded::parse(query.as_bytes());
    let then = query.find(|(name, _)| name == "then").map(|(_, then)| then).unwrap_or_default();
    let body = html! {
        h1 { "Sign in" }
        form #sign-in.narrow method="post" action="/dashboard/sign-in" hx-post="/dashboard/sign-in"
            hx-target="main" hx-select="main" hx-swap="outerHTML" {
            (field("name", "Name", "", &html! {
                input #name name="name" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus;
            }))
            (field("password", "Password", "", &html! {
                input #password name="password" type="password" autocomplete="current-password" required;
            }))
            (code_field("code"))
            input type="hidden" name="then" value=(then);
            div.outcome aria-live="assertive" {}
            button { "Sign in" }
        }
        p.hint { "A lost password or authenticator: somebody with the role admin, or "
            code { "rescind admin reset" } ", makes a new link." }
    };
    whole("Sign in", None, None, body).into_response()
}

pub(super) fn code_field(id: &str) -> Markup {
    field(
        id,
        "Code",
        "Six digits, from your authenticator.",
        &html! {
            input #(id) name="code" inputmode="numeric" autocomplete="one-time-code" aria-describedby={ (id) "-hint" } required;
        },
    )
}

async fn sign_in(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let headers = request.headers().clone();
    let signed_in = async {
        let fields = Fields::read_of_stranger(request).await?;
        let then = Some(fields.text("then")).filter(|then| page::is_ours(then)).unwrap_or(page::FIRST);
        let cookie = admin::sign_in(&dashboard.app, shown(&fields), caller.peer).await?;
        Ok::<_, ApiError>(begun(&headers, &cookie, then))
    };
    signed_in.await.unwrap_or_else(|e| form::refused_form(&headers, e.into(), "/dashboard/sign-in"))
}

/// What somebody shows in the fields of a form.
pub(super) fn shown(fields: &Fields) -> Shown {
    Shown {
        name: fields.text("name").to_owned(),
        password: Zeroizing::new(fields.exact("password").to_owned()),
        code: fields.text("code").to_owned(),
    }
}

fn begun(headers: &HeaderMap, cookie: &ApiSecret, then: &str) -> Response {
    let mut response = page::lead(headers, then);
    visit::sign_in(&mut response, cookie.expose());
    response
}

async fn sign_out(visit: Visit) -> Answered {
    admin::sign_out(&visit.dashboard.app, &visit.cookie).await?;
    let mut response = Redirect::to("/dashboard/sign-in").into_response();
    visit::sign_out(&mut response);
    Ok(response)
}

fn gone() -> Refused {
    ApiError::new(Class::NotFound, "This link is unknown, was used, or has ended. Ask for a new one").into()
}

async fn enrolment_page(State(dashboard): State<Arc<Dashboard>>, Of(link): Of<String>) -> Answered {
    let app = &dashboard.app;
    let invited = admin::invited(app, &link).await?.ok_or_else(gone)?;
    let OfferedSecret { secret, sealed } = admin::offer_secret(app, &link)?;
    let action = format!("/dashboard/enrol/{link}");
    let name = match &invited {
        Invited::First => None,
        Invited::Known(of) => Some(of.name.as_str()),
    };
    let uri = uri(name.unwrap_or("admin"), &secret);
    let body = html! {
        h1 { @match name { None => "The first administrator", Some(name) => (name) } }
        form #enrolment.narrow method="post" action=(action) hx-post=(action)
            hx-target="main" hx-select="main" hx-swap="outerHTML" {
            @match name {
                None => (field("name", "Name", "By it you sign in. Your role will be admin.", &html! {
                    input #name name="name" autocomplete="username" maxlength="200" aria-describedby="name-hint" required autofocus;
                })),
                // For password managers.
                Some(name) => input.visually-hidden name="name" value=(name) autocomplete="username" readonly tabindex="-1" aria-hidden="true";
            }
            (field("password", "New password", "12 characters or more.", &html! {
                input #password name="password" type="password" autocomplete="new-password" minlength="12"
                    aria-describedby="password-hint" required;
            }))
            (field("again", "The password again", "", &html! {
                input #again name="again" type="password" autocomplete="new-password" required;
            }))
            h2 { "Authenticator" }
            p { "Scan this with an authenticator app, or type the text into it." }
            (qr(&uri))
            p { code.secret { (spaced(&secret)) } }
            (hidden("offered", &sealed))
            (code_field("code"))
            div.outcome aria-live="assertive" {}
            button { "Set up and sign in" }
        }
    };
    Ok(whole("Enrolment", None, None, body).into_response())
}

async fn enrol(
    State(dashboard): State<Arc<Dashboard>>,
    Extension(caller): Extension<Caller>,
    Of(link): Of<String>,
    request: Request,
) -> Response {
    let (headers, app) = (request.headers().clone(), &dashboard.app);
    let enrolled = async {
        let fields = Fields::read_of_stranger(request).await?;
        if fields.exact("password") != fields.exact("again") {
            return Err(ApiError::new(Class::Validation, "again: it is not the same password"));
        }
        let cookie = admin::enrol(app, &link, fields.text("offered"), shown(&fields), caller.peer).await?;
        Ok(begun(&headers, &cookie, page::FIRST))
    };
    let back = format!("/dashboard/enrol/{link}");
    let back = if page::is_ours(&back) { &back } else { page::FIRST };
    enrolled.await.unwrap_or_else(|e| form::refused_form(&headers, e.into(), back))
}

/// The secret for an authenticator, as apps read it.
fn uri(name: &str, secret: &str) -> Zeroizing<String> {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    Zeroizing::new(format!(
        "otpauth://totp/Rescind:{}?secret={secret}&issuer=Rescind",
        name.replace('+', "%20")
    ))
}

fn spaced(secret: &str) -> String {
    secret.as_bytes().chunks(4).map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ")
}

/// A QR code, as a picture in the page.
fn qr(text: &str) -> Markup {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Medium) else { return Markup::default() };
    let dark = (0..code.size()).flat_map(|y| (0..code.size()).map(move |x| (x, y)));
    let path: String =
        dark.filter(|&(x, y)| code.get_module(x, y)).map(|(x, y)| format!("M{x} {y}h1v1h-1z")).collect();
    let all = code.size() + 8;
    html! {
        svg.qr viewBox=(format!("-4 -4 {all} {all}")) role="img" aria-label="QR code with the text below" {
            rect x="-4" y="-4" width=(all) height=(all) fill="#fff" {}
            path d=(path) fill="#000" shape-rendering="crispEdges" {}
        }
    }
}
