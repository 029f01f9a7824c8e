//! The metadata for OAuth clients (RFC 8414).

use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::{
    app::TestApp,
    oauth::{Who, ask, introspector, parameters, send},
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
        "authorization_endpoint": format!("{url}/oauth2/authorize"),
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
    let app = TestApp::with(|config| {
        config.tokens.issuer = url.into();
        config.tokens.scopes_supported = vec!["orders:read".into(), "orders:write".into()];
    });
    let with_scopes = metadata(&app.await).await;
    assert_eq!(with_scopes["scopes_supported"], json!(["orders:read", "orders:write"]));
    assert_eq!(with_scopes.as_object().unwrap().len(), expected.as_object().unwrap().len() + 1);
}

// RFC 8414 §3.1 and §5: a client may know no more than the issuer.
#[tokio::test]
async fn it_is_wherever_clients_look_for_an_issuer_with_a_path() {
    let names = ["oauth-authorization-server", "openid-configuration"];
    for (issuer, path) in [
        ("https://auth.example", ""),
        ("https://auth.example/", ""),
        ("https://auth.example/a/b", "/a/b"),
        ("https://auth.example/a/b/", "/a/b"),
        ("urn:x", ""),
    ] {
        let app = TestApp::with(|config| config.tokens.issuer = issuer.into()).await;
        let status = async |path: &str| app.send(app.request(Method::GET, path)).await.status;
        let expected = metadata(&app).await;
        for name in names {
            for found in [
                format!("/.well-known/{name}"),
                format!("/.well-known/{name}{path}"),
                format!("/.well-known/{name}{path}/"),
                format!("{path}/.well-known/{name}"),
            ] {
                let reply = app.send(app.request(Method::GET, &found)).await;
                assert_eq!((reply.status, reply.json()), (200, expected.clone()), "{issuer} {found}");
            }
            for elsewhere in [
                format!("/.well-known/{name}/x"),
                format!("/.well-known/{name}{path}/x"),
                format!("/.well-known/{name}x"),
                format!("/x/.well-known/{name}"),
                format!("{path}/x/.well-known/{name}"),
                format!("/x{path}/.well-known/{name}{path}"),
            ] {
                assert_eq!(status(&elsewhere).await, 404, "{issuer} {elsewhere}");
            }
        }
        assert_eq!(status(&format!("{path}/.well-known/jwks.json")).await, 200, "{issuer}");
        assert_eq!(status("/.well-known/jwks.json/a/b").await, 404, "{issuer}");
    }
}

// The MCP SDKs refuse metadata without this endpoint, and ask nothing of it.
#[tokio::test]
async fn the_authorization_endpoint_supports_no_response_type() {
    let app = TestApp::start().await;
    let query = "response_type=code&client_id=x&redirect_uri=https%3A%2F%2Felsewhere.example&state=1";
    let path = metadata(&app).await["authorization_endpoint"].as_str().unwrap().parse::<Url>().unwrap();
    for asked in [path.path().to_owned(), format!("{}?{query}", path.path())] {
        for request in [app.request(Method::GET, &asked), app.post(&asked)] {
            let reply = send(request).await;
            reply.is_oauth_error(400, "unsupported_response_type");
            assert_eq!(reply.header("location"), None);
        }
        let reply = app.send(app.request(Method::PUT, &asked)).await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET,HEAD,POST")));
    }
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
