//! A request's head and form, at the two doors that tell of a token: who gets a yes is who should by a
//! second reading of the rules, written down here, and every answer has what every answer has.
//!
//! The input is a request in short: the peer's address and the target, header lines, an empty line, a
//! form. `{access}`, `{refresh}`, `{key}`, `{secret}` and `{basic}` stand for what a client holds.

#![no_main]

use std::{net::IpAddr, sync::LazyLock};

use axum::body::Body;
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use rescind::{auth::{self, Caller, INTROSPECT}, http::{
        Routes,
        client_ip::{Peer, TrustedProxies},
    }};
use rescind_admin::{self as admin, NewClient};
use rescind_node::{app::App, config::Config};
use rescind_base::{clock::Clock, random::Random};
use tokio::runtime::Runtime;

const SCOPES: [&str; 2] = [INTROSPECT, "orders:read"];
const MAX_BODY: usize = 64 * 1024;

/// The service with one client, and what that holds.
struct Scene {
    runtime: Runtime,
    routes: Routes,
    proxies: TrustedProxies,
    allowed: IpNet,
    audience: String,
    key: String,
    secret: String,
    access: String,
    refresh: String,
}

static SCENE: LazyLock<Scene> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.data_dir = folder.path().to_owned();
    config.limits.failed_logins_per_minute = 0;
    let allowed: IpNet = "203.0.113.0/24".parse().unwrap();
    let proxies = TrustedProxies {
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        header: Some(HeaderName::from_static("x-forwarded-for")),
    };
    let new = NewClient {
        name: "billing".into(),
        allow: vec![allowed.to_string()],
        scopes: SCOPES.map(str::to_owned).into(),
        ..NewClient::default()
    };
    let (app, client, pair) = runtime.block_on(async {
        let app = App::open(&config, None, Clock::manual(1_736_942_400), Random::seeded(1)).await.unwrap();
        let client = admin::create_client(&app, new).await.unwrap();
        let home = Caller::direct(allowed.network());
        let pair = auth::login(&app, &client.api_key, &client.api_secret, &home).await.unwrap().pair;
        (app, client, pair)
    });
    Scene {
        audience: app.memory.issuer.profile().audience().to_owned(),
        routes: rescind::http::public(app, proxies.clone()),
        runtime,
        proxies,
        allowed,
        key: client.api_key,
        secret: client.api_secret,
        access: pair.access_token,
        refresh: pair.refresh_token,
    }
    // The folder goes: nothing is written any more, and the store keeps its files open.
});

