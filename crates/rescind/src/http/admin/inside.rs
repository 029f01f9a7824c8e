//! The admin API for the dashboard, in this process. A page or a form calls it as the command line does, and no rule of it
//! is passed over: roles, the audit log, propagation and receipts are those of every caller.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::Response,
};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, LINK, RETRY_AFTER},
};
use rescind_base::model::{Administrator, Role};
use rescind_node::{app::App, cluster::Receipt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tower::ServiceExt;
use utoipa::openapi::{RefOr, Schema};

use super::{
    Door, PREFIX, creation,
    operation::{Operation, Shape},
    operation_routes, operations,
};
use crate::{
    auth::Caller,
    http::error::{ApiError, Failure},
};

/// The operations, for whoever has signed in.
pub(in crate::http) struct Inside {
    router: Router,
    known: Vec<Known>,
}

/// What a form must know of an operation.
pub(in crate::http) struct Known {
    pub(in crate::http) id: &'static str,
    pub(in crate::http) method: Method,
    path: &'static str,
    pub(in crate::http) role: Role,
    pub(in crate::http) creates: bool,
    /// The members of the input, with their schemas.
    pub(in crate::http) members: Vec<(String, Value)>,
}

impl Inside {
    pub(in crate::http) fn new(app: &Arc<App>, door: Door) -> Inside {
        let routes = Router::new().nest(PREFIX, operation_routes(app, door));
        Inside {
            router: routes.with_state(Arc::clone(app)),
            known: operations().into_iter().map(known).collect(),
        }
    }

    /// Returns an operation by its id.
    pub(in crate::http) fn operation(&self, id: &str) -> Option<&Known> {
        self.known.iter().find(|known| known.id == id)
    }
}

fn known(operation: Operation) -> Known {
    let Operation { id, method, path, role, creates, input, .. } = operation;
    let members = |Shape { schema, parts, .. }: Shape| {
        let mut schema = value(&schema);
        let members = schema["properties"].as_object_mut().map(std::mem::take).unwrap_or_default();
        let part = |schema: &Value| {
            let name = schema["$ref"].as_str()?.rsplit('/').next()?;
            parts.iter().find(|(part, _)| part == name).map(|(_, schema)| value(schema))
        };
        let whole = |(name, mut schema): (String, Value)| {
            if let Some(items) = part(&schema["items"]) {
                schema["items"] = items;
            }
            (name, part(&schema).unwrap_or(schema))
        };
        members.into_iter().map(whole).collect()
    };
    Known { id, method, path, role, creates, members: input.map(members).unwrap_or_default() }
}

fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// The admin API, for one request of one administrator.
#[derive(Clone)]
pub(in crate::http) struct Api {
    inside: Arc<Inside>,
    pub(in crate::http) administrator: Administrator,
    caller: Caller,
}

/// What an operation has answered.
#[derive(Debug)]
pub(in crate::http) struct Answer {
    pub(in crate::http) value: Value,
    /// The client's version.
    pub(in crate::http) version: Option<String>,
    pub(in crate::http) receipt: Option<Receipt>,
    /// The `after` of the next page.
    pub(in crate::http) next: Option<String>,
}

/// An operation's refusal, or its failure, which is logged with the answer.
#[derive(Debug)]
pub(in crate::http) struct Refused {
    pub(in crate::http) status: StatusCode,
    pub(in crate::http) detail: String,
    pub(in crate::http) failure: Option<Failure>,
    pub(in crate::http) retry_after: Option<HeaderValue>,
}

impl<E: Into<ApiError>> From<E> for Refused {
    fn from(error: E) -> Refused {
        let error = error.into();
        let detail = error.message().to_owned();
        Refused::of(error.into_problem(), detail)
    }
}

impl Refused {
    fn of(mut response: Response, detail: String) -> Refused {
        let failure = response.extensions_mut().remove();
        let retry_after = response.headers_mut().remove(RETRY_AFTER);
        Refused { status: response.status(), detail, failure, retry_after }
    }
}

/// What a change says beside its input.
#[derive(Debug, Default)]
pub(in crate::http) struct Beside {
    /// The version that the client must have.
    pub(in crate::http) version: Option<String>,
    /// The idempotency key of a creation.
    pub(in crate::http) once: Option<String>,
}

impl Api {
    pub(in crate::http) fn new(inside: Arc<Inside>, administrator: Administrator, caller: Caller) -> Api {
        Api { inside, administrator, caller }
    }

    /// Reads a path, which may have a query.
    pub(in crate::http) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Refused> {
        self.read(path).await.map(|(value, _)| value)
    }

    /// Like [`Api::get`], for a list in pages. Also returns the `after` of the next page.
    pub(in crate::http) async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(T, Answer), Refused> {
        let mut answer = self.send(Method::GET, path, HeaderMap::new(), Body::empty()).await?;
        let value = serde_json::from_value(answer.value.take()).map_err(ApiError::internal)?;
        Ok((value, answer))
    }

    /// Calls an operation that changes something, with the parameter of its path.
    pub(in crate::http) async fn call(
        &self,
        operation: &Known,
        parameter: &str,
        input: &impl Serialize,
        beside: Beside,
    ) -> Result<Answer, Refused> {
        let mut headers = HeaderMap::new();
        let mut say = |name: HeaderName, value: Option<String>| {
            headers
                .extend(value.and_then(|value| HeaderValue::try_from(value).ok()).map(|value| (name, value)));
        };
        say(IF_MATCH, beside.version.map(|version| format!("\"{version}\"")));
        say(HeaderName::from_static(creation::HEADER), beside.once);
        let mut parts = operation.path.split(['{', '}']);
        let (before, _, after) = (parts.next(), parts.next(), parts.next());
        let parameter = after.map(|_| segment(parameter)).unwrap_or_default();
        let path = [before.unwrap_or_default(), &parameter, after.unwrap_or_default()].concat();
        let body = match operation.method {
            Method::DELETE => Body::empty(),
            _ => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Body::from(serde_json::to_vec(input).map_err(ApiError::internal)?)
            }
        };
        self.send(operation.method.clone(), &path, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Answer, Refused> {
        let mut request = Request::builder().method(method).uri(format!("{PREFIX}{path}")).body(body);
        let request = request.as_mut().map_err(|_| crate::http::not_found())?;
        *request.headers_mut() = headers;
        request.extensions_mut().insert(self.caller.clone());
        request.extensions_mut().insert(self.administrator.clone());
        let request = std::mem::take(request);
        let Ok(response) = self.inside.router.clone().oneshot(request).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.map_err(ApiError::internal)?;
        let value: Value = serde_json::from_slice(&body).map_err(ApiError::internal)?;
        if !parts.status.is_success() {
            let detail = value["detail"].as_str().unwrap_or_default().to_owned();
            return Err(Refused::of(Response::from_parts(parts, Body::empty()), detail));
        }
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let version = text(ETAG).map(|etag| etag.trim_matches('"').to_owned());
        let next = text(LINK).and_then(|link| link.split("after=").nth(1)?.split(['&', '>']).next());
        let (next, receipt) = (next.map(str::to_owned), parts.extensions.get().copied());
        Ok(Answer { value, version, receipt, next })
    }
}

/// A parameter as one segment of a path (RFC 3986 §3.3).
pub(in crate::http) fn segment(parameter: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
    let encoded = parameter.bytes().map(|b| match b {
        b if plain(b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    });
    encoded.collect()
}
