//! What software needs in order to configure itself: the metadata of this service (RFC 8414) and of the APIs that its
//! tokens are for (RFC 9728), and the public keys (RFC 7517).

use axum::{Json, extract::Request};
use data_encoding::BASE64URL_NOPAD;
use hyper::{Uri, header::HOST};
use rescind_base::model::ProtectedResource;
use rescind_node::{app::App, memory::PublicKey};
use serde_json::{Value, json};

const WELL_KNOWN: &str = "/.well-known/";

/// A document at a well-known path.
pub(super) enum Document {
    Metadata,
    KeySet,
    Resource,
}

impl Document {
    /// Whether a path may be that of a document.
    pub(super) fn is_path(path: &str) -> bool {
        path.contains(WELL_KNOWN)
    }

    /// Finds the document at a path. If the issuer has a path, clients insert it behind the document's name (RFC 8414 §3.1),
    /// append the document's path to it (`OpenID` Connect Discovery §4), or leave it out.
    pub(super) fn at(path: &str, app: &App) -> Option<Document> {
        if let Some(rest) = path.strip_prefix(ProtectedResource::WELL_KNOWN) {
            return (rest.is_empty() || rest.starts_with('/')).then_some(Document::Resource);
        }
        let issuer: Option<Uri> = app.memory.issuer.profile().issuer().parse().ok();
        let issuer = issuer.as_ref().map_or("", |issuer| issuer.path().trim_end_matches('/'));
        let (before, rest) = path.split_once(WELL_KNOWN)?;
        let (name, inserted) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let inserted = inserted.strip_suffix('/').unwrap_or(inserted);
        let is_root = |path: &str| path.is_empty();
        match name {
            _ if !(is_root(before) || before == issuer) => None,
            "oauth-authorization-server" | "openid-configuration"
                if is_root(inserted) || (is_root(before) && inserted == issuer) =>
            {
                Some(Document::Metadata)
            }
            "jwks.json" if rest == name => Some(Document::KeySet),
            _ => None,
        }
    }

    /// Returns what the document says. `None`: of this API there is none.
    pub(super) fn read(&self, request: &Request, app: &App) -> Option<Json<Value>> {
        Some(Json(match self {
            Document::Metadata => metadata(app),
            Document::KeySet => key_set(app),
            Document::Resource => json!({
                "resource": resource(request, app)?.uri(),
                "authorization_servers": [app.memory.issuer.profile().issuer()],
                "bearer_methods_supported": ["header"],
            }),
        }))
    }
}

/// The API whose metadata is asked for. The host decides only between APIs of one path: some proxies write their own.
fn resource<'a>(request: &Request, app: &'a App) -> Option<&'a ProtectedResource> {
    let path = request.uri().path().strip_prefix(ProtectedResource::WELL_KNOWN)?;
    let of_path = || app.protected_resources.iter().filter(|resource| resource.path() == path);
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().authority().map(|authority| authority.as_str()).or(host).unwrap_or_default();
    let of_host = of_path().find(|resource| resource.host().eq_ignore_ascii_case(host));
    of_host.or_else(|| of_path().next().filter(|_| of_path().count() == 1))
}

fn metadata(app: &App) -> Value {
    let issuer = app.memory.issuer.profile().issuer();
    let at = |path: &str| format!("{}{path}", issuer.trim_end_matches('/'));
    let mut methods = vec!["client_secret_basic", "client_secret_post"];
    methods.extend(app.asks_for_certificates.then_some("tls_client_auth"));
    let mut introspection = methods.clone();
    introspection.push("Bearer");
    let mut metadata = json!({
        "issuer": issuer,
        "authorization_endpoint": at("/oauth2/authorize"),
        "token_endpoint": at("/oauth2/token"),
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": at("/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": introspection,
        "revocation_endpoint": at("/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "jwks_uri": at("/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
    });
    // An empty list would be against RFC 8414 §3.2.
    if !app.scopes_supported.is_empty() {
        metadata["scopes_supported"] = json!(app.scopes_supported);
    }
    metadata
}

/// The public keys. HS256 keys are secret and left out.
fn key_set(app: &App) -> Value {
    let keyring = app.memory.issuer.keyring();
    let keys = keyring.public_keys().map(|(kid, key)| match key {
        PublicKey::Ed25519 { algorithm, point } => json!({
            "kty": "OKP", "crv": "Ed25519", "alg": algorithm.name(), "use": "sig", "kid": kid,
            "x": BASE64URL_NOPAD.encode(&point),
        }),
        PublicKey::Es256 { x, y } => json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": BASE64URL_NOPAD.encode(&x), "y": BASE64URL_NOPAD.encode(&y),
        }),
    });
    json!({ "keys": keys.collect::<Vec<_>>() })
}
