//! The metadata for OAuth clients (RFC 8414).

use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::{
    app::TestApp,
    oauth::{Who, ask, introspector, parameters},
};

const PATH: &str = "/.well-known/oauth-authorization-server";

async fn metadata(app: &TestApp) -> Value {
    let reply = app.send(app.request(Method::GET, PATH)).await;
    assert_eq!(reply.status, 200);
    reply.json()
}

async fn of_issuer(issuer: &str) -> Value {
    metadata(&TestApp::with(|config| config.tokens.issuer = issuer.into()).await).await
}

// check 32
#[tokio::test]
async fn all_of_it() {
    let url = "https://auth.example";
    let both = ["client_secret_basic", "client_secret_post"];
    let expected = json!({
        "issuer": url,
        "token_endpoint": format!("{url}/oauth2/token"),
        "token_endpoint_auth_methods_supported": both,
        "introspection_endpoint": format!("{url}/oauth2/introspect"),
        "introspection_endpoint_auth_methods_supported": [both[0], both[1], "Bearer"],
        "revocation_endpoint": format!("{url}/oauth2/revoke"),
        "revocation_endpoint_auth_methods_supported": both,
        "jwks_uri": format!("{url}/.well-known/jwks.json"),
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
    });
    assert_eq!(of_issuer(url).await, expected);
}

// check 32
#[tokio::test]
async fn the_issuer_is_that_of_the_configuration_to_the_letter() {
    for issuer in ["https://auth.example", "https://auth.example/", "https://AUTH.example:443/a/b", "urn:x"] {
        let metadata = of_issuer(issuer).await;
        assert_eq!(metadata["issuer"], issuer);
        let token = metadata["token_endpoint"].as_str().unwrap();
        assert_eq!(token, format!("{}/oauth2/token", issuer.trim_end_matches('/')));
    }
}

// check 32: what is advertised is there, and takes every method that is advertised for it
#[tokio::test]
async fn every_advertised_endpoint_and_method_works() {
    let app = TestApp::start().await;
    let client = introspector(&app).await;
    let token = crate::oauth::access_token(&app, &client).await;
    let metadata = metadata(&app).await;
    // The issuer by default names a port that the test does not have: only paths are taken from it.
    let path = |member: &str| metadata[member].as_str().unwrap().parse::<Url>().unwrap().path().to_owned();
    for (endpoint, methods) in [
        ("token_endpoint", "token_endpoint_auth_methods_supported"),
        ("introspection_endpoint", "introspection_endpoint_auth_methods_supported"),
        ("revocation_endpoint", "revocation_endpoint_auth_methods_supported"),
    ] {
        let door = path(endpoint);
        for method in metadata[methods].as_array().unwrap() {
            let who = match method.as_str().unwrap() {
                "client_secret_basic" => Who::Basic(&client),
                "client_secret_post" => Who::Body(&client),
                "Bearer" => Who::Bearer(&token),
                method => panic!("{method} at {endpoint}"),
            };
            let reply = ask(&app, &door, who, &parameters(&door)).await;
            assert_eq!(reply.status, 200, "{door} {method} {reply:?}");
        }
    }
    let reply = app.send(app.request(Method::GET, &path("jwks_uri"))).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"keys":[]}"#));
    for grant in metadata["grant_types_supported"].as_array().unwrap() {
        let parameters = [("grant_type", grant.as_str().unwrap())];
        let reply = ask(&app, &path("token_endpoint"), Who::Basic(&client), &parameters).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
}

// check 32: what clients without a configuration expect of a token agrees with it
#[tokio::test]
async fn introspection_names_the_same_issuer() {
    let app = TestApp::with(|config| config.tokens.issuer = "https://auth.example/".into()).await;
    let client = introspector(&app).await;
    let token = crate::oauth::access_token(&app, &client).await;
    let told = crate::oauth::introspect(&app, Who::Basic(&client), &token).await.json();
    assert_eq!(told["iss"], metadata(&app).await["issuer"]);
}
