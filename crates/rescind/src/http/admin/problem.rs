//! Errors of the admin API: problem details (RFC 9457), with the contract's envelope as a member.

use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;

/// An error of the admin API.
#[derive(Debug)]
pub(super) struct Problem(pub(super) ApiError);

impl<E: Into<ApiError>> From<E> for Problem {
    fn from(error: E) -> Problem {
        Problem(error.into())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.0.into_problem()
    }
}
