//! The admin API, as the command line uses it over the data folder's socket.

use std::{
    error::Error as _,
    io::{self, Read},
    sync::Arc,
};

use axum::{
    Json, Router,
    body::Body,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use bytes::Bytes;
use http_body_util::channel::Channel;
use hyper::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    body::JsonBody,
    error::{ApiError, Class},
};
use crate::{
    admin::{
        self, AllowChange, CertificateChange, EnforcementChange, KeyRotation, NewClient, NewCredential,
        NewVerifier, Rotation,
    },
    app::App,
    model::ClientId,
    secret,
};

type Answer<T> = Result<Json<T>, ApiError>;

pub(super) fn routes() -> Router<Arc<App>> {
    let routes = Router::new()
        .route("/status", get(async |State(app): State<Arc<App>>| Json(admin::status(&app))))
        .route("/clients", get(clients).post(create_client))
        .route("/clients/{id}", get(client).delete(delete_client))
        .route("/clients/{id}/suspend", post(suspend))
        .route("/clients/{id}/resume", post(resume))
        .route("/clients/{id}/logout", post(logout))
        .route("/clients/{id}/allow", post(allow))
        .route("/clients/{id}/allow/check", get(check))
        .route("/clients/{id}/certificates", post(certificates))
        .route("/clients/{id}/enforces-allowlist", post(enforces_allowlist))
        .route("/clients/{id}/credentials", get(credentials).post(create_credential))
        .route("/credentials/{api_key}/rotate", post(rotate_credential))
        .route("/credentials/{api_key}/revoke", post(revoke_credential))
        .route("/keys", get(keys))
        .route("/keys/rotate", post(rotate_key))
        .route("/keys/{kid}/retire", post(retire_key))
        .route("/backup", get(backup))
        .route("/restored", post(restored))
        .route("/verifiers", get(verifiers).post(create_verifier))
        .route("/verifiers/{id}", delete(revoke_verifier))
        .route("/tokens/inspect", post(inspect))
        .route("/audit", get(events));
    Router::new().nest("/admin/v1", routes)
}

#[derive(Deserialize)]
struct Address {
    address: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    token: String,
}

/// A path's one parameter. A parameter that cannot be read is answered with 404.
type Parameter<T> = Result<Path<T>, PathRejection>;

fn parameter<T: DeserializeOwned>(parameter: Parameter<T>) -> Result<T, ApiError> {
    parameter.map(|Path(value)| value).map_err(|_| ApiError::new(Class::NotFound, "No such path"))
}

fn answer<T: Serialize>(outcome: Result<T, admin::Error>) -> Answer<T> {
    Ok(Json(outcome?))
}

async fn clients(State(app): State<Arc<App>>) -> Answer<Vec<admin::ClientView>> {
    answer(admin::clients(&app).await)
}

async fn create_client(
    State(app): State<Arc<App>>,
    JsonBody(new): JsonBody<NewClient>,
) -> Answer<admin::CreatedClient> {
    answer(admin::create_client(&app, new).await)
}

async fn client(State(app): State<Arc<App>>, id: Parameter<ClientId>) -> Answer<admin::ClientView> {
    answer(admin::client(&app, parameter(id)?).await)
}

async fn delete_client(State(app): State<Arc<App>>, id: Parameter<ClientId>) -> Answer<admin::ClientView> {
    answer(admin::delete(&app, parameter(id)?).await)
}

async fn suspend(State(app): State<Arc<App>>, id: Parameter<ClientId>) -> Answer<admin::ClientView> {
    answer(admin::suspend(&app, parameter(id)?).await)
}

async fn resume(State(app): State<Arc<App>>, id: Parameter<ClientId>) -> Answer<admin::ClientView> {
    answer(admin::resume(&app, parameter(id)?).await)
}

async fn logout(State(app): State<Arc<App>>, id: Parameter<ClientId>) -> Answer<admin::ClientView> {
    answer(admin::logout(&app, parameter(id)?).await)
}

async fn allow(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
    JsonBody(change): JsonBody<AllowChange>,
) -> Answer<admin::ClientView> {
    answer(admin::change_allowlist(&app, parameter(id)?, change).await)
}

async fn enforces_allowlist(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
    JsonBody(change): JsonBody<EnforcementChange>,
) -> Answer<admin::ClientView> {
    answer(admin::change_enforcement(&app, parameter(id)?, change).await)
}

