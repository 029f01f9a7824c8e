//! The OAuth 2.0 endpoints: token (RFC 6749), introspection (RFC 7662), revocation (RFC 7009) and
//! metadata (RFC 8414). `client_id` is the API key, `client_secret` the API secret.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{FromRequest, Request, State},
    routing::{get, post},
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use futures_util::FutureExt;
use hyper::{HeaderMap, header::AUTHORIZATION};
use rescind_verifier::{Kind, Scopes};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    bearer::bearer,
    body::read,
    client_ip::parse_hop,
    error::{ApiError, Class, OAuthError},
    feed,
};
use crate::{
    app::App,
    auth::{self, Caller, INTROSPECT, NotRevoked, Question},
    memory::{KnownCredential, PublicKey},
    model::ClientId,
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/oauth2/token", post(token))
        .route("/oauth2/introspect", post(introspect))
        .route("/oauth2/revoke", post(revoke))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/.well-known/jwks.json", get(jwks))
}

/// A form's parameters: each at most once, empty ones left out (RFC 6749 §3.2).
struct Form(HashMap<String, String>);

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = OAuthError;

    fn from_request(request: Request, _: &S) -> impl Future<Output = Result<Self, OAuthError>> + Send {
        read(request, "application/x-www-form-urlencoded").map(|body| Form::parse(&body?))
    }
}

impl Form {
    fn parse(body: &[u8]) -> Result<Form, OAuthError> {
        let mut form = HashMap::new();
        for (name, value) in form_urlencoded::parse(body).into_owned() {
            if [&name, &value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
                return Err(invalid_request("Request body must be valid UTF-8"));
            }
            if form.contains_key(&name) {
                return Err(invalid_request("A parameter is given twice"));
            }
            form.insert(name, value);
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Form(form))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn need(&mut self, name: &str) -> Result<String, OAuthError> {
        self.take(name).ok_or_else(|| invalid_request(format!("{name} is required")))
    }

    /// Authenticates the client: by HTTP Basic or by the body, not by both (RFC 6749 §2.3), or by its certificate (RFC
    /// 8705 §2). The caller's address must be on the client's allowlist.
    fn client(
        &mut self,
        app: &App,
        caller: &Caller,
        headers: &HeaderMap,
    ) -> Result<Arc<KnownCredential>, OAuthError> {
        let (id, secret) = (self.take("client_id"), self.take("client_secret"));
        let (id, secret) = match (basic(headers)?, id, secret) {
            (Some(_), _, Some(_)) => {
                return Err(invalid_request("client_secret is given by Basic and by the body"));
            }
            (Some((basic_id, _)), Some(id), None) if basic_id != id => {
                return Err(invalid_request("client_id differs between Basic and the body"));
            }
            (Some((id, secret)), _, None) => (id, Some(secret)),
            (None, Some(id), secret) if secret.is_some() || caller.certificate.is_some() => (id, secret),
            (None, ..) => return Err(OAuthError::invalid_client()),
        };
        auth::authenticate(app, &id, secret.as_deref(), caller).map_err(client_error)
    }
}

/// Returns the two parts of an HTTP Basic header, each form-decoded (RFC 6749 §2.3.1). `None`: the request has no
/// `Authorization` header.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, OAuthError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(invalid_request("Authorization is given twice"));
    }
    let parts = || {
        let (scheme, encoded) = line.as_bytes().split_at_checked(b"Basic ".len())?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return None;
        }
        let decoded = String::from_utf8(BASE64.decode(encoded.trim_ascii()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((form_decoded(id), form_decoded(secret)))
    };
    parts().map(Some).ok_or_else(OAuthError::invalid_client)
}

fn form_decoded(text: &str) -> String {
    // Encoded, "=" and "&" do not split the text, so the parser reads all of it as one name.
    let text = text.replace('=', "%3D").replace('&', "%26");
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[derive(Serialize)]
struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

async fn token(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    mut form: Form,
) -> Result<Json<Issued>, OAuthError> {
    let credential = form.client(&app, &caller, &headers)?;
    match form.need("grant_type")?.as_str() {
        "client_credentials" => {}
        _ => {
            let description = "grant_type must be client_credentials";
            return Err(OAuthError::new(Class::BadRequest, "unsupported_grant_type", description));
        }
    }
    let scopes = form.take("scope").map(|scope| scope.parse::<Scopes>()).transpose();
    let scopes = scopes.map_err(|_| {
        OAuthError::new(
            Class::BadRequest,
            "invalid_scope",
            "scope is malformed or longer than a token has room for",
        )
    })?;
    let granting = auth::client_credentials(&app, &credential, &caller, scopes);
    let grant = Box::pin(granting).await.map_err(client_error)?;
    // Read anew for the answer, so that the client does not use the token a second too long.
    let now = app.clock.now();
    Ok(Json(Issued {
        access_token: grant.pair.access_token,
        token_type: "Bearer",
        expires_in: grant.pair.access_expires_at.saturating_sub(now),
        scope: grant.scopes.to_string(),
    }))
}

async fn introspect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    mut form: Form,
) -> Result<Json<Value>, OAuthError> {
    let asking = authorize_introspection(&app, &caller, &headers, &mut form).await?;
    let token = form.need("token")?;
    let client_ip = form.take("client_ip").map(|address| {
        parse_hop(&address).ok_or_else(|| {
            invalid_request("client_ip must be one IP address, such as 203.0.113.7 or 2001:db8::1")
        })
    });
    let question = Question {
        asking,
        of_refresh_token: form.take("token_type_hint").is_some_and(|hint| hint == "refresh_token"),
        client_ip: client_ip.transpose()?,
    };
    let Some(found) = auth::introspect(&app, &token, question).await.map_err(client_error)? else {
        return Ok(Json(json!({ "active": false })));
    };
    let (token_type, profile) = match found.kind {
        Kind::Access => ("Bearer", app.memory.issuer.profile().clone()),
        Kind::Refresh => ("refresh_token", app.memory.issuer.profile().of_refresh_tokens()),
    };
    let mut answer = json!({
        "active": true,
        "client_id": found.api_key,
        "token_type": token_type,
        "exp": found.claims.expires_at,
        "iat": found.claims.issued_at,
        "sub": found.claims.client.to_string(),
        "aud": profile.audience(),
        "iss": profile.issuer(),
        "sid": found.claims.session.to_string(),
    });
    if !found.scopes.is_empty() {
        answer["scope"] = found.scopes.as_str().into();
    }
    if !found.allow.is_empty() {
        answer["allow"] = found.allow.into();
    }
    Ok(Json(answer))
}

