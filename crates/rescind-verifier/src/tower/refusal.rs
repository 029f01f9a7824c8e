use std::sync::Arc;

use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{BearerError, Denied, Scopes};

/// The answer to a request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    AuthorizationRequired,
    InvalidToken,
    TokenExpired,
    AddressNotAllowed,
    /// The scopes are those that were required.
    InsufficientScope(Arc<Scopes>),
    /// Nothing can be decided now, because the state is too old.
    Unavailable,
}

impl Refusal {
    pub(super) fn of(denied: Denied, required: &Arc<Scopes>) -> Refusal {
        match denied {
            Denied::Expired => Refusal::TokenExpired,
            Denied::AddressNotAllowed => Refusal::AddressNotAllowed,
            Denied::Stale => Refusal::Unavailable,
            Denied::ScopeMissing => Refusal::InsufficientScope(Arc::clone(required)),
            Denied::Malformed
            | Denied::UnknownKey
            | Denied::BadSignature
            | Denied::WrongKind
            | Denied::WrongIssuer
            | Denied::WrongAudience
            | Denied::NotYetValid
            | Denied::NotKnown
            | Denied::ClientInactive
            | Denied::Revoked => Refusal::InvalidToken,
        }
    }

    pub(super) fn response<B: From<&'static str>>(&self) -> Response<B> {
        let mut response = Response::new(B::from(self.body()));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.challenge().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        if *self == Refusal::Unavailable {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Refusal::AuthorizationRequired | Refusal::InvalidToken | Refusal::TokenExpired => {
                StatusCode::UNAUTHORIZED
            }
            Refusal::AddressNotAllowed | Refusal::InsufficientScope(_) => StatusCode::FORBIDDEN,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn body(&self) -> &'static str {
        macro_rules! envelope {
            ($name:literal, $code:literal, $message:literal) => {
                concat!(
                    r#"{"error":{"name":""#,
                    $name,
                    r#"","code":""#,
                    $code,
                    r#"","message":""#,
                    $message,
                    r#""}}"#
                )
            };
        }
        match self {
            Refusal::AuthorizationRequired => {
                envelope!("UnauthorizedError", "UNAUTHORIZED", "Authorization header required")
            }
            Refusal::InvalidToken => envelope!("UnauthorizedError", "UNAUTHORIZED", "Invalid token"),
            Refusal::TokenExpired => envelope!("UnauthorizedError", "UNAUTHORIZED", "Token expired"),
            Refusal::AddressNotAllowed => {
                envelope!("ForbiddenError", "FORBIDDEN", "IP address not authorized")
            }
            Refusal::InsufficientScope(_) => envelope!("ForbiddenError", "FORBIDDEN", "Insufficient scope"),
            Refusal::Unavailable => envelope!(
                "ServiceUnavailableError",
                "SERVICE_UNAVAILABLE",
                "The service cannot answer safely now. Retry after 1 seconds."
            ),
        }
    }

    /// RFC 6750 §3.
    fn challenge(&self) -> Option<HeaderValue> {
        match self {
            Refusal::AuthorizationRequired => Some(HeaderValue::from_static(r#"Bearer realm="rescind""#)),
            Refusal::InvalidToken | Refusal::TokenExpired => {
                Some(HeaderValue::from_static(r#"Bearer realm="rescind", error="invalid_token""#))
            }
            Refusal::InsufficientScope(scopes) => {
                let scope = if scopes.is_empty() { String::new() } else { format!(r#", scope="{scopes}""#) };
                // Scopes are visible ASCII without quotes, so this cannot fail.
                HeaderValue::try_from(format!(r#"Bearer realm="rescind", error="insufficient_scope"{scope}"#))
                    .ok()
            }
            Refusal::AddressNotAllowed | Refusal::Unavailable => None,
        }
    }
}

impl From<BearerError> for Refusal {
    fn from(error: BearerError) -> Refusal {
        match error {
            BearerError::Missing => Refusal::AuthorizationRequired,
            BearerError::Malformed => Refusal::InvalidToken,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 28
    #[test]
    fn what_cannot_be_decided_is_503_with_retry_after() {
        let response: Response<&str> = Refusal::Unavailable.response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(
            *response.body(),
            r#"{"error":{"name":"ServiceUnavailableError","code":"SERVICE_UNAVAILABLE","message":"The service cannot answer safely now. Retry after 1 seconds."}}"#
        );
    }
}
