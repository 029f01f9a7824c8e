//! Who may call which operation.
//!
//! 1. Over the data folder's socket, the caller is an administrator: its user may open the folder.
//! 2. Over the network, a request has a management token in its `Authorization` header. Cookies are not read, so no page
//!    can use a token that a browser keeps.
//! 3. The dashboard calls operations for the administrator who has signed in to it, in this process (`inside.rs`).
//! 4. A browser's request for a page of another origin is refused. So is a request without TLS whose `Host` is a name
//!    other than `localhost`: an attacker's name may be resolved to this address (DNS rebinding).
//! 5. Each request reads its token from the store, so a revoked token is refused on every node from the answer on.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hyper::{
    HeaderMap, Method,
    body::Body as _,
    header::{HOST, HeaderName, HeaderValue, IF_MATCH, ORIGIN},
};
use rescind_admin as admin;
use rescind_base::{
    files::users,
    model::{Administrator, ManagementToken, Role},
    secret,
};
use rescind_node::{
    app::{ASKED, App, Asked},
    audit,
    cluster::{Lapsed, Receipt},
};
use rescind_store::StoreError;
use rescind_verifier::Denied;

use super::{
    operation::{Operation, Reach},
    problem::Problem,
};
use crate::{
    auth::Caller,
    http::{
        Uid,
        bearer::bearer,
        body,
        error::{ApiError, Class},
    },
};

/// The way by which requests reach the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// The socket in the data folder.
    Socket,
    /// The management listener, with TLS.
    Tls,
    /// The management listener, without TLS, on an address that only this machine reaches.
    Loopback,
    /// The management listener, without TLS, on an address that others reach: the admin API is closed.
    Closed,
}

/// What an operation asks of its caller.
#[derive(Clone)]
pub(super) struct Rule {
    door: Door,
    app: Arc<App>,
    role: Role,
    reach: Reach,
    /// A change that may name the version that it is for.
    takes_version: bool,
}

impl Rule {
    pub(super) fn of(operation: &Operation, app: &Arc<App>, door: Door) -> Rule {
        let &Operation { role, reach, versioned, .. } = operation;
        let takes_version = versioned && operation.method != Method::GET;
        Rule { door, app: Arc::clone(app), role, reach, takes_version }
    }
}

/// The header in which the command line names the user who has become another one by sudo. Whoever may open the socket may
/// write it, so it is a hint, and the user's number is not.
pub const SUDO_USER: &str = "x-rescind-sudo-user";

/// Answers only a request that may call the operation. The rules then know what it may, and the audit log who asks.
pub(super) async fn allowed(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    let (request, asked, name) = match admitted(&rule, request).await {
        Ok((request, asked, name)) => (request, Arc::new(asked), name),
        Err(refused) => return refused.into_response(),
    };
    let answer = ASKED.scope(Arc::clone(&asked), next.run(request));
    let mut response = match name {
        Some(name) => audit::OPERATOR.scope(name.into(), answer).await,
        None => answer.await,
    };
    if let Some(receipt) = asked.receipt.get() {
        let value = receipt_value(receipt).map(|value| (HeaderName::from_static(RECEIPT), value));
        response.headers_mut().extend(value);
        response.extensions_mut().insert(*receipt);
    }
    response
}

/// Returns the request with what it may, and how the audit log names who asks. A token is read before the body, so that
/// nobody else is waited for, and again after it, for it may have been revoked meanwhile.
async fn admitted(rule: &Rule, request: Request) -> Result<(Request, Asked, Option<String>), Problem> {
    let address = request.extensions().get().and_then(|caller: &Caller| caller.address);
    let who = match request.extensions().get::<Administrator>() {
        Some(administrator) => Who::SignedIn(administrator.clone()),
        None if rule.door == Door::Socket => Who::User(request.extensions().get().copied()),
        None => Who::Holder,
    };
    let (may, name) = asked(rule, request.headers(), address, who).await?;
    let has_body = ![Method::GET, Method::HEAD, Method::DELETE].contains(request.method());
    if may.token.is_none() || !has_body || request.body().is_end_stream() {
        return Ok((request, may, name));
    }
    let request = body::arrived(request).await?;
    let (may, name) = asked(rule, request.headers(), address, Who::Holder).await?;
    Ok((request, may, name))
}

/// Who calls an operation.
enum Who {
    /// A user of the socket.
    User(Option<Uid>),
    /// An administrator, in the dashboard.
    SignedIn(Administrator),
    /// Whoever has the management token of the request.
    Holder,
}

/// The header with the receipt of a change: a dictionary (RFC 9651 §3.2).
const RECEIPT: &str = "rescind-receipt";

fn receipt_value(Receipt { nodes, acknowledged, milliseconds }: &Receipt) -> Option<HeaderValue> {
    let value = format!("nodes={nodes}, acknowledged={acknowledged}, milliseconds={milliseconds}");
    HeaderValue::try_from(value).ok()
}

