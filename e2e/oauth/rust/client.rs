//! The `oauth2` crate, unmodified, against a running server. `e2e/oauth/run` calls it with the file
//! that names the server and its clients.

use std::{
    error::Error,
    fmt::{Debug, Display},
    io::Write,
};

use oauth2::{
    AccessToken, AuthType, ClientId, ClientSecret, EndpointNotSet, EndpointSet, HttpClientError, HttpRequest,
    HttpResponse, IntrospectionUrl, RefreshToken, RequestTokenError, RevocationUrl, Scope,
    StandardErrorResponse, StandardRevocableToken, TokenIntrospectionResponse as _, TokenResponse as _,
    TokenUrl,
    basic::{BasicClient, BasicTokenType},
    http,
};
use serde::Deserialize;

type Failure = Box<dyn Error>;
type Client = BasicClient<EndpointNotSet, EndpointNotSet, EndpointSet, EndpointSet, EndpointSet>;
type Refused<T> = RequestTokenError<HttpClientError<reqwest::Error>, StandardErrorResponse<T>>;

#[derive(Deserialize)]
struct Names {
    url: String,
    app: Credentials,
    api: Credentials,
}

#[derive(Clone, Deserialize)]
struct Credentials {
    api_key: String,
    api_secret: String,
}

#[derive(Default)]
struct Checks {
    failed: usize,
}

impl Checks {
    fn check(&mut self, what: &str, good: bool, got: impl Debug) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if good {
            writeln!(out, "ok     rust: {what}")?;
        } else {
            self.failed += 1;
            writeln!(out, "FAILED rust: {what}: {got:?}")?;
        }
        Ok(())
    }
}

/// Sends the crate's requests. It demands https of the revocation endpoint: this stands in for what
/// ends TLS in front of the server.
async fn send(request: HttpRequest) -> Result<HttpResponse, HttpClientError<reqwest::Error>> {
    let (head, body) = request.into_parts();
    let url = head.uri.to_string().replacen("https:", "http:", 1);
    let client = reqwest::Client::builder().no_proxy().build().map_err(Box::new)?;
    let request = client.request(head.method, url).headers(head.headers).body(body);
    let answer = request.send().await.map_err(Box::new)?;
    let mut response = http::Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = answer.headers().clone();
    }
    Ok(response.body(answer.bytes().await.map_err(Box::new)?.to_vec())?)
}

fn client(url: &str, of: &Credentials, auth: AuthType) -> Result<Client, Failure> {
    let https = url.replacen("http:", "https:", 1);
    Ok(BasicClient::new(ClientId::new(of.api_key.clone()))
        .set_client_secret(ClientSecret::new(of.api_secret.clone()))
        .set_token_uri(TokenUrl::new(format!("{url}/oauth2/token"))?)
        .set_introspection_url(IntrospectionUrl::new(format!("{url}/oauth2/introspect"))?)
        .set_revocation_url(RevocationUrl::new(format!("{https}/oauth2/revoke"))?)
        .set_auth_type(auth))
}

/// The code of the error that a request must end in.
fn code<A, T: oauth2::ErrorResponseType + Display>(outcome: Result<A, Refused<T>>) -> String {
    match outcome {
        Err(RequestTokenError::ServerResponse(response)) => response.error().to_string(),
        Err(error) => format!("{error:?}"),
        Ok(_) => "none".into(),
    }
}

async fn check_all(checks: &mut Checks, names: &Names, name: &str, auth: AuthType) -> Result<(), Failure> {
    let ours = client(&names.url, &names.app, auth.clone())?;
    let asking = client(&names.url, &names.api, auth.clone())?;
    let issue = async |client: &Client, scope: Option<&str>| {
        let scopes = scope.map(|scope| Scope::new(scope.to_owned()));
        client.exchange_client_credentials().add_scopes(scopes).request_async(&send).await
    };
    let introspect = async |client: &Client, token: &AccessToken| {
        client.introspect(token).set_token_type_hint("access_token").request_async(&send).await
    };
    let revoke = async |client: &Client, token: StandardRevocableToken| {
        client.revoke_token(token)?.request_async(&send).await.map_err(Failure::from)
    };

    let begun = tokio::time::Instant::now();
    let token = issue(&ours, Some("orders:read")).await?;
    // No more seconds may be missing than have begun between the request and the answer.
    let least = 3599 - begun.elapsed().as_secs();
    let bearer = *token.token_type() == BasicTokenType::Bearer;
    let hour = token.expires_in().is_some_and(|span| (least..=3600).contains(&span.as_secs()));
    checks.check(&format!("{name}: client_credentials"), bearer && hour, &token)?;
    checks.check(&format!("{name}: no refresh token"), token.refresh_token().is_none(), &token)?;
    let scope = |scopes: Option<&Vec<Scope>>| {
        scopes.map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "))
    };
    let given = scope(token.scopes());
    checks.check(&format!("{name}: the scope asked for"), given.as_deref() == Some("orders:read"), given)?;

    let told = introspect(&asking, token.access_token()).await?;
    let whose = told.active() && told.client_id().map(|id| id.as_str()) == Some(&names.app.api_key);
    checks.check(&format!("{name}: introspection: active"), whose, &told)?;
    let given = scope(told.scopes());
    checks.check(&format!("{name}: introspection: scope"), given.as_deref() == Some("orders:read"), given)?;
    let unknown = introspect(&asking, &AccessToken::new("x".into())).await?;
    checks.check(&format!("{name}: introspection: unknown"), !unknown.active(), &unknown)?;
    let refused = code(introspect(&ours, token.access_token()).await);
    checks.check(
        &format!("{name}: introspection needs the scope"),
        refused == "insufficient_scope",
        refused,
    )?;

    let own: StandardRevocableToken = token.access_token().into();
    let foreign = asking.revoke_token(own.clone())?.request_async(&send).await;
    let refused = code(foreign);
    checks.check(&format!("{name}: another's token is not revoked"), refused == "invalid_grant", refused)?;
    let beside = issue(&ours, None).await?;
    revoke(&ours, own).await?;
    let after = introspect(&asking, token.access_token()).await?;
    checks.check(&format!("{name}: revoked, and inactive at once"), !after.active(), &after)?;
    let stands = introspect(&asking, beside.access_token()).await?;
    checks.check(&format!("{name}: other tokens stand"), stands.active(), &stands)?;
    let unknown = revoke(&ours, (&RefreshToken::new("x".into())).into()).await;
    checks.check(&format!("{name}: what is unknown is revoked already"), unknown.is_ok(), &unknown)?;

    let refused = code(issue(&ours, Some("orders:delete")).await);
    checks.check(&format!("{name}: invalid_scope"), refused == "invalid_scope", refused)?;
    let wrong = Credentials { api_secret: "rs_wrong".into(), ..names.app.clone() };
    let refused = code(issue(&client(&names.url, &wrong, auth)?, None).await);
    checks.check(&format!("{name}: invalid_client"), refused == "invalid_client", refused)?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let file = std::env::args().nth(1).ok_or("usage: client FILE")?;
    let names: Names = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let mut checks = Checks::default();
    check_all(&mut checks, &names, "basic", AuthType::BasicAuth).await?;
    check_all(&mut checks, &names, "post", AuthType::RequestBody).await?;
    if checks.failed == 0 { Ok(()) } else { Err(format!("{} checks failed", checks.failed).into()) }
}
