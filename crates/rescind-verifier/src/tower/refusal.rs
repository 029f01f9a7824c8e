use http::{
    HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::{BearerError, Denied, Scopes};

/// The answer to a request that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    body: &'static str,
    /// The value of `WWW-Authenticate` (RFC 6750 §3).
    challenge: Option<HeaderValue>,
}

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

impl Refusal {
    /// `required` are the scopes that the token must have; `metadata` is what the challenge ends with.
    pub(super) fn of(denied: Denied, required: &Scopes, metadata: &str) -> Refusal {
        match denied {
            Denied::Expired => Refusal::of_token(
                denied,
                envelope!("UnauthorizedError", "UNAUTHORIZED", "Token expired"),
                metadata,
            ),
            Denied::AddressNotAllowed => Refusal {
                status: StatusCode::FORBIDDEN,
                body: envelope!("ForbiddenError", "FORBIDDEN", "IP address not authorized"),
                challenge: None,
            },
            // Nothing can be decided now, because the state is too old.
            Denied::Stale => Refusal {
                status: StatusCode::SERVICE_UNAVAILABLE,
                body: envelope!(
                    "ServiceUnavailableError",
                    "SERVICE_UNAVAILABLE",
                    "The service cannot answer safely now. Retry after 1 second."
                ),
                challenge: None,
            },
            Denied::ScopeMissing => {
                let scope =
                    if required.is_empty() { String::new() } else { format!(r#", scope="{required}""#) };
                let challenge = format!(r#"Bearer realm="rescind", error="insufficient_scope"{scope}"#);
                Refusal {
                    status: StatusCode::FORBIDDEN,
                    body: envelope!("ForbiddenError", "FORBIDDEN", "Insufficient scope"),
                    challenge: header(&challenge, metadata),
                }
            }
            Denied::Malformed
            | Denied::UnknownKey
            | Denied::BadSignature
            | Denied::WrongKind
            | Denied::WrongIssuer
            | Denied::WrongAudience
            | Denied::NotYetValid
            | Denied::NotKnown
            | Denied::ClientInactive
            | Denied::Revoked => Refusal::of_token(
                denied,
                envelope!("UnauthorizedError", "UNAUTHORIZED", "Invalid token"),
                metadata,
            ),
        }
    }

    /// `metadata` is what the challenge ends with.
    pub(super) fn without_token(error: BearerError, metadata: &str) -> Refusal {
        match error {
            BearerError::Missing => Refusal {
                status: StatusCode::UNAUTHORIZED,
                body: envelope!("UnauthorizedError", "UNAUTHORIZED", "Authorization header required"),
                challenge: header(r#"Bearer realm="rescind""#, metadata),
            },
            BearerError::Malformed => Refusal::of(Denied::Malformed, &Scopes::default(), metadata),
        }
    }

    fn of_token(denied: Denied, body: &'static str, metadata: &str) -> Refusal {
        let challenge = denied.challenge().and_then(|challenge| header(challenge, metadata));
        Refusal { status: StatusCode::UNAUTHORIZED, body, challenge }
    }

    pub(super) fn response<B: From<&'static str>>(&self) -> Response<B> {
        let mut response = Response::new(B::from(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.extend(self.challenge.clone().map(|challenge| (WWW_AUTHENTICATE, challenge)));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

fn header(challenge: &str, metadata: &str) -> Option<HeaderValue> {
    // Scopes and URIs are visible ASCII without quotes, so this cannot fail.
    HeaderValue::try_from([challenge, metadata].concat()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 28
    #[test]
    fn what_cannot_be_decided_is_503_with_retry_after() {
        let response: Response<&str> = Refusal::of(Denied::Stale, &Scopes::default(), "").response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(
            *response.body(),
            r#"{"error":{"name":"ServiceUnavailableError","code":"SERVICE_UNAVAILABLE","message":"The service cannot answer safely now. Retry after 1 second."}}"#
        );
    }
}
