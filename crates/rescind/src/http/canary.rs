//! A panic in code that handles secrets logs no secret.

use std::{
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    routing::post,
};
use http_body_util::BodyExt;
use hyper::{HeaderMap, header::AUTHORIZATION};
use rescind_admin::{self as admin, NewClient};
use rescind_base::{
    clock::Clock,
    model::{Actor, Client},
    random::Random,
    telemetry::metrics::Route,
};
use rescind_node::{app::App, config::Config};
use tracing::level_filters::LevelFilter;

use super::{body::JsonBody, client_ip::Peer, error::ApiError, other};

#[derive(Clone, Default)]
struct Logs(Arc<Mutex<Vec<u8>>>);

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Object = serde_json::Map<String, serde_json::Value>;

async fn panics(_: State<Arc<App>>, headers: HeaderMap, JsonBody(body): JsonBody<Object>) -> ApiError {
    panic!("a handler's own fault: {} and {} at hand", headers.len(), body.len())
}

/// Panics like a library that prints the bad value it got.
async fn panics_with_a_value(_: State<Arc<App>>, JsonBody(body): JsonBody<Object>) -> ApiError {
    panic!("not a number: {:?}", body["password"])
}

async fn has_a_rule_that_panics(State(app): State<Arc<App>>, JsonBody(body): JsonBody<Object>) -> ApiError {
    let rule = move |client: &mut Client| -> Result<(), ()> {
        client.name = body["password"].to_string();
        panic!("a rule's own fault")
    };
    let origin = app.audit.origin(Actor::Operator, None);
    app.store.change_client(1, origin, rule).await.unwrap_err().into()
}

// check 79, 108, CVE-2024-8365: nor when something panics
#[tokio::test]
async fn a_panic_tells_no_secret() {
    let logs = Logs::default();
    let writer = logs.clone();
    let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false);
    let _logging = tracing::subscriber::set_default(subscriber.with_writer(move || writer.clone()).finish());

    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.server.data_dir = folder.path().into();
    let app = App::open(&config, None, Clock::manual(1_736_942_400), Random::System).await.unwrap();
    let client = NewClient { name: "a".into(), ..NewClient::default() };
    let client = admin::create_client(&app, client).await.unwrap();
    let router = Router::new()
        .route("/handler", post(panics))
        .route("/value", post(panics_with_a_value))
        .route("/rule", post(has_a_rule_that_panics));
    let routes = other(router, Arc::clone(&app), |_| Route::Other);

    let secrets = ["canary-token", &client.api_secret];
    for (path, status, logged) in [
        ("/handler", 500, "a handler's own fault: 4 and 1 at hand"),
        ("/value", 500, "not a number: String(\"…\")"),
        ("/rule", 503, "a rule panicked"),
    ] {
        let request = Request::post(format!("{path}?access_token={}", secrets[0]))
            .header("host", "x")
            .header("content-type", "application/json")
            .header("cookie", secrets[0])
            .header(AUTHORIZATION, format!("Bearer {}", secrets[0]));
        let body = Body::from(format!(r#"{{"password":"{}"}}"#, secrets[1]));
        let response = routes.serve(request.body(body).unwrap(), &Peer::LOCAL).await;
        assert_eq!(response.status().as_u16(), status);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let log = String::from_utf8(std::mem::take(&mut *logs.0.lock().unwrap())).unwrap();
        assert!(log.contains(logged), "{logged} is not in {log}");
        for text in [log.as_str(), str::from_utf8(&body).unwrap()] {
            assert!(secrets.iter().all(|secret| !text.contains(*secret)), "{text}");
        }
    }
    assert_eq!(admin::client(&app, 1).await.unwrap().name, "a");
}