/// Returns what the request may, and how the audit log names who asks.
async fn asked(
    rule: &Rule,
    headers: &HeaderMap,
    address: Option<IpAddr>,
    who: Who,
) -> Result<(Asked, Option<String>), Problem> {
    let versions = || versions(headers, rule.takes_version);
    let (id, name, clients) = match who {
        Who::User(user) => {
            let sudo_user = headers.get(SUDO_USER).and_then(|name| name.to_str().ok());
            let name = user.map(|Uid(uid)| users::named(uid, sudo_user));
            return Ok((Asked { versions: versions()?, ..Asked::default() }, name));
        }
        Who::SignedIn(administrator) => {
            suffices(rule.role, administrator.role, "your role")?;
            let asked = Asked { address, versions: versions()?, ..Asked::default() };
            return Ok((asked, Some(admin::named(&administrator))));
        }
        Who::Holder => {
            let ManagementToken { id, name, role, clients, .. } = token(&rule.app, headers).await?;
            suffices(rule.role, role, "the token's role")?;
            (id, name, clients)
        }
    };
    if clients.is_some() && rule.reach == Reach::Everything {
        let problem = "The token is bound to clients, and this is about more than these";
        return Err(ApiError::new(Class::Forbidden, problem).into());
    }
    let name = format!("management token {id} ({name})");
    let asked = Asked { token: Some(id), address, clients, versions: versions()?, ..Asked::default() };
    Ok((asked, Some(name)))
}

/// Refuses who has less than the role that is needed.
pub(in crate::http) fn suffices(needed: Role, role: Role, whose: &str) -> Result<(), ApiError> {
    if role >= needed {
        return Ok(());
    }
    let problem = format!("This needs the role {}, and {whose} is {}", needed.name(), role.name());
    Err(ApiError::new(Class::Forbidden, problem))
}

async fn token(app: &App, headers: &HeaderMap) -> Result<ManagementToken, Problem> {
    let unknown = || ApiError::bearer(Denied::NotKnown.into());
    let text = bearer(headers)?;
    // Only a text with a right checksum is worth a read.
    if !secret::is_well_formed(secret::MANAGEMENT_PREFIX, text) {
        return Err(unknown().into());
    }
    if app.cluster.lease.check().is_err() {
        return Err(StoreError::from(Lapsed).into());
    }
    let hashes = app.memory.peppers.load().hashes(text);
    let found = app.store.use_management_token(hashes, app.clock.now()).await?;
    found.ok_or_else(|| unknown().into())
}

/// Reads `If-Match` (RFC 9110 §13.1.1). `None`: any version.
fn versions(headers: &HeaderMap, takes_version: bool) -> Result<Option<Vec<String>>, ApiError> {
    let lines: Vec<_> =
        headers.get_all(IF_MATCH).iter().map(|line| line.to_str().unwrap_or_default()).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    if !takes_version {
        return Err(ApiError::new(
            Class::BadRequest,
            "If-Match: this operation is not for one version of a client",
        ));
    }
    let tags: Vec<_> = lines.iter().flat_map(|line| line.split(',')).map(str::trim).collect();
    if tags == ["*"] {
        return Ok(None);
    }
    // A weak tag never matches.
    let strong = tags.iter().filter(|tag| !tag.starts_with("W/"));
    let unquoted = strong.map(|tag| tag.strip_prefix('"')?.strip_suffix('"').map(str::to_owned));
    let problem = "If-Match: expected the ETag of an answer, in its quotation marks, or *";
    unquoted.collect::<Option<_>>().map(Some).ok_or_else(|| ApiError::new(Class::Validation, problem))
}

/// Refuses requests that no caller of the admin API sends.
pub(super) async fn no_page(State(door): State<Door>, request: Request, next: Next) -> Response {
    let elsewhere = door != Door::Socket && from_another_origin(request.headers()) == Some(true);
    let elsewhere = elsewhere.then_some("The admin API answers no page of another origin");
    match suspicion(door, request.headers()).or(elsewhere) {
        Some(problem) => Problem(ApiError::new(Class::Forbidden, problem)).into_response(),
        None => next.run(request).await,
    }
}

/// What is wrong with the way by which a request comes.
pub(in crate::http) fn suspicion(door: Door, headers: &HeaderMap) -> Option<&'static str> {
    match door {
        Door::Closed => Some("The admin API needs TLS on an address that others reach: set tls.management"),
        Door::Loopback if !is_loopback(text(headers, &HOST).unwrap_or_default()) => {
            Some("Host: without TLS the admin API is at a loopback address or localhost")
        }
        Door::Socket | Door::Loopback | Door::Tls => None,
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

/// Whether a browser's request comes from a page of another origin. `None`: the request does not say.
pub(in crate::http) fn from_another_origin(headers: &HeaderMap) -> Option<bool> {
    let host = text(headers, &HOST).unwrap_or_default();
    let of_another = |origin: &str| origin.split_once("://").is_none_or(|(_, authority)| authority != host);
    let site = text(headers, &HeaderName::from_static("sec-fetch-site"));
    let site = site.map(|site| !["same-origin", "none"].contains(&site));
    let origin = text(headers, &ORIGIN).map(of_another);
    origin.into_iter().chain(site).reduce(|one, other| one || other)
}

/// Whether a `Host` is an address of this machine itself, or `localhost`, with or without a port.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let is_ours = name.eq_ignore_ascii_case("localhost")
        || address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    is_ours && port.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 87
    #[test]
    fn hosts_that_are_this_machine() {
        for host in ["127.0.0.1:8081", "127.0.0.1", "[::1]:8081", "[::1]", "localhost:1", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "a.example",
            "a.example:8081",
            "10.0.0.1",
            "localhost.a.example",
            "127.0.0.1.a.example",
            "localhost:a",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
