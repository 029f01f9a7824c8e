//! What of a refused request is kept, so that an operator can say why it was refused (`rescind_base::model`).
//!
//! No token, no secret and no claim of an unverified token is kept, and of the texts that callers write only the short and
//! harmless ones of the few headers here.

use std::net::IpAddr;

use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{HeaderName, HeaderValue},
};
use rescind_base::{
    model::{
        AskedOfToken, Check, Denial, DenialDetails, Forwarded, Hop, HopRole, PresentedKind, PresentedToken,
        Refusal, Revoked,
    },
    secret,
    telemetry::metrics::Route,
};
use rescind_node::{
    app::App,
    audit::{self, Missed, Owner},
    limits::network,
};
use rescind_verifier::{ClientPolicy, Denied};

use super::{Exchange, client_ip::TrustedProxies, verify};
use crate::auth::Caller;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// How many hops and scopes are kept, and how many characters of a text.
const MOST_HOPS: usize = 16;
const MOST_SCOPES: usize = 16;
const MOST_CHARACTERS: usize = 128;

/// How a request came here, and what a proxy asked about.
#[derive(Debug, Default)]
pub(super) struct Way {
    hops: Vec<Hop>,
    asked: Option<AskedOfToken>,
    forwarded: Option<Forwarded>,
}

impl Way {
    /// The way of a request of which only the caller is still known.
    pub(super) fn of_caller(caller: &Caller) -> Way {
        Way { hops: first_hops(caller), ..Way::default() }
    }

    /// Whether more than the caller has to be known.
    pub(super) fn needs_head(caller: &Caller, route: Route) -> bool {
        caller.through_proxy || route == Route::Verify
    }

    pub(super) fn of<B>(
        proxies: &TrustedProxies,
        caller: &Caller,
        route: Route,
        request: &hyper::Request<B>,
    ) -> Way {
        let is_asked = route == Route::Verify;
        Way {
            hops: hops(proxies, caller, request.headers()),
            asked: is_asked.then(|| asked(request.uri())).flatten(),
            // Only a proxy's word is worth anything.
            forwarded: (is_asked && caller.through_proxy)
                .then(|| forwarded(request.headers(), request.uri())),
        }
    }
}

fn hop(address: String, named_by: &str, role: HopRole) -> Hop {
    Hop { address, named_by: named_by.to_owned(), role }
}

/// The hops that the connection tells.
fn first_hops(caller: &Caller) -> Vec<Hop> {
    let peer = caller.peer.to_canonical();
    let is_judged = caller.address == Some(peer) && !caller.through_proxy;
    let role = if is_judged { HopRole::Judged } else { HopRole::Trusted };
    let named = caller.address.filter(|_| !is_judged && !caller.through_proxy);
    let named = named.map(|named| hop(shown_address(named), "proxy-protocol", HopRole::Judged));
    std::iter::once(hop(peer.to_string(), "connection", role)).chain(named).collect()
}

fn hops(proxies: &TrustedProxies, caller: &Caller, headers: &HeaderMap) -> Vec<Hop> {
    let mut hops = first_hops(caller);
    if !caller.through_proxy {
        return hops;
    }
    let header = proxies.header.as_ref().map_or("", HeaderName::as_str);
    let mut is_over = false;
    for (text, address) in proxies.hops(headers).take(MOST_HOPS) {
        let role = match address {
            _ if is_over => HopRole::Ignored,
            None => HopRole::Unreadable,
            Some(address) if proxies.trusts(address) => HopRole::Trusted,
            Some(_) => HopRole::Judged,
        };
        is_over |= matches!(role, HopRole::Unreadable | HopRole::Judged);
        hops.push(hop(address.map_or_else(|| shown(text), shown_address), header, role));
    }
    // Where every hop is trusted, the farthest is the caller.
    if !is_over && let [_, .., last] = hops.as_mut_slice() {
        last.role = HopRole::Judged;
    }
    hops
}

