//! An answer, and the checks that hold for every answer.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::app::Pair;

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// The contract's table: the `name` and `code` of a status.
fn names(status: u16, body: &str) -> (&'static str, &'static str) {
    match status {
        400 if body.contains("BAD_REQUEST") => ("BadRequestError", "BAD_REQUEST"),
        400 => ("ValidationException", "VALIDATION_FAILURE"),
        401 => ("UnauthorizedError", "UNAUTHORIZED"),
        403 => ("ForbiddenError", "FORBIDDEN"),
        404 => ("NotFoundError", "NOT_FOUND"),
        405 => ("MethodNotAllowedError", "METHOD_NOT_ALLOWED"),
        409 => ("ConflictError", "CONFLICT"),
        412 => ("PreconditionFailedError", "PRECONDITION_FAILED"),
        413 => ("PayloadTooLargeError", "PAYLOAD_TOO_LARGE"),
        415 => ("UnsupportedMediaTypeError", "UNSUPPORTED_MEDIA_TYPE"),
        429 => ("TooManyRequestsError", "TOO_MANY_REQUESTS"),
        431 => ("HeadersTooLargeError", "HEADERS_TOO_LARGE"),
        500 => ("InternalServerError", "INTERNAL_SERVER_ERROR"),
        503 => ("ServiceUnavailableError", "SERVICE_UNAVAILABLE"),
        status => panic!("the contract has no {status}: {body}"),
    }
}

impl Reply {
    pub(crate) async fn read(response: reqwest::Response) -> Reply {
        Reply::received(response).await.checked()
    }

    /// Reads an answer of an OAuth endpoint, whose errors have RFC 6749's form.
    pub(crate) async fn read_oauth(response: reqwest::Response) -> Reply {
        Reply::received(response).await.checked_oauth()
    }

    async fn received(response: reqwest::Response) -> Reply {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Reply { status, headers, body: response.text().await.unwrap() }
    }

    /// Reads the text of a head.
    pub(crate) fn parse_head(head: &str) -> Reply {
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap();
        let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap();
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        Reply { status: status.unwrap().parse().unwrap(), headers, body: String::new() }
    }

    /// The one value of a header, if there is one.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap());
        assert!(values.next().is_none(), "{name} stands there twice: {self:?}");
        value
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Checks what holds for every answer: a request id, no caching, and for errors the envelope.
    // check 3, 62, 78
    #[track_caller]
    pub(crate) fn checked(self) -> Reply {
        let reply = self.framed();
        if !(200..300).contains(&reply.status) && !reply.body.is_empty() {
            let json = reply.json();
            let message = json["error"]["message"].as_str().expect("a message");
            reply.says_error(reply.status, message);
            if reply.is_problem() {
                assert_eq!((&json["status"], &json["detail"]), (&reply.status.into(), &message.into()));
                assert_eq!(json["type"], "about:blank");
                assert!(json["title"].is_string(), "{reply:?}");
            }
        }
        reply
    }

    /// The same checks for OAuth, where an error has RFC 6749's two members, in the characters of its §5.2.
    // check 3, 7, 33, 62
    #[track_caller]
    fn checked_oauth(self) -> Reply {
        let reply = self.framed();
        if !(200..300).contains(&reply.status) {
            let json = reply.json();
            assert_eq!(json.as_object().map(serde_json::Map::len), Some(2), "{reply:?}");
            for member in ["error", "error_description"] {
                let text = json[member].as_str().unwrap_or_else(|| panic!("{member}: {reply:?}"));
                let plain = |b: u8| matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
                assert!(!text.is_empty() && text.bytes().all(plain), "{reply:?}");
            }
        }
        reply
    }

    /// Checks what holds for every answer in either form.
    #[track_caller]
    fn framed(self) -> Reply {
        let id = self.header("x-request-id").expect("a request id");
        assert!((1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic()), "{id:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        if [429, 503].contains(&self.status) {
            let seconds = self.header("retry-after").and_then(|seconds| seconds.parse::<u64>().ok());
            assert!(seconds.is_some_and(|seconds| seconds > 0), "{self:?}");
        }
        if !self.body.is_empty() && !self.is_problem() {
            assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        }
        self
    }

    /// Whether this is an error of the admin API, whose envelope is a member.
    fn is_problem(&self) -> bool {
        self.status >= 400 && self.header("content-type") == Some("application/problem+json")
    }

    /// Asserts that this is the error, with exactly this body.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, message: &str) {
        if self.is_problem() {
            return self.says_error(status, message);
        }
        assert_eq!((self.status, self.body.as_str()), (status, &*error_body(status, message, &self.body)));
    }

    /// Asserts that this is the error, with its members in any order.
    #[track_caller]
    pub(crate) fn says_error(&self, status: u16, message: &str) {
        let expected: Value = serde_json::from_str(&error_body(status, message, &self.body)).unwrap();
        let mut told = self.json();
        if self.is_problem() {
            told = json!({ "error": told["error"] });
        }
        assert_eq!((self.status, told), (status, expected), "{self:?}");
    }

    /// Asserts that this is the OAuth error.
    #[track_caller]
    pub(crate) fn is_oauth_error(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.json()["error"].as_str()), (status, Some(code)), "{self:?}");
    }

    /// Asserts that this is exactly the answer about an inactive token.
    // check 30
    #[track_caller]
    pub(crate) fn is_inactive(&self) {
        assert_eq!((self.status, self.body.as_str()), (200, r#"{"active":false}"#), "{self:?}");
    }

    /// Asserts that this is exactly the answer to a successful logout.
    #[track_caller]
    pub(crate) fn is_logged_out(&self) {
        let body = r#"{"success":true,"data":{"message":"Successfully logged out"}}"#;
        assert_eq!((self.status, self.body.as_str()), (200, body));
    }

    /// Reads the tokens of a successful login or refresh, whose body must have exactly the contract's members.
    #[track_caller]
    pub(crate) fn pair(&self) -> Pair {
        assert_eq!(self.status, 200, "{self:?}");
        let json = self.json();
        let data = &json["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_else(|| panic!("{name}: {self:?}")).to_owned();
        let pair = Pair {
            access: text("access_token"),
            refresh: text("refresh_token"),
            access_expires_at: text("access_expires_at"),
            refresh_expires_at: text("refresh_expires_at"),
            client_id: data["client_id"].as_u64().unwrap(),
        };
        let body = format!(
            r#"{{"success":true,"data":{{"access_token":"{}","refresh_token":"{}","access_expires_at":"{}","refresh_expires_at":"{}","client_id":{}}}}}"#,
            pair.access, pair.refresh, pair.access_expires_at, pair.refresh_expires_at, pair.client_id
        );
        assert_eq!(self.body, body);
        pair
    }
}

fn error_body(status: u16, message: &str, body: &str) -> String {
    let (name, code) = names(status, body);
    let message = Value::from(message);
    format!(r#"{{"error":{{"name":"{name}","code":"{code}","message":{message}}}}}"#)
}
