//! A request of an administrator who has signed in.
//!
//! The cookie's name makes browsers refuse one that is not `Secure`, that names a domain, or that another host has set
//! (RFC 6265bis §4.1.3.2). Chromium takes it over HTTP too if the address is this machine itself.

use std::{fmt, sync::Arc};

use axum::{
    extract::{FromRequestParts, OriginalUri, Path},
    response::{IntoResponse, Redirect, Response},
};
use data_encoding::BASE64URL_NOPAD;
use hyper::{
    HeaderMap, Method,
    header::{COOKIE, HeaderValue, SET_COOKIE},
    http::request::Parts,
};
use maud::Markup;
use rescind_admin as admin;
use rescind_base::model::{Administrator, Role};
use rescind_node::cluster::Receipt;
use serde::de::DeserializeOwned;

use super::{
    Dashboard,
    page::{self, Said, Whose},
};
use crate::{
    auth::Caller,
    http::{
        admin::{Api, Refused},
        error::{ApiError, Class},
    },
};

/// The cookie of a sign-in.
const COOKIE_NAME: &str = "__Host-rescind";
/// The cookie that tells the next page what was done. It is read once.
const SAID_NAME: &str = "__Host-rescind-said";

/// A request of an administrator who has signed in.
pub(super) struct Visit {
    pub(super) dashboard: Arc<Dashboard>,
    pub(super) api: Api,
    pub(super) caller: Caller,
    /// The path, with the query.
    pub(super) path: String,
    pub(super) cookie: String,
    query: Vec<(String, String)>,
    said: Option<Said>,
    headers: HeaderMap,
}

/// The parameters of a path. If they cannot be read, there is no such page.
pub(super) struct Of<P>(pub(super) P);

impl<P: DeserializeOwned + Send> FromRequestParts<Arc<Dashboard>> for Of<P> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Of<P>, Response> {
        let read = Path::from_request_parts(parts, dashboard).await;
        read.map(|Path(parameters)| Of(parameters)).map_err(|_| page::refused(crate::http::not_found()))
    }
}

impl FromRequestParts<Arc<Dashboard>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Arc<Dashboard>) -> Result<Visit, Response> {
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, &()).await;
        let path = uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| page::refused(crate::http::not_found()))?;
        let cookie = cookie(&parts.headers, COOKIE_NAME).unwrap_or_default();
        let administrator = signed_in(dashboard, cookie).await.map_err(page::refused)?;
        let Some(administrator) = administrator else {
            // A form is gone, and what it leads to is no page.
            let is_page = [Method::GET, Method::HEAD].contains(&parts.method);
            return Err(wanted(&parts.headers, if is_page { &path } else { page::FIRST }));
        };
        let said = self::cookie(&parts.headers, SAID_NAME)
            .and_then(|said| BASE64URL_NOPAD.decode(said.as_bytes()).ok())
            .and_then(|said| serde_json::from_slice(&said).ok());
        Ok(Visit {
            dashboard: Arc::clone(dashboard),
            api: Api::new(Arc::clone(&dashboard.inside), administrator, caller.clone()),
            caller,
            cookie: cookie.to_owned(),
            query: form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect(),
            path,
            said,
            headers: parts.headers.clone(),
        })
    }
}

impl Visit {
    pub(super) fn administrator(&self) -> &Administrator {
        &self.api.administrator
    }

    pub(super) fn may(&self, role: Role) -> bool {
        self.administrator().role >= role
    }

    /// A value of the query. Empty if it is absent.
    pub(super) fn query(&self, name: &str) -> &str {
        self.query.iter().find(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    /// The query with other values for some names. An empty value removes the name.
    pub(super) fn query_with(&self, changed: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let kept = self.query.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        query.extend_pairs(kept.filter(|(_, value)| !value.is_empty()));
        query.extend_pairs(changed.iter().filter(|(_, value)| !value.is_empty()));
        query.finish()
    }

    /// Reads the sign-in again, which may have ended since the request began.
    ///
    /// # Errors
    ///
    /// If it has ended, or nobody can say safely whether it has.
    pub(super) async fn still(&mut self) -> Result<(), ApiError> {
        let ended = || ApiError::new(Class::Unauthorized, "Your sign-in has ended. Sign in again");
        self.api.administrator = signed_in(&self.dashboard, &self.cookie).await?.ok_or_else(ended)?;
        Ok(())
    }

    /// Answers with a page.
    pub(super) fn view(&self, title: &str, body: Markup) -> Response {
        let whose = Whose { administrator: self.administrator(), path: &self.path };
        let mut response = page::whole(title, Some(&whose), self.said.as_ref(), body).into_response();
        if self.said.is_some() {
            set_cookie(&mut response, SAID_NAME, "", Some(0));
        }
        response
    }

    /// Shows another page, which tells what was done.
    pub(super) fn go(&self, path: &str, what: impl fmt::Display, receipt: Option<Receipt>) -> Response {
        let said = serde_json::to_vec(&Said { what: what.to_string(), receipt }).unwrap_or_default();
        let mut response = page::lead(&self.headers, path);
        set_cookie(&mut response, SAID_NAME, &BASE64URL_NOPAD.encode(&said), Some(60));
        response
    }
}

/// Whose cookie this is, as this node can say safely.
pub(super) async fn signed_in(
    dashboard: &Dashboard,
    cookie: &str,
) -> Result<Option<Administrator>, ApiError> {
    let administrator = admin::signed_in(&dashboard.app, cookie).await?;
    if administrator.is_some() && dashboard.app.cluster.lease.check().is_err() {
        let problem = "This node has no lease: it cannot say safely what is so now";
        return Err(ApiError::new(Class::Unavailable, problem));
    }
    Ok(administrator)
}

/// Answers a request for a page that needs a sign-in.
fn wanted(headers: &HeaderMap, path: &str) -> Response {
    // The browser keeps the cookie back from a page of another origin that leads here. From this page it does not.
    let comes_from_elsewhere = headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    let path = if page::is_ours(path) { path } else { page::FIRST };
    if comes_from_elsewhere {
        return page::onward(path).into_response();
    }
    let then = form_urlencoded::Serializer::new(String::new()).append_pair("then", path).finish();
    Redirect::to(&format!("/dashboard/sign-in?{then}")).into_response()
}

/// An answer of a page: itself, or why it cannot be shown.
pub(super) type Answered = Result<Response, Refused>;

/// Adds the cookie of a sign-in, which the browser forgets when it is closed.
pub(super) fn sign_in(response: &mut Response, cookie: &str) {
    set_cookie(response, COOKIE_NAME, cookie, None);
}

/// Removes the cookie of a sign-in.
pub(super) fn sign_out(response: &mut Response) {
    set_cookie(response, COOKIE_NAME, "", Some(0));
}

fn set_cookie(response: &mut Response, name: &str, value: &str, seconds: Option<u32>) {
    let ends = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{ends}");
    let header = HeaderValue::try_from(text).ok().map(|value| (SET_COOKIE, value));
    if let Some((name, value)) = header {
        response.headers_mut().append(name, value);
    }
}

/// The value of a cookie. One that comes twice is not read.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut values = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(given, _)| *given == name)
        .map(|(_, value)| value);
    values.next().filter(|_| values.next().is_none())
}
