//! Login, refresh and logout over HTTP.

use std::sync::Arc;

use axum::{Extension, Json, Router, extract::State, routing::post};
use hyper::HeaderMap;
use serde::Serialize;

use super::{
    bearer::bearer,
    body::JsonObject,
    error::{ApiError, Class},
};
use crate::{
    app::App,
    auth::{self, Caller, Grant},
    clock::rfc3339,
    model::ClientId,
};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/auth/logout", post(logout))
}

#[derive(Serialize)]
struct Success<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
    access_expires_at: String,
    refresh_expires_at: String,
    client_id: ClientId,
}

#[derive(Serialize)]
struct Message {
    message: &'static str,
}

// The rules' futures are boxed only when the body has arrived, so that a waiting request holds little memory.
async fn login(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    mut body: JsonObject,
) -> Result<Json<Success<Tokens>>, ApiError> {
    let (username, password) = (body.text("username")?, body.text("password")?);
    let (Some(api_key), Some(secret)) = (username, password) else {
        return Err(ApiError::new(Class::Validation, "Username and password are required"));
    };
    Ok(tokens(Box::pin(auth::login(&app, &api_key, &secret, &caller)).await?))
}

async fn refresh(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    mut body: JsonObject,
) -> Result<Json<Success<Tokens>>, ApiError> {
    let Some(token) = body.text("refresh_token")? else {
        return Err(ApiError::new(Class::Validation, "Refresh token is required"));
    };
    Ok(tokens(Box::pin(auth::refresh(&app, &token, &caller)).await?))
}

async fn logout(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<Success<Message>>, ApiError> {
    auth::logout(&app, bearer(&headers)?, &caller).await.map_err(ApiError::bearer)?;
    Ok(success(Message { message: "Successfully logged out" }))
}

fn tokens(Grant { client, pair, .. }: Grant) -> Json<Success<Tokens>> {
    success(Tokens {
        access_token: pair.access_token,
        refresh_token: pair.refresh_token,
        access_expires_at: rfc3339(pair.access_expires_at),
        refresh_expires_at: rfc3339(pair.refresh_expires_at),
        client_id: client,
    })
}

fn success<T>(data: T) -> Json<Success<T>> {
    Json(Success { success: true, data })
}
