//! The OAuth 2.0 endpoints: token (RFC 6749), introspection (RFC 7662) and revocation (RFC 7009).
//! `client_id` is the API key, `client_secret` the API secret.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json,
    extract::Request,
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue},
};
use rescind_base::model::{Check, ClientId, Refusal};
use rescind_node::{app::App, audit, memory::KnownCredential};
use rescind_verifier::{Claims, Denied, Kind, Profile, Resources, Scopes};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    bearer::bearer,
    body::read,
    client_ip::parse_hop,
    error::{ApiError, Class, OAuthError},
    feed,
};
use crate::auth::{self, Caller, INTROSPECT, NotRevoked, Question};

/// The parameters that an endpoint here reads.
const PARAMETERS: [&str; 7] =
    ["grant_type", "scope", "client_id", "client_secret", "token", "token_type_hint", "client_ip"];

/// A request's form, and the lines of its `Authorization`.
struct Form {
    /// Each at most once, empty and unknown ones left out (RFC 6749 §3.2).
    parameters: HashMap<String, String>,
    /// Every `resource`, which may be given several times (RFC 8707 §2).
    resources: Vec<String>,
    authorization: HeaderMap,
}

impl Form {
    async fn read(request: Request) -> Result<Form, OAuthError> {
        // Copied, because the head would keep its whole read buffer alive while the body is waited for.
        let lines = request.headers().get_all(AUTHORIZATION).iter();
        let copies = lines.filter_map(|line| HeaderValue::from_bytes(line.as_bytes()).ok());
        let authorization = copies.map(|line| (AUTHORIZATION, line)).collect();
        let body = read(request, "application/x-www-form-urlencoded").await?;
        let (parameters, resources) = Form::parse(&body)?;
        Ok(Form { parameters, resources, authorization })
    }

    fn parse(body: &[u8]) -> Result<(HashMap<String, String>, Vec<String>), OAuthError> {
        let (mut form, mut resources) = (HashMap::new(), Vec::new());
        for (name, value) in form_urlencoded::parse(body).into_owned() {
            if [&name, &value].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER)) {
                return Err(invalid_request("Request body must be valid UTF-8"));
            }
            if name == "resource" {
                resources.extend((!value.is_empty()).then_some(value));
                continue;
            }
            if PARAMETERS.contains(&name.as_str()) && form.insert(name, value).is_some() {
                return Err(invalid_request("A parameter is given twice"));
            }
        }
        form.retain(|_, value| !value.is_empty());
        Ok((form, resources))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.parameters.remove(name)
    }

    fn need(&mut self, name: &str) -> Result<String, OAuthError> {
        self.take(name).ok_or_else(|| invalid_request(format!("{name} is required")))
    }

    /// Authenticates the client: by HTTP Basic or by the body, not by both (RFC 6749 §2.3), or by its certificate (RFC
    /// 8705 §2). The caller's address must be on the client's allowlist.
    fn client(&mut self, app: &App, caller: &Caller) -> Result<Arc<KnownCredential>, OAuthError> {
        let (id, secret) = (self.take("client_id"), self.take("client_secret"));
        let (id, secret) = match (basic(&self.authorization)?, id, secret) {
            (Some(_), _, Some(_)) => {
                return Err(invalid_request("client_secret is given by Basic and by the body"));
            }
            (Some((basic_id, _)), Some(id), None) if basic_id != id => {
                return Err(invalid_request("client_id differs between Basic and the body"));
            }
            (Some(by_basic), _, None) => by_basic,
            (None, Some(id), secret) if secret.is_some() || caller.certificate.is_some() => {
                let known = auth::authenticate(app, &id, secret.as_deref(), caller);
                return known.map_err(|error| client_error(error).unchallenged());
            }
            (None, ..) => return Err(unauthenticated()),
        };
        auth::authenticate(app, &id, Some(&secret), caller).map_err(client_error)
    }
}

/// Returns the two parts of an HTTP Basic header, each form-decoded (RFC 6749 §2.3.1). `None`: the request has no
/// `Authorization` header, or one of another scheme, which authenticates no client: PyIceberg asks for a new token with
/// the old one in it.
fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, OAuthError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(invalid_request("Authorization is given twice"));
    }
    let (scheme, encoded) = line.as_bytes().split_at(scheme_length(line.as_bytes()));
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return Ok(None);
    }
    let parts = || {
        let decoded = BASE64.decode(encoded.strip_prefix(b" ")?.trim_ascii()).ok()?;
        let decoded = String::from_utf8(decoded).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some((form_decoded(id), form_decoded(secret)))
    };
    parts().map(Some).ok_or_else(unauthenticated)
}

/// The request has no credentials that can be read.
fn unauthenticated() -> OAuthError {
    audit::refused_by(Check::CredentialsMissing);
    OAuthError::invalid_client()
}

/// The number of bytes before the first that no name of a scheme has (RFC 9110 §11.1, §5.6.2).
fn scheme_length(line: &[u8]) -> usize {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    line.iter().position(|b| !is_token(b)).unwrap_or(line.len())
}

