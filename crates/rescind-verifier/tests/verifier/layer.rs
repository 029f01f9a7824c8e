//! The middleware in a tower stack, one test per row of what it answers.

use std::{convert::Infallible, net::IpAddr, sync::Arc};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt, Full};
use rescind_verifier::{ClientPolicy, Denied, Kind, SessionState, VerifiedToken, tower::VerifyLayer};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::fixture::{KEY, Memory, NOW, Scene, claims, profile, token, verifier_of};

/// Where a request came from, as a listener notes it.
#[derive(Clone, Copy)]
struct Peer(IpAddr);

/// The name that the inner service saw, and the answer.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.get_all(name).iter();
        let line = lines.next()?.to_str().unwrap();
        assert!(lines.next().is_none(), "{name} twice");
        Some(line)
    }

    /// Asserts that this is exactly the refusal.
    #[track_caller]
    fn is(&self, status: u16, name: &str, code: &str, message: &str, challenge: Option<&str>) {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body, json!({"error": {"name": name, "code": code, "message": message}}));
        assert_eq!(self.status, status);
        assert_eq!(self.header("www-authenticate"), challenge);
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
    }

    #[track_caller]
    fn is_authorization_required(&self) {
        let challenge = r#"Bearer realm="rescind""#;
        self.is(401, "UnauthorizedError", "UNAUTHORIZED", "Authorization header required", Some(challenge));
    }

    #[track_caller]
    fn is_invalid_token(&self, message: &str) {
        let challenge = r#"Bearer realm="rescind", error="invalid_token""#;
        self.is(401, "UnauthorizedError", "UNAUTHORIZED", message, Some(challenge));
    }

    #[track_caller]
    fn is_revoked(&self) {
        let challenge =
            r#"Bearer realm="rescind", error="invalid_token", error_description="revoked: get a new token""#;
        self.is(401, "UnauthorizedError", "UNAUTHORIZED", "Invalid token", Some(challenge));
    }

    #[track_caller]
    fn is_address_not_authorized(&self) {
        self.is(403, "ForbiddenError", "FORBIDDEN", "IP address not authorized", None);
    }

    #[track_caller]
    fn passed(&self) {
        assert_eq!((self.status, self.body.as_ref()), (StatusCode::OK, &b"client 42, session 7"[..]));
    }
}

/// The inner service: it answers with the name of the token's client.
async fn whose<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let token: &VerifiedToken = request.extensions().get().unwrap();
    let text = format!("client {}, session {}", token.claims().client, token.claims().session);
    Ok(Response::new(Full::from(text)))
}

fn decide(scene: Scene) -> impl Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied> + Clone {
    let mut memory = Memory::default();
    memory.clients.extend(scene.client.map(|client: ClientPolicy| (42, Arc::new(client))));
    memory.sessions.extend(scene.session.map(|session: SessionState| (7, session)));
    let (verifier, memory) = (verifier_of(&[KEY]), Arc::new(memory));
    move |token: &str, caller| verifier.verify(token, caller, NOW, &*memory)
}

/// The type of [`peer`], so that layers with different `decide`s have one type.
type Caller = fn(&Parts) -> Option<IpAddr>;

fn peer(request: &Parts) -> Option<IpAddr> {
    request.extensions.get().map(|Peer(address)| *address)
}

