//! Creations under an idempotency key.
//!
//! 1. The key is reserved in the store before the creation, so every node knows it. Of several requests with one key, at
//!    most one creates.
//! 2. A creation's answer holds a secret, which the store must not keep. So a repeated key is answered with 409, and the
//!    path of what was created before.
//! 3. A refused creation releases its key. After a failure it is not known whether the creation was committed, so the
//!    key stays reserved.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::HeaderMap;
use rescind_admin as admin;
use rescind_base::model::{Creation, CreationKey};
use rescind_node::app::{ASKED, App, spawn_as_asked};
use rescind_store::StoreError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::warn;

use super::problem::Problem;
use crate::http::error::{ApiError, Class};

pub(super) const HEADER: &str = "idempotency-key";

/// A creation's idempotency key, and the hash of its request.
pub(super) struct Once {
    key: CreationKey,
    request: [u8; 32],
}

impl Once {
    /// Reads the key of a request, if it has one.
    pub(super) fn read(
        headers: &HeaderMap,
        path: &str,
        input: &impl Serialize,
    ) -> Result<Option<Once>, Problem> {
        let mut keys = headers.get_all(HEADER).iter();
        let Some(key) = keys.next() else { return Ok(None) };
        let is_sane = (1..=128).contains(&key.len()) && key.as_bytes().iter().all(u8::is_ascii_graphic);
        let key = key.to_str().ok().filter(|_| is_sane && keys.next().is_none());
        let key = key.ok_or_else(|| {
            let problem = "Idempotency-Key: expected one of 1 to 128 visible ASCII characters";
            ApiError::new(Class::Validation, problem)
        })?;
        let token = ASKED.try_with(|asked| asked.token).ok().flatten().unwrap_or(0);
        let input = serde_json::to_vec(input).map_err(ApiError::internal)?;
        let request =
            Sha256::new().chain_update(path).chain_update([0]).chain_update(input).finalize().into();
        Ok(Some(Once { key: CreationKey { token, key: key.to_owned() }, request }))
    }
}

/// The path of what was created, and the answer's text.
type Created = (String, Result<Vec<u8>, ApiError>);

/// Creates, at most once for each key. Returns the answer's text.
pub(super) async fn create(
    app: Arc<App>,
    once: Option<Once>,
    create: BoxFuture<'static, Result<Created, admin::Error>>,
) -> Result<Vec<u8>, Problem> {
    let Some(Once { key, request }) = once else { return Ok(create.await?.1?) };
    // In a task of its own: a caller that disconnects, and then repeats the request, must find the outcome.
    let created = spawn_as_asked(async move {
        if let Some(known) = app.store.reserve_creation(key.clone(), request, app.clock.now()).await? {
            return Err(repeated(&known, request).into());
        }
        let created = create.await;
        let settled = match &created {
            Ok((path, _)) => app.store.settle_creation(key, Some(path.clone())).await,
            Err(admin::Error::Store(_) | admin::Error::Seal(_) | admin::Error::Keys(_)) => Ok(()),
            Err(_) => app.store.settle_creation(key, None).await,
        };
        // The creation is done, and its secret is shown only in this answer.
        if let Err(error) = settled {
            warn!(%error, "the outcome under an idempotency key was not noted");
        }
        Ok::<_, Problem>(created?.1?)
    });
    created.await.map_err(|e| ApiError::from(StoreError::Unavailable(e.into())))?
}

fn repeated(known: &Creation, request: [u8; 32]) -> ApiError {
    let problem = match &known.created {
        _ if known.request != request => "Idempotency-Key: it was used for another request".into(),
        Some(path) => {
            format!("Idempotency-Key: it was used before, and created {path}. Its secret is not shown again")
        }
        None => {
            "Idempotency-Key: it was used before, and that request is under way or its outcome is not known: \
                 look for what it creates"
                .into()
        }
    };
    ApiError::new(Class::Conflict, problem).about(known.created.clone().filter(|_| known.request == request))
}