async fn check(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
    query: Result<Query<Address>, QueryRejection>,
) -> Answer<admin::AddressCheck> {
    let Ok(Query(Address { address })) = query else {
        return Err(ApiError::new(
            Class::Validation,
            "address: expected one in the query, as ?address=203.0.113.7",
        ));
    };
    answer(admin::check_address(&app, parameter(id)?, &address).await)
}

async fn certificates(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
    JsonBody(change): JsonBody<CertificateChange>,
) -> Answer<admin::ClientView> {
    answer(admin::change_certificates(&app, parameter(id)?, change).await)
}

async fn credentials(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
) -> Answer<Vec<admin::CredentialView>> {
    answer(admin::credentials(&app, parameter(id)?).await)
}

async fn create_credential(
    State(app): State<Arc<App>>,
    id: Parameter<ClientId>,
    JsonBody(new): JsonBody<NewCredential>,
) -> Answer<admin::CreatedCredential> {
    answer(admin::create_credential(&app, parameter(id)?, new).await)
}

async fn rotate_credential(
    State(app): State<Arc<App>>,
    api_key: Parameter<String>,
    JsonBody(rotation): JsonBody<Rotation>,
) -> Answer<admin::CreatedCredential> {
    answer(admin::rotate_credential(&app, &parameter(api_key)?, rotation).await)
}

async fn revoke_credential(
    State(app): State<Arc<App>>,
    api_key: Parameter<String>,
) -> Answer<admin::CredentialView> {
    answer(admin::revoke_credential(&app, &parameter(api_key)?).await)
}

async fn keys(State(app): State<Arc<App>>) -> Answer<Vec<admin::KeyView>> {
    answer(admin::keys(&app).await)
}

async fn rotate_key(
    State(app): State<Arc<App>>,
    JsonBody(rotation): JsonBody<KeyRotation>,
) -> Answer<Vec<admin::KeyView>> {
    answer(admin::rotate_key(&app, rotation).await)
}

async fn retire_key(State(app): State<Arc<App>>, kid: Parameter<String>) -> Answer<Vec<admin::KeyView>> {
    answer(admin::retire_key(&app, &parameter(kid)?).await)
}

async fn restored(State(app): State<Arc<App>>) -> Answer<admin::EndedTokens> {
    answer(admin::restored(&app).await)
}

async fn verifiers(State(app): State<Arc<App>>) -> Json<Vec<admin::VerifierView>> {
    Json(admin::verifiers(&app))
}

async fn create_verifier(
    State(app): State<Arc<App>>,
    JsonBody(new): JsonBody<NewVerifier>,
) -> Answer<admin::CreatedVerifier> {
    answer(admin::create_verifier(&app, new).await)
}

async fn revoke_verifier(
    State(app): State<Arc<App>>,
    id: Parameter<u64>,
) -> Answer<Vec<admin::VerifierView>> {
    answer(admin::revoke_verifier(&app, parameter(id)?).await)
}

async fn events(
    State(app): State<Arc<App>>,
    query: Result<Query<admin::EventsWanted>, QueryRejection>,
) -> Answer<admin::EventsView> {
    let Query(wanted) = query.map_err(|rejection| {
        let problem = rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
        let problem = match problem.split_once(": ") {
            Some((field, problem)) => format!("{field}: {}", secret::without_value(problem)),
            None => secret::without_value(&problem),
        };
        ApiError::new(Class::Validation, problem)
    })?;
    answer(admin::events(&app.store, &app.clock, wanted).await)
}

async fn inspect(
    State(app): State<Arc<App>>,
    JsonBody(Token { token }): JsonBody<Token>,
) -> Answer<admin::TokenView> {
    answer(admin::inspect(&app, &token).await)
}

/// In bytes: the part of a backup that is read at once.
const CHUNK: usize = 64 * 1024;

/// Streams the file of a new backup.
async fn backup(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let mut file = admin::backup(&app).await?;
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    let runtime = Handle::current();
    spawn_blocking(move || {
        loop {
            let mut chunk = vec![0; CHUNK];
            let sent = match file.read(&mut chunk) {
                Ok(0) => return,
                Ok(read) => {
                    chunk.truncate(read);
                    runtime.block_on(sender.send_data(chunk.into()))
                }
                Err(error) => return sender.abort(error),
            };
            // The caller has disconnected.
            if sent.is_err() {
                return;
            }
        }
    });
    Ok(([(CONTENT_TYPE, "application/vnd.sqlite3")], Body::new(body)).into_response())
}