fn form_decoded(text: &str) -> String {
    // Encoded, "=" and "&" do not split the text, so the parser reads all of it as one name.
    let text = text.replace('=', "%3D").replace('&', "%26");
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

#[derive(Serialize)]
pub(super) struct Issued {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
}

pub(super) async fn token(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Issued>, OAuthError> {
    let mut form = Form::read(request).await?;
    let credential = form.client(app, caller)?;
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
    let resources = (!form.resources.is_empty())
        .then(|| Resources::new(form.resources.iter().map(String::as_str)))
        .transpose()
        .map_err(|_| invalid_target("resource must be an absolute URI without a fragment"))?;
    let granting = auth::client_credentials(app, &credential, caller, scopes, resources);
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

pub(super) async fn introspect(app: &App, caller: &Caller, request: Request) -> Result<Response, OAuthError> {
    let mut form = Form::read(request).await?;
    let asking = authorize_introspection(app, caller, &mut form).await?;
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
    let introspecting = Box::pin(auth::introspect(app, &token, question));
    let Some(found) = introspecting.await.map_err(client_error)? else {
        return Ok(Json(json!({ "active": false })).into_response());
    };
    let (token_type, profile) = match found.kind {
        Kind::Access => ("Bearer", app.memory.issuer.profile().clone()),
        Kind::Refresh => ("refresh_token", app.memory.issuer.profile().of_refresh_tokens()),
    };
    let answer = Active {
        active: true,
        client_id: &found.api_key,
        token_type,
        exp: found.expires_at,
        iat: found.claims.issued_at,
        sub: found.claims.client.to_string(),
        aud: audience(&found.claims, &profile),
        iss: profile.issuer(),
        sid: found.claims.session.to_string(),
        scope: found.scopes.as_str(),
        allow: &found.allow,
    };
    Ok(Json(answer).into_response())
}

/// The answer for an active token (RFC 7662 §2.2).
#[derive(Serialize)]
struct Active<'a> {
    active: bool,
    client_id: &'a str,
    token_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    iat: u64,
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Value>,
    iss: &'a str,
    sid: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    allow: &'a [String],
}

/// `aud` as RFC 7519 §4.1.3 has it: one is no list. `None`: the audience is the issuer itself, because nobody has set
/// another. Some readers of such an answer refuse every `aud` that is not their own.
fn audience(claims: &Claims, profile: &Profile) -> Option<Value> {
    match claims.resources.iter().collect::<Vec<_>>().as_slice() {
        [] => Some(profile.audience()).filter(|audience| *audience != profile.issuer()).map(Value::from),
        [one] => Some(Value::from(*one)),
        several => Some(json!(several)),
    }
}

/// Returns the client that may introspect, known by its credentials or by an access token with that scope. `None`:
/// the caller is a verifier, known by its token.
async fn authorize_introspection(
    app: &App,
    caller: &Caller,
    form: &mut Form,
) -> Result<Option<ClientId>, OAuthError> {
    let is_bearer =
        |value: &[u8]| value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"Bearer "));
    if !form.parameters.contains_key("client_secret")
        && form.authorization.get(AUTHORIZATION).is_some_and(|value| is_bearer(value.as_bytes()))
    {
        let text = bearer(&form.authorization)?;
        if feed::verifier(app, text).is_some() {
            return Ok(None);
        }
        let token = auth::verify(app, text, caller).await.map_err(|error| match error {
            auth::Error::AddressNotAllowed => client_error(error),
            error => ApiError::bearer(error).into(),
        })?;
        let right: Scopes = INTROSPECT.parse().unwrap_or_default();
        token.require(&right).map_err(|denied| {
            auth::lacks(app, text, token.claims(), denied);
            ApiError::insufficient_scope(INTROSPECT)
        })?;
        return Ok(Some(token.claims().client));
    }
    let credential = form.client(app, caller)?;
    if !auth::may_introspect(app, credential.client) {
        app.usage.denied(credential.client, Some(credential.credential.id));
        audit::refused(Refusal {
            client: Some(credential.client),
            api_key: Some(credential.credential.api_key.clone()),
            ..Refusal::new(Check::Token(Denied::ScopeMissing))
        });
        return Err(ApiError::insufficient_scope(INTROSPECT).into());
    }
    Ok(Some(credential.client))
}

pub(super) async fn revoke(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Value>, OAuthError> {
    let mut form = Form::read(request).await?;
    let credential = form.client(app, caller)?;
    let token = form.need("token")?;
    let revoking = Box::pin(auth::revoke(app, credential.client, &token));
    revoking.await.map_err(|error| match error {
        NotRevoked::Foreign => {
            OAuthError::new(Class::BadRequest, "invalid_grant", "The token was issued to another client")
        }
        NotRevoked::Error(error) => client_error(error),
    })?;
    // RFC 7009 §2.2 wants no content, but simple-oauth2 reads none that is not JSON.
    Ok(Json(json!({})))
}

/// The authorization endpoint (RFC 6749 §3.1), which is there because some clients refuse metadata without one. No
/// client has a URL here that an answer could be sent to.
pub(super) fn authorize() -> OAuthError {
    let description = "No response_type is supported: the only grant is client_credentials";
    OAuthError::new(Class::BadRequest, "unsupported_response_type", description)
}

fn invalid_request(description: impl Into<std::borrow::Cow<'static, str>>) -> OAuthError {
    OAuthError::new(Class::BadRequest, "invalid_request", description)
}

/// The client may not have a token for this resource (RFC 8707 §2).
fn invalid_target(description: &'static str) -> OAuthError {
    OAuthError::new(Class::BadRequest, "invalid_target", description)
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
        auth::Error::ResourceMissing => invalid_target("The client does not have this resource"),
        auth::Error::InvalidToken(_)
        | auth::Error::Reused
        | auth::Error::Uncertified
        | auth::Error::TokenExpired
        | auth::Error::Throttled(_)
        | auth::Error::OverQuota(_)
        | auth::Error::Store(_) => ApiError::from(error).into(),
    }
}
