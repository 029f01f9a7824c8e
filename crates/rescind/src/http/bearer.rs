//! The token of a request.

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue},
};
use rescind_base::model::Check;
use rescind_node::audit;
use rescind_verifier::{BearerError, Denied, bearer_token};

use super::error::ApiError;

/// The token in the `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let lines = headers.get_all(AUTHORIZATION).into_iter().map(HeaderValue::as_bytes);
    bearer_token(lines).map_err(|error| match error {
        BearerError::Missing => {
            audit::refused_by(Check::AuthorizationMissing);
            ApiError::authorization_required()
        }
        BearerError::Malformed => {
            audit::refused_by(Check::Token(Denied::Malformed));
            ApiError::bearer(Denied::Malformed.into())
        }
    })
}
