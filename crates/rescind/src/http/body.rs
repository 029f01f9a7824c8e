//! Request bodies: JSON objects of bounded size, in bounded time, without duplicate names.

use std::fmt;

use axum::{
    BoxError,
    body::{Body, Bytes},
    extract::{FromRequest, Request},
};
use futures_util::{
    FutureExt,
    future::{Either, ready},
};
use http_body_util::{BodyExt, Collected, LengthLimitError, Limited};
use hyper::{
    HeaderMap,
    body::Body as _,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use rescind_base::secret;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;
use thiserror::Error;

use super::error::{ApiError, Class};

/// In bytes: about twenty times the longest useful body of a caller.
const MAX_LENGTH: usize = 64 * 1024;
/// In bytes: an operator's body may have two allowlists.
pub(super) const MAX_ADMIN_LENGTH: usize = 2 * 1024 * 1024;

/// Why a request's body could not be read to its end.
#[derive(Debug, Error)]
pub enum BodyError {
    /// The body is malformed, or the connection has ended.
    #[error("the connection: {0}")]
    Connection(#[source] hyper::Error),
    /// The body has not arrived in time.
    #[error("it took too long")]
    TooSlow,
    /// Another request has taken the place.
    #[error("another request has its place")]
    MadeRoom,
}

/// A request's JSON object. An absent body counts as an empty object.
#[derive(Debug)]
pub(super) struct JsonObject(pub(super) serde_json::Map<String, Value>);

/// A request's JSON object, read into a type.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    fn from_request(request: Request, _: &S) -> impl Future<Output = Result<Self, ApiError>> + Send {
        JsonObject::read(request).map(|object| object?.into_type().map(JsonBody))
    }
}

impl JsonObject {
    /// Reads a request's body as JSON.
    pub(super) fn read(request: Request) -> impl Future<Output = Result<JsonObject, ApiError>> + Send {
        let (head, body) = request.into_parts();
        JsonObject::read_up_to(&head.headers, body, MAX_LENGTH)
    }

    /// Like [`JsonObject::read`], with at most so many bytes.
    pub(super) fn read_up_to(
        headers: &HeaderMap,
        body: Body,
        most: usize,
    ) -> impl Future<Output = Result<JsonObject, ApiError>> + Send + use<> {
        read_up_to(headers, body, "application/json", most).map(|bytes| {
            let bytes = bytes?;
            if bytes.is_empty() {
                return Ok(JsonObject(serde_json::Map::new()));
            }
            match parse(&bytes)? {
                Value::Object(object) => Ok(JsonObject(object)),
                _ => Err(invalid("Request body must be a JSON object")),
            }
        })
    }

    /// Reads the object into a type. An error names the field.
    pub(super) fn into_type<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_path_to_error::deserialize(Value::Object(self.0)).map_err(|e| {
            let path = e.path().to_string();
            let problem = secret::without_value(&e.into_inner().to_string());
            if path == "." { invalid(problem) } else { invalid(format!("{path}: {problem}")) }
        })
    }

    /// Takes a text out of the object. `None`: the text is absent, null or empty.
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

/// Reads a request's body, which must be of this type. An absent body is empty.
///
/// The future holds only the body while it waits, because the head would keep its whole read buffer alive.
pub(super) fn read(
    request: Request,
    media_type: &'static str,
) -> impl Future<Output = Result<Bytes, ApiError>> + Send {
    let (head, body) = request.into_parts();
    read_up_to(&head.headers, body, media_type, MAX_LENGTH)
}

/// Returns an operator's request when its JSON body has arrived.
pub(super) async fn arrived(request: Request) -> Result<Request, ApiError> {
    let (head, body) = request.into_parts();
    let body = read_up_to(&head.headers, body, "application/json", MAX_ADMIN_LENGTH).await?;
    Ok(Request::from_parts(head, body.into()))
}

/// Like [`read`], with at most so many bytes.
pub(super) fn read_up_to(
    headers: &HeaderMap,
    body: Body,
    media_type: &'static str,
    most: usize,
) -> impl Future<Output = Result<Bytes, ApiError>> + Send + use<> {
    match wanted(headers, &body, media_type, most) {
        Ok(true) => Either::Left(Limited::new(body, most).collect().map(move |body| whole(body, most))),
        Ok(false) => Either::Right(ready(Ok(Bytes::new()))),
        Err(refused) => Either::Right(ready(Err(refused))),
    }
}

/// Whether the request has a body to wait for.
fn wanted(headers: &HeaderMap, body: &Body, media_type: &str, most: usize) -> Result<bool, ApiError> {
    if body.is_end_stream() {
        return Ok(false);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(media_type) {
        return Err(ApiError::new(Class::UnsupportedMediaType, format!("Content-Type must be {media_type}")));
    }
    let encodings = headers.get_all(CONTENT_ENCODING);
    if encodings.iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(ApiError::new(Class::UnsupportedEncoding, "Content-Encoding must be identity"));
    }
    // A length that is announced can be refused before the body arrives.
    if body.size_hint().lower() > most as u64 {
        return Err(too_large(most));
    }
    Ok(true)
}

fn too_large(most: usize) -> ApiError {
    let message = format!("Request body must not be longer than {most} bytes");
    ApiError::new(Class::PayloadTooLarge, message)
}

fn whole(body: Result<Collected<Bytes>, BoxError>, most: usize) -> Result<Bytes, ApiError> {
    let error = match body {
        Ok(body) => return Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => return Err(too_large(most)),
        Err(e) => e,
    };
    let error = error.downcast::<axum::Error>().map_or_else(|e| e, |e| e.into_inner());
    Err(match error.downcast_ref() {
        Some(BodyError::TooSlow) => ApiError::new(Class::BadRequest, "Request body took too long"),
        Some(BodyError::MadeRoom) => ApiError::too_many("requests"),
        Some(BodyError::Connection(_)) | None => invalid("Request body could not be read"),
    })
}

/// Parses JSON and refuses duplicate names at any depth, because readers disagree on which one counts (RFC 8259 §4).
///
/// # Errors
///
/// If the text is no JSON, or an object has a name twice.
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

/// Takes over values that contain no others.
macro_rules! as_it_is {
    ($($visit:ident($value:ty))+) => {$(
        fn $visit<E>(self, value: $value) -> Result<Value, E> {
            Ok(value.into())
        }
    )+};
}

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    as_it_is! {
        visit_bool(bool)
        visit_u64(u64)
        visit_i64(i64)
        visit_f64(f64)
        visit_str(&str)
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