fn asked(uri: &Uri) -> Option<AskedOfToken> {
    let verify::Asked { scopes, audience } = verify::asked_of(uri)?;
    let scopes: Vec<_> = scopes.iter().take(MOST_SCOPES).map(|scope| shown(scope)).collect();
    let audience = audience.map(|audience| shown(&audience));
    let is_any = audience.is_some() || !scopes.is_empty();
    is_any.then_some(AskedOfToken { audience, scopes })
}

fn forwarded(headers: &HeaderMap, uri: &Uri) -> Forwarded {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let path = text(FORWARDED_URI).or_else(|| verify::path_asked_about(uri));
    Forwarded {
        method: text(FORWARDED_METHOD).map(shown),
        host: text(FORWARDED_HOST).map(shown),
        path: path.map(|path| shown(path.split(['?', '#']).next().unwrap_or_default())),
    }
}

fn shown_address(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// A text of a caller or a proxy, without what may be a secret, and cut.
fn shown(text: &str) -> String {
    secret::shown(text).chars().take(MOST_CHARACTERS).collect()
}

/// Keeps a denial, if the answer is one: OAuth answers some refusals with 400.
pub(super) fn keep(app: &App, exchange: &Exchange, status: StatusCode, way: impl FnOnce() -> Way) {
    if !status.is_client_error() || !exchange.route.is_for_callers() {
        return;
    }
    let noted = audit::refusal();
    if noted.is_none() && ![401, 403, 429].contains(&status.as_u16()) {
        return;
    }
    let refusal = noted.map_or(Refusal::new(Check::Undecided), |refusal| *refusal);
    let caller = &exchange.caller;
    let stranger = || Owner::Network(network(caller.address.unwrap_or(caller.peer)));
    let owner = refusal.client.map_or_else(stranger, Owner::Client);
    app.audit.keep_denial(owner, refusal.check, || {
        let (details, missed) = details(app, refusal.clone(), caller, way());
        let denial = Denial {
            id: 0,
            request: exchange.id.to_str().unwrap_or_default().to_owned(),
            at: app.clock.now(),
            node: app.audit.node().clone(),
            operation: exchange.route.name().to_owned(),
            reason: refusal.check.name().to_owned(),
            status: status.as_u16(),
            client: refusal.client,
            proven: refusal.client.is_some(),
            address: caller.address.map(shown_address),
            details,
        };
        (denial, missed)
    });
}

fn details(app: &App, refusal: Refusal, caller: &Caller, way: Way) -> (DenialDetails, Option<Missed>) {
    let Refusal { check, client, api_key, token, retry_after } = refusal;
    let Way { hops, asked, forwarded } = way;
    let registry = &app.memory.registry;
    let policy = client.and_then(|client| registry.policy(client));
    let api_key = api_key.or_else(|| registry.api_key(token.as_ref()?.credential));
    let revoked = match (check, &token, &policy) {
        (Check::Token(Denied::Revoked), Some(token), Some(policy)) => {
            Some(revoked(app, token, policy, api_key.as_deref()))
        }
        _ => None,
    };
    let missed = match (check, policy.clone(), caller.address) {
        (Check::Token(Denied::AddressNotAllowed), Some(policy), Some(address)) => Some((policy, address)),
        _ => None,
    };
    let details = DenialDetails {
        api_key,
        token,
        client_generation: policy.map(|policy| policy.generation),
        revoked,
        hops,
        allowlist: None,
        asked,
        forwarded,
        retry_after,
        not_kept: 0,
    };
    (details, missed)
}

/// What was revoked of a token that is.
fn revoked(app: &App, token: &PresentedToken, policy: &ClientPolicy, api_key: Option<&str>) -> Revoked {
    let known = api_key.and_then(|api_key| app.memory.registry.credential(api_key));
    let has_ended = known.is_none_or(|known| !known.credential.is_good(app.clock.now()));
    // An access token outlives the end of its credential, but not its revocation.
    let is_refused = (has_ended && token.kind == PresentedKind::Refresh)
        || !policy.credentials.contains(&token.credential);
    match token.generation < policy.generation {
        true => Revoked::EveryToken,
        false if is_refused => Revoked::Credential,
        false => Revoked::Session,
    }
}
