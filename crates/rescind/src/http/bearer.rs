//! The token of a request, from its `Authorization` header alone.

use hyper::{HeaderMap, header::AUTHORIZATION};
use rescind_verifier::Denied;

use super::error::ApiError;

/// Reads `Bearer <token>` (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let line = lines.next().ok_or_else(ApiError::authorization_required)?;
    let malformed = || ApiError::bearer(Denied::Malformed.into());
    if lines.next().is_some() {
        return Err(malformed());
    }
    let token = match line.as_bytes().split_at_checked(b"Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
        _ => return Err(ApiError::authorization_required()),
    };
    match std::str::from_utf8(token).map(|token| token.trim_matches(' ')) {
        Ok("") => Err(ApiError::authorization_required()),
        Ok(token) => Ok(token),
        Err(_) => Err(malformed()),
    }
}
