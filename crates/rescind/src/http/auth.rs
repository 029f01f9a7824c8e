//! Login, refresh, logout and the report of a leak over HTTP.

use std::sync::Arc;

use axum::{Json, extract::Request};
use rescind_base::{clock::rfc3339, model::ClientId};
use rescind_node::app::App;
use serde::Serialize;

use super::{
    bearer::bearer,
    body::JsonObject,
    error::{ApiError, Class},
};
use crate::auth::{self, Caller, Grant, Leaked};

#[derive(Serialize)]
pub(super) struct Success<T> {
    success: bool,
    data: T,
}

#[derive(Serialize)]
pub(super) struct Tokens {
    access_token: String,
    refresh_token: String,
    access_expires_at: String,
    refresh_expires_at: String,
    client_id: ClientId,
}

#[derive(Serialize)]
pub(super) struct Message {
    message: &'static str,
}

#[derive(Serialize)]
pub(super) struct Revoked {
    revoked: &'static str,
}

// The rules' futures are boxed only when the body has arrived, so that a waiting request holds little memory.
pub(super) async fn login(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Success<Tokens>>, ApiError> {
    let mut body = JsonObject::read(request).await?;
    let (username, password) = (body.text("username")?, body.text("password")?);
    let (Some(api_key), Some(secret)) = (username, password) else {
        return Err(ApiError::new(Class::Validation, "Username and password are required"));
    };
    Ok(tokens(Box::pin(auth::login(app, &api_key, &secret, caller)).await?))
}

pub(super) async fn refresh(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Success<Tokens>>, ApiError> {
    let mut body = JsonObject::read(request).await?;
    let Some(token) = body.text("refresh_token")? else {
        return Err(ApiError::new(Class::Validation, "Refresh token is required"));
    };
    Ok(tokens(Box::pin(auth::refresh(app, &token, caller)).await?))
}

pub(super) async fn logout(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Success<Message>>, ApiError> {
    // Nobody reads the body, which would take a part of its connection's window until the answer.
    let (head, _) = request.into_parts();
    let logout = Box::pin(auth::logout(app, bearer(&head.headers)?, caller));
    logout.await.map_err(ApiError::bearer)?;
    Ok(success(Message { message: "Successfully logged out" }))
}

pub(super) async fn leaked(
    app: &Arc<App>,
    caller: &Caller,
    request: Request,
) -> Result<Json<Success<Revoked>>, ApiError> {
    let mut body = JsonObject::read(request).await?;
    let Some(token) = body.text("token")? else {
        return Err(ApiError::new(Class::Validation, "Token is required"));
    };
    let revoked = Box::pin(auth::report_leak(app, &token, caller)).await?;
    Ok(success(Revoked { revoked: revoked.map_or("nothing", Leaked::name) }))
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
