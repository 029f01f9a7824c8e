//! Requests of the tests to the OAuth endpoints.

mod allowlist;
mod client;
mod form;
mod introspect;
mod keys;
mod metadata;
mod outage;
mod resources;
mod revoke;
mod token;

use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use rescind::auth::INTROSPECT;
use rescind_admin::NewClient;

use crate::{
    app::{Client, TestApp},
    reply::Reply,
};

pub(crate) const TOKEN: &str = "/oauth2/token";
pub(crate) const INTROSPECTION: &str = "/oauth2/introspect";
pub(crate) const REVOCATION: &str = "/oauth2/revoke";
pub(crate) const DOORS: [&str; 3] = [TOKEN, INTROSPECTION, REVOCATION];

const FORM: &str = "application/x-www-form-urlencoded";

/// The caller of a request, and how it authenticates.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    Nobody,
    Basic(&'a Client),
    Body(&'a Client),
    Bearer(&'a str),
}

use Who::{Basic, Bearer, Body, Nobody};

/// A request to an endpoint.
pub(crate) fn request(
    app: &TestApp,
    door: &str,
    who: Who<'_>,
    parameters: &[(&str, &str)],
) -> RequestBuilder {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(parameters);
    let request = app.post(door).header(CONTENT_TYPE, FORM);
    let request = match who {
        Nobody => request,
        Basic(client) => request.basic_auth(&client.key, Some(&client.secret)),
        Bearer(token) => request.bearer_auth(token),
        Body(client) => {
            form.append_pair("client_id", &client.key).append_pair("client_secret", &client.secret);
            request
        }
    };
    request.body(form.finish())
}

/// A request with this body.
pub(crate) fn request_of(app: &TestApp, door: &str, who: &Client, body: &str) -> RequestBuilder {
    request(app, door, Basic(who), &[]).body(body.to_owned())
}

/// Sends a request, and checks in the answer what holds for every answer of these endpoints.
pub(crate) async fn send(request: RequestBuilder) -> Reply {
    Reply::read_oauth(request.send().await.unwrap()).await
}

pub(crate) async fn ask(app: &TestApp, door: &str, who: Who<'_>, parameters: &[(&str, &str)]) -> Reply {
    send(request(app, door, who, parameters)).await
}

/// The parameters that complete a request to an endpoint, without authentication. They change nothing, because the
/// token was never issued.
pub(crate) fn parameters(door: &str) -> [(&'static str, &'static str); 1] {
    match door {
        TOKEN => [("grant_type", "client_credentials")],
        _ => [("token", "no-such-token")],
    }
}

/// A client with these scopes.
pub(crate) async fn client_with(app: &TestApp, scopes: &[&str]) -> Client {
    let scopes = scopes.iter().map(|&scope| scope.into()).collect();
    app.client_of(NewClient { name: "test".into(), scopes, ..NewClient::default() }).await
}

/// A client that may use all three endpoints.
pub(crate) async fn introspector(app: &TestApp) -> Client {
    client_with(app, &[INTROSPECT]).await
}

/// The answer to a request for an access token, for these scopes or for all.
pub(crate) async fn issue(app: &TestApp, client: &Client, scope: Option<&str>) -> Reply {
    let mut parameters = vec![("grant_type", "client_credentials")];
    parameters.extend(scope.map(|scope| ("scope", scope)));
    ask(app, TOKEN, Basic(client), &parameters).await
}

/// An access token for all the client's scopes.
pub(crate) async fn access_token(app: &TestApp, client: &Client) -> String {
    let reply = issue(app, client, None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["access_token"].as_str().unwrap().to_owned()
}

pub(crate) async fn introspect(app: &TestApp, who: Who<'_>, token: &str) -> Reply {
    ask(app, INTROSPECTION, who, &[("token", token)]).await
}

/// The answer to an introspection with the hint `refresh_token`.
pub(crate) async fn introspect_refresh(app: &TestApp, who: &Client, token: &str) -> Reply {
    let parameters = [("token", token), ("token_type_hint", "refresh_token")];
    ask(app, INTROSPECTION, Basic(who), &parameters).await
}

pub(crate) async fn revoke(app: &TestApp, who: &Client, token: &str) -> Reply {
    ask(app, REVOCATION, Basic(who), &[("token", token)]).await
}

/// Asserts that this is exactly the answer to a successful revocation.
#[track_caller]
pub(crate) fn is_done(reply: &Reply) {
    assert_eq!((reply.status, reply.body.as_str()), (200, "{}"), "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
}