/// Returns the client that may introspect, known by its credentials or by an access token with that scope. `None`:
/// the caller is a verifier, known by its token.
async fn authorize_introspection(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    form: &mut Form,
) -> Result<Option<ClientId>, OAuthError> {
    let is_bearer =
        |value: &[u8]| value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer "));
    if headers.get(AUTHORIZATION).is_some_and(|value| is_bearer(value.as_bytes())) {
        let token = bearer(headers)?;
        if form.take("client_secret").is_some() {
            return Err(invalid_request("client_secret is given beside a Bearer token"));
        }
        if feed::verifier(app, token).is_some() {
            return Ok(None);
        }
        let token = auth::verify(app, token, caller).await.map_err(|error| match error {
            auth::Error::AddressNotAllowed => client_error(error),
            error => ApiError::bearer(error).into(),
        })?;
        let right: Scopes = INTROSPECT.parse().unwrap_or_default();
        token.require(&right).map_err(|_| ApiError::insufficient_scope(INTROSPECT))?;
        return Ok(Some(token.claims().client));
    }
    let credential = form.client(app, caller, headers)?;
    if !auth::may_introspect(app, credential.client) {
        return Err(ApiError::insufficient_scope(INTROSPECT).into());
    }
    Ok(Some(credential.client))
}

async fn revoke(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    mut form: Form,
) -> Result<(), OAuthError> {
    let credential = form.client(&app, &caller, &headers)?;
    let token = form.need("token")?;
    auth::revoke(&app, credential.client, &token).await.map_err(|error| match error {
        NotRevoked::Foreign => {
            OAuthError::new(Class::BadRequest, "invalid_grant", "The token was issued to another client")
        }
        NotRevoked::Error(error) => client_error(error),
    })
}

async fn metadata(State(app): State<Arc<App>>) -> Json<Value> {
    let issuer = app.memory.issuer.profile().issuer();
    let at = |path: &str| format!("{}{path}", issuer.trim_end_matches('/'));
    let mut methods = vec!["client_secret_basic", "client_secret_post"];
    methods.extend(app.asks_for_certificates.then_some("tls_client_auth"));
    let mut introspection = methods.clone();
    introspection.push("Bearer");
    Json(json!({
        "issuer": issuer,
        "token_endpoint": at("/oauth2/token"),
        "token_endpoint_auth_methods_supported": methods,
        "introspection_endpoint": at("/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": introspection,
        "revocation_endpoint": at("/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": methods,
        "jwks_uri": at("/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
    }))
}

/// The public keys (RFC 7517). HS256 keys are secret and left out.
async fn jwks(State(app): State<Arc<App>>) -> Json<Value> {
    let keyring = app.memory.issuer.keyring();
    let keys = keyring.public_keys().map(|(kid, key)| match key {
        PublicKey::EdDsa(point) => json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": kid,
            "x": BASE64URL_NOPAD.encode(&point),
        }),
        PublicKey::Es256 { x, y } => json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": kid,
            "x": BASE64URL_NOPAD.encode(&x), "y": BASE64URL_NOPAD.encode(&y),
        }),
    });
    Json(json!({ "keys": keys.collect::<Vec<_>>() }))
}

fn invalid_request(description: impl Into<std::borrow::Cow<'static, str>>) -> OAuthError {
    OAuthError::new(Class::BadRequest, "invalid_request", description)
}

/// Maps an error of the rules to its OAuth code.
fn client_error(error: auth::Error) -> OAuthError {
    match error {
        auth::Error::InvalidCredentials => OAuthError::invalid_client(),
        auth::Error::AddressNotAllowed => {
            OAuthError::new(Class::BadRequest, "unauthorized_client", "IP address not authorized")
        }
        auth::Error::ScopeMissing => {
            OAuthError::new(Class::BadRequest, "invalid_scope", "The client does not have this scope")
        }
        auth::Error::InvalidToken(_)
        | auth::Error::Reused
        | auth::Error::Uncertified
        | auth::Error::TokenExpired
        | auth::Error::Throttled(_)
        | auth::Error::OverQuota(_)
        | auth::Error::Store(_) => ApiError::from(error).into(),
    }
}