impl Scene {
    fn filled_in(&self, text: &str) -> String {
        let Scene { key, secret, access, refresh, .. } = self;
        let basic = STANDARD.encode(format!("{key}:{secret}"));
        [("{access}", access), ("{refresh}", refresh), ("{key}", key), ("{secret}", secret), ("{basic}", &basic)]
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    fn answer(&self, request: Request<Body>, peer: IpAddr) -> (Response<()>, Vec<u8>) {
        let peer = Peer::direct(peer);
        self.runtime.block_on(async {
            let (head, body) = self.routes.serve(request, &peer).await.into_parts();
            (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes().to_vec())
        })
    }

    /// What must hold at either door.
    fn is_welcome(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        let codings: Vec<_> = headers.get_all(header::TRANSFER_ENCODING).iter().collect();
        headers.get_all(header::HOST).iter().count() == 1
            && (codings.is_empty() || matches!(codings[..], [one] if text(one) == "chunked"))
            && headers.len() <= 100
            && size <= 16 * 1024
            && self.proxies.caller(peer, headers).is_some_and(|caller| self.allowed.contains(&caller))
    }

    fn is_bearer(&self, headers: &HeaderMap) -> bool {
        let Some(("bearer", token)) = credentials(headers) else { return false };
        token.trim_start_matches(' ') == self.access
    }

    fn passes(&self, peer: IpAddr, headers: &HeaderMap, query: &str) -> bool {
        let forged = headers.keys().any(|name| {
            let alias = name.as_str().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
            alias.starts_with("x-rescind-")
        });
        let ours = query.find("&path=").map_or(query, |at| &query[..at]);
        let ours = pairs(if ours.starts_with("path=") { b"" } else { ours.as_bytes() });
        let audiences = ours.iter().filter(|(name, _)| name == b"aud").count();
        let enough = audiences <= 1 && ours.iter().all(|(name, value)| match name.as_slice() {
            _ if String::from_utf8_lossy(value).trim().is_empty() => false,
            b"scope" => {
                let mut words: Vec<_> = value.split(|&b| b == b' ').filter(|word| !word.is_empty()).collect();
                words.sort();
                words.dedup();
                words.iter().all(|word| SCOPES.iter().any(|scope| scope.as_bytes() == *word))
            }
            b"aud" => value == self.audience.as_bytes(),
            _ => false,
        });
        let by_proxy = self.proxies.trusts(peer.to_canonical());
        self.is_welcome(peer, headers) && self.is_bearer(headers) && (by_proxy || !forged) && enough
    }

    fn is_told(&self, peer: IpAddr, headers: &HeaderMap, body: &[u8]) -> bool {
        let content_type = headers.get(header::CONTENT_TYPE).map(text).unwrap_or_default();
        let is_form = content_type.split(';').next().unwrap_or_default().trim() == "application/x-www-form-urlencoded";
        let pairs = pairs(body);
        let once = pairs.iter().enumerate().all(|(i, (name, _))| pairs[..i].iter().all(|(other, _)| other != name));
        let clean = pairs.iter().flat_map(|(name, value)| [name, value]).all(|part| {
            str::from_utf8(part).is_ok_and(|part| !part.contains(char::REPLACEMENT_CHARACTER))
        });
        let given = |wanted: &str| {
            let found = pairs.iter().find(|(name, _)| name == wanted.as_bytes())?;
            str::from_utf8(&found.1).ok().filter(|value| !value.is_empty())
        };
        let token = given("token").unwrap_or_default();
        let (id, secret) = (given("client_id"), given("client_secret"));
        let (key, own_secret) = (self.key.as_str(), self.secret.as_str());
        let is_known = match credentials(headers) {
            Some(("bearer", _)) => self.is_bearer(headers) && secret.is_none(),
            Some(("basic", encoded)) => {
                let presented = basic(encoded);
                presented.is_some_and(|(id, secret)| id == key.as_bytes() && secret == own_secret.as_bytes())
                    && secret.is_none()
                    && id.is_none_or(|id| id == key)
            }
            Some(_) => false,
            None => !headers.contains_key(header::AUTHORIZATION) && id == Some(key) && secret == Some(own_secret),
        };
        let encodings = headers.get_all(header::CONTENT_ENCODING);
        self.is_welcome(peer, headers)
            && encodings.iter().all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
            && is_form
            && body.len() <= MAX_BODY
            && once
            && clean
            && is_known
            && [&self.access, &self.refresh].iter().any(|good| *good == token)
    }
}

/// In lower case; nothing if it is more than ASCII.
fn text(value: &HeaderValue) -> String {
    value.to_str().unwrap_or_default().to_ascii_lowercase()
}

/// The scheme, in lower case, and what follows its space, of the only `Authorization` line.
fn credentials(headers: &HeaderMap) -> Option<(&'static str, &str)> {
    let lines: Vec<_> = headers.get_all(header::AUTHORIZATION).iter().collect();
    let [line] = lines[..] else { return None };
    let (scheme, rest) = str::from_utf8(line.as_bytes()).ok()?.split_once(' ')?;
    let scheme = ["bearer", "basic"].into_iter().find(|known| scheme.eq_ignore_ascii_case(known))?;
    Some((scheme, rest))
}

/// What is left and right of the first colon, form-decoded.
fn basic(encoded: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let decoded = STANDARD.decode(encoded.trim_ascii()).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((unescaped(id.as_bytes()), unescaped(secret.as_bytes())))
}

/// The parameters of a form or query (WHATWG URL §5.1), in bytes.
fn pairs(form: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let parts = form.split(|&b| b == b'&').filter(|part| !part.is_empty());
    let pair = |part: &[u8]| {
        let equals = part.iter().position(|&b| b == b'=');
        let (name, value) = equals.map_or((part, &b""[..]), |at| (&part[..at], &part[at + 1..]));
        (unescaped(name), unescaped(value))
    };
    parts.map(pair).collect()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(&byte) = text.get(at) {
        let escaped = if byte == b'%' { digit(at + 1).zip(digit(at + 2)) } else { None };
        out.push(match escaped {
            Some((high, low)) => (high * 16 + low) as u8,
            None if byte == b'+' => b' ',
            None => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

/// The request in short; `None` if it is none that could come over a connection.
fn read(input: &str) -> Option<(IpAddr, Uri, HeaderMap, Vec<u8>)> {
    let (head, form) = input.split_once("\n\n").unwrap_or((input, ""));
    let mut lines = head.lines();
    let (peer, target) = lines.next()?.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':')?;
        let value = SCENE.filled_in(value.trim_matches([' ', '\t']));
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        headers.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
    }
    Some((peer.parse().ok()?, target.parse().ok()?, headers, SCENE.filled_in(form).into_bytes()))
}

fuzz_target!(|input: &str| {
    let Some((peer, uri, headers, form)) = read(input) else { return };
    let query = uri.query().unwrap_or_default().to_owned();
    let verifies = uri.path() == "/verify";
    let mut request = Request::new(Body::from(if verifies { vec![] } else { form.clone() }));
    *request.method_mut() = if verifies { Method::GET } else { Method::POST };
    *request.uri_mut() = if verifies { uri } else { Uri::from_static("/oauth2/introspect") };
    *request.headers_mut() = headers.clone();

    let (answer, body) = SCENE.answer(request, peer);
    assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    let id = answer.headers()["x-request-id"].as_bytes();
    assert!((1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic));
    if verifies {
        let status = answer.status().as_u16();
        assert!([200, 401, 403].contains(&status), "{status}");
        assert_eq!(status == 200, SCENE.passes(peer, &headers, &query), "{status}");
        let told = answer.headers().get("x-rescind-client-name").map(HeaderValue::as_bytes);
        assert_eq!(told, (status == 200).then_some(&b"billing"[..]));
    } else {
        let told: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(told["active"] == true, SCENE.is_told(peer, &headers, &form), "{told}");
    }
});