async fn send<D>(layer: VerifyLayer<D, Caller>, request: Request<Full<Bytes>>) -> Answer
where
    D: Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied> + Clone,
{
    let service = ServiceBuilder::new().layer(layer).service(service_fn(whose));
    let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A layer over a scene.
fn layer(
    scene: Scene,
) -> VerifyLayer<impl Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied> + Clone, Caller> {
    VerifyLayer::new(decide(scene), peer)
}

/// A request with these `Authorization` lines, from an address on the allowlist.
fn request(lines: &[&str]) -> Request<Full<Bytes>> {
    let mut request = Request::builder().extension(Peer("203.0.113.7".parse().unwrap()));
    for line in lines {
        request = request.header("authorization", *line);
    }
    request.body(Full::default()).unwrap()
}

fn bearer(token: &str) -> Request<Full<Bytes>> {
    request(&[&format!("Bearer {token}")])
}

async fn answer(request: Request<Full<Bytes>>) -> Answer {
    send(layer(Scene::good()), request).await
}

#[tokio::test]
async fn a_token_that_stands_passes() {
    answer(bearer(&token())).await.passed();
}

/// The inner service sees the token of this request, not one that an outer layer put there.
#[tokio::test]
async fn the_token_replaces_another() {
    let mut other = Scene::good();
    other.claims.scopes = "orders:read".parse().unwrap();
    let mut request = bearer(&token());
    request.extensions_mut().insert(other.verify().unwrap());
    let seen = service_fn(async |request: Request<Full<Bytes>>| {
        Ok::<_, Infallible>(Response::<Full<Bytes>>::new(Full::from(
            request.extensions().get::<VerifiedToken>().unwrap().scopes().to_string(),
        )))
    });
    let response = layer(Scene::good()).layer(seen).oneshot(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "orders:read orders:write");
}

// check 19
#[tokio::test]
async fn no_authorization_header() {
    answer(request(&[])).await.is_authorization_required();
}

// check 19, 23
#[tokio::test]
async fn nothing_of_the_form_bearer_something() {
    for line in ["", "Bearer", "Bearer ", &format!("Bearer\t{}", token()), &token(), "Basic YTpi"] {
        answer(request(&[line])).await.is_authorization_required();
    }
}

// check 20
#[tokio::test]
async fn an_expired_token() {
    let mut expired = claims();
    expired.expires_at = NOW;
    let token = KEY.issue(Kind::Access, &expired, &profile());
    answer(bearer(&token)).await.is_invalid_token("Token expired");
}

// check 20
#[tokio::test]
async fn a_forged_token() {
    let token = token();
    answer(bearer(&token[..token.len() - 1])).await.is_invalid_token("Invalid token");
    answer(bearer("x")).await.is_invalid_token("Invalid token");
}

// check 15, 20
#[tokio::test]
async fn a_revoked_token() {
    let mut scene = Scene::good();
    scene.client().generation += 1;
    send(layer(scene), bearer(&token())).await.is_revoked();
}

// check 39
#[tokio::test]
async fn a_refresh_token() {
    let token = KEY.issue(Kind::Refresh, &claims(), &profile());
    answer(bearer(&token)).await.is_invalid_token("Invalid token");
}

// check 70
#[tokio::test]
async fn an_address_that_is_not_on_the_allowlist() {
    let mut request = bearer(&token());
    request.extensions_mut().insert(Peer("198.51.100.1".parse().unwrap()));
    answer(request).await.is_address_not_authorized();
}

/// An unknown address is refused without an allowlist too, and even if `decide` uses another address.
// check 65
#[tokio::test]
async fn an_address_that_could_not_be_told() {
    let unknown = || {
        let mut request = bearer(&token());
        request.extensions_mut().remove::<Peer>();
        request
    };
    answer(unknown()).await.is_address_not_authorized();

    let mut scene = Scene::good();
    scene.client().allowlist = Default::default();
    send(layer(scene), unknown()).await.is_address_not_authorized();

    let decide = decide(Scene::good());
    let made_up = move |token: &str, _: Option<IpAddr>| decide(token, "203.0.113.7".parse().ok());
    send(VerifyLayer::new(made_up, peer as _), unknown()).await.is_address_not_authorized();
}

/// An invalid token is reported before an unknown address.
#[tokio::test]
async fn the_address_is_judged_last() {
    let mut request = bearer("x");
    request.extensions_mut().remove::<Peer>();
    answer(request).await.is_invalid_token("Invalid token");
}

// check 21
#[tokio::test]
async fn a_missing_scope() {
    let requiring = |scopes: &str| layer(Scene::good()).require(scopes.parse().unwrap());
    send(requiring("orders:read"), bearer(&token())).await.passed();
    send(requiring("orders:write orders:read"), bearer(&token())).await.passed();

    let refused = send(requiring("orders:read orders:delete"), bearer(&token())).await;
    let challenge =
        r#"Bearer realm="rescind", error="insufficient_scope", scope="orders:delete orders:read""#;
    refused.is(403, "ForbiddenError", "FORBIDDEN", "Insufficient scope", Some(challenge));

    // What was demanded before is still demanded.
    let twice = requiring("orders:delete").require("orders:read".parse().unwrap());
    let refused = send(twice, bearer(&token())).await;
    refused.is(403, "ForbiddenError", "FORBIDDEN", "Insufficient scope", Some(challenge));
}

// RFC 9728 §5.1
#[tokio::test]
async fn a_challenge_names_the_metadata_of_the_api() {
    let url = "https://api.example/.well-known/oauth-protected-resource/orders";
    let layer = || layer(Scene::good()).resource_metadata(url).unwrap();
    let nobody = Request::new(Full::default());
    for (request, required, error) in [
        (nobody, "", ""),
        (bearer("x"), "", r#", error="invalid_token""#),
        (bearer(&token()), "a", r#", error="insufficient_scope", scope="a""#),
    ] {
        let refused = send(layer().require(required.parse().unwrap()), request).await;
        let challenge = format!(r#"Bearer realm="rescind"{error}, resource_metadata="{url}""#);
        assert_eq!(refused.header("www-authenticate"), Some(challenge.as_str()));
    }
    assert!(layer().resource_metadata("/metadata").is_err());
    assert!(layer().resource_metadata("https://a/\", b=\"").is_err());
}

// check 21
#[tokio::test]
async fn a_scope_that_the_client_has_no_more() {
    let mut scene = Scene::good();
    scene.client().scopes = "orders:read".parse().unwrap();
    let layer = layer(scene).require("orders:write".parse().unwrap());
    let challenge = r#"Bearer realm="rescind", error="insufficient_scope", scope="orders:write""#;
    let refused = send(layer, bearer(&token())).await;
    refused.is(403, "ForbiddenError", "FORBIDDEN", "Insufficient scope", Some(challenge));
}

// check 22
#[tokio::test]
async fn tokens_in_the_query_or_the_body_are_not_read() {
    let token = token();
    let mut anonymous = request(&[]);
    *anonymous.uri_mut() = format!("/orders?access_token={token}").parse().unwrap();
    *anonymous.body_mut() = Full::from(format!("access_token={token}"));
    let content_type = "application/x-www-form-urlencoded".parse().unwrap();
    anonymous.headers_mut().insert("content-type", content_type);
    answer(anonymous).await.is_authorization_required();
}

// check 23
#[tokio::test]
async fn the_scheme_is_case_insensitive() {
    for scheme in ["bearer", "BEARER", "bEaReR"] {
        answer(request(&[&format!("{scheme} {}", token())])).await.passed();
    }
}

// check 23
#[tokio::test]
async fn tabs_and_comma_lists() {
    let token = token();
    for line in [
        format!("Bearer \t{token}"),
        format!("Bearer {token}\t"),
        format!("Bearer {token},{token}"),
        format!("Bearer {token}, Bearer {token}"),
    ] {
        answer(request(&[&line])).await.is_invalid_token("Invalid token");
    }
}

// check 24
#[tokio::test]
async fn two_authorization_headers() {
    let good = format!("Bearer {}", token());
    for lines in [[&*good, &*good], [&*good, "Basic YTpi"], ["Basic YTpi", &*good], ["", &*good]] {
        answer(request(&lines)).await.is_invalid_token("Invalid token");
    }
}

#[tokio::test]
async fn every_reason_has_its_answer() {
    for denied in [
        Denied::Malformed,
        Denied::UnknownKey,
        Denied::BadSignature,
        Denied::WrongKind,
        Denied::WrongIssuer,
        Denied::WrongAudience,
        Denied::NotYetValid,
        Denied::NotKnown,
        Denied::ClientInactive,
    ] {
        let layer = VerifyLayer::new(move |_: &str, _| Err(denied), peer as _);
        send(layer, bearer("x")).await.is_invalid_token("Invalid token");
    }
    let answer = |denied| send(VerifyLayer::new(move |_: &str, _| Err(denied), peer as _), bearer("x"));
    answer(Denied::Revoked).await.is_revoked();
    answer(Denied::Expired).await.is_invalid_token("Token expired");
    answer(Denied::AddressNotAllowed).await.is_address_not_authorized();
    let undecided = answer(Denied::Stale).await;
    let message = "The service cannot answer safely now. Retry after 1 second.";
    undecided.is(503, "ServiceUnavailableError", "SERVICE_UNAVAILABLE", message, None);
    assert_eq!(undecided.header("retry-after"), Some("1"));
    let challenge = Some(r#"Bearer realm="rescind", error="insufficient_scope""#);
    let refused = answer(Denied::ScopeMissing).await;
    refused.is(403, "ForbiddenError", "FORBIDDEN", "Insufficient scope", challenge);
}

/// With axum's own body, router and extensions.
#[tokio::test]
async fn in_front_of_an_axum_router() {
    let router = axum::Router::new()
        .route(
            "/orders",
            axum::routing::get(async |axum::Extension(token): axum::Extension<VerifiedToken>| {
                token.client().name.clone()
            }),
        )
        .layer(layer(Scene::good()));
    let get = async |request: Request<Full<Bytes>>| {
        let mut request = request.map(Body::new);
        *request.uri_mut() = "/orders".parse().unwrap();
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    };
    get(request(&[])).await.is_authorization_required();
    let passed = get(bearer(&token())).await;
    assert_eq!((passed.status, passed.body.as_ref()), (StatusCode::OK, &b"billing"[..]));
}
