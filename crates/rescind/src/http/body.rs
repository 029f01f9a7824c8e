//! Request bodies: JSON objects of bounded size, in bounded time, without duplicate names.

use std::{fmt, time::Duration};

use axum::extract::{FromRequest, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{
    body::Body as _,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use tokio::time::timeout;

use super::error::{ApiError, Class};
use crate::secret;

/// Some twenty times what the longest sensible body has.
const MAX_LENGTH: usize = 64 * 1024;

/// How long a request's body may take to come, put into the request by the accept loop.
#[derive(Debug, Clone, Copy)]
pub struct BodyTimeout(pub Duration);

/// A request's JSON object; an absent body is an empty one.
#[derive(Debug)]
pub(super) struct JsonObject(pub(super) serde_json::Map<String, Value>);

/// A request's JSON object, read into a type. Problems name the field.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read(request, "application/json").await?;
        if bytes.is_empty() {
            return Ok(JsonObject(serde_json::Map::new()));
        }
        match parse(&bytes)? {
            Value::Object(object) => Ok(JsonObject(object)),
            _ => Err(invalid("Request body must be a JSON object")),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let JsonObject(object) = JsonObject::from_request(request, state).await?;
        serde_path_to_error::deserialize(Value::Object(object)).map(JsonBody).map_err(|e| {
            let path = e.path().to_string();
            let problem = secret::without_value(&e.into_inner().to_string());
            if path == "." { invalid(problem) } else { invalid(format!("{path}: {problem}")) }
        })
    }
}

impl JsonObject {
    /// A text that must be there: `None` if it is absent, null or empty.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(invalid(format!("{name} must be a string"))),
        }
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(Class::Validation, message)
}

/// A request's body, which must be of this type, if there is one.
pub(super) async fn read(request: Request, media_type: &'static str) -> Result<Vec<u8>, ApiError> {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        return Ok(Vec::new());
    }
    let content_type =
        head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        return Err(ApiError::new(Class::UnsupportedMediaType, format!("Content-Type must be {media_type}")));
    }
    let encodings = head.headers.get_all(CONTENT_ENCODING);
    if encodings.iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::new(Class::UnsupportedEncoding, "Content-Encoding must be identity"));
    }
    let too_large = || {
        let message = format!("Request body must not be longer than {MAX_LENGTH} bytes");
        ApiError::new(Class::PayloadTooLarge, message)
    };
    // What is announced need not be waited for.
    if body.size_hint().lower() > MAX_LENGTH as u64 {
        return Err(too_large());
    }
    // A request that did not come over a connection brings its body along.
    let patience = head.extensions.get().map_or(Duration::MAX, |&BodyTimeout(patience)| patience);
    match timeout(patience, Limited::new(body, MAX_LENGTH).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes().to_vec()),
        Ok(Err(e)) if e.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(invalid("Request body could not be read")),
        Err(_) => Err(ApiError::new(Class::BadRequest, "Request body took too long")),
    }
}

/// Parses JSON, refusing duplicate names at any depth: which of the two is meant, readers disagree
/// (RFC 8259 §4).
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let unique: Unique = serde_json::from_slice(bytes).map_err(|e| {
        if e.is_data() {
            invalid(format!("Request body: {e}"))
        } else {
            invalid("Request body must be valid JSON")
        }
    })?;
    Ok(unique.0)
}

/// A JSON value whose objects have no duplicate names.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((name, Unique(value))) = members.next_entry::<String, _>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom("a name occurs twice in one object"));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // check 57, 58
    #[test]
    fn only_json_with_unique_names() {
        assert!(parse(br#"{"a": {"b": [1, -1, 1.5, true, null, "\u00e4"]}}"#).is_ok());
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        for bad in [
            b"".as_slice(),
            b"{",
            br#"{"a":1,"a":1}"#,
            br#"{"x":[{"a":1,"\u0061":1}]}"#,
            br#"{"a":1e400}"#,
            b"\xef\xbb\xbf{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\0\"}",
            br#"{"a":"\ud800"}"#,
            b"{} {}",
            &deep(100_000),
        ] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(&bad[..bad.len().min(40)]));
        }
    }
}
