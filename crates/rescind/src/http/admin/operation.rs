//! An operation of the admin API: its route, who may call it, its handler, and what the document says of it. All follow
//! from one value, so none can differ from the others.

use std::{convert::Infallible, error::Error as _, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequestParts, OriginalUri, Path, Query, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use futures_util::{FutureExt, future::BoxFuture, stream::empty};
use hyper::{
    Method,
    header::{CONTENT_TYPE, ETAG, HeaderValue, LINK},
    http::request::Parts,
};
use rescind_admin as admin;
use rescind_base::{model::Role, secret};
use rescind_node::app::App;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{creation, problem::Problem};
use crate::http::{
    body::{JsonObject, MAX_ADMIN_LENGTH},
    error::{ApiError, Class},
    not_found,
};

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Clients: the rules (`rescind-admin`) show a bound token only its own.
    Clients,
    /// More than clients: a bound token is refused.
    Everything,
}

/// An operation. New ones are rows in the lists of `clients.rs` and the files beside it.
pub(super) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// The least role.
    pub(super) role: Role,
    pub(super) reach: Reach,
    /// It answers with a client and its version, and a change may name the version that it is for.
    pub(super) versioned: bool,
    /// It accepts an idempotency key.
    pub(super) creates: bool,
    /// It answers in pages.
    pub(super) pages: bool,
    pub(super) parameter: Option<RefOr<Schema>>,
    pub(super) input: Option<Shape>,
    pub(super) output: Output,
    pub(super) handler: Handler,
}

/// What carries out an operation. It has one type, because the router's part of a handler is compiled for each type.
pub(super) type Handler = Arc<dyn Fn(Arc<App>, Given) -> Answered + Send + Sync>;
pub(super) type Answered = BoxFuture<'static, Result<Response, Problem>>;

/// What an operation answers with.
pub(super) enum Output {
    Json(Box<Shape>),
    /// A file of this media type.
    File(&'static str),
}

/// A type's schema, and the schemas that it refers to, by their names.
pub(super) struct Shape {
    pub(super) name: String,
    pub(super) schema: RefOr<Schema>,
    pub(super) parts: Vec<(String, RefOr<Schema>)>,
}

fn shape<T: ToSchema>() -> Shape {
    let mut parts = vec![];
    T::schemas(&mut parts);
    Shape { name: T::name().into_owned(), schema: T::schema(), parts }
}

/// The input of an operation that has none.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// What a request gives to an operation: its path with a parameter, its headers, and the query of a GET or DELETE, or else the
/// JSON body.
pub(super) struct Given {
    parts: Parts,
    body: Option<JsonObject>,
}

impl Given {
    async fn read(request: Request) -> Result<Given, Problem> {
        let (parts, body) = request.into_parts();
        if [Method::GET, Method::HEAD, Method::DELETE].contains(&parts.method) {
            return Ok(Given { parts, body: None });
        }
        let body = JsonObject::read_up_to(&parts.headers, body, MAX_ADMIN_LENGTH).await?;
        Ok(Given { parts, body: Some(body) })
    }

    /// Takes the input.
    fn input<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        if let Some(body) = self.body.take() {
            return Ok(body.into_type()?);
        }
        let query = Query::try_from_uri(&self.parts.uri).map_err(|rejection| in_words(&rejection))?;
        Ok(query.0)
    }

    /// The path's one parameter, or `()`. A parameter that cannot be read is answered with 404.
    async fn parameter<P: DeserializeOwned + Send>(&mut self) -> Result<P, Problem> {
        let read = Path::from_request_parts(&mut self.parts, &()).await;
        read.map(|Path(value)| value).map_err(|_| not_found().into())
    }

    /// The path as it was asked for.
    fn path(&self) -> &str {
        self.parts.extensions.get::<OriginalUri>().map_or(&self.parts.uri, |OriginalUri(uri)| uri).path()
    }
}

fn in_words(rejection: &QueryRejection) -> ApiError {
    let problem = rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
    let problem = match problem.split_once(": ") {
        Some((field, problem)) => format!("{field}: {}", secret::without_value(problem)),
        None => secret::without_value(&problem),
    };
    ApiError::new(Class::Validation, problem)
}

impl Operation {
    pub(super) fn new(
        method: Method,
        path: &'static str,
        (id, summary): (&'static str, &'static str),
        role: Role,
        reach: Reach,
    ) -> Operation {
        Operation {
            method,
            path,
            id,
            summary,
            role,
            reach,
            versioned: false,
            creates: false,
            pages: false,
            parameter: None,
            input: None,
            output: Output::File("application/json"),
            handler: Arc::new(|_, _| async { Err(not_found().into()) }.boxed()),
        }
    }

    /// The operation answers with a client, and its version.
    pub(super) fn versioned(self) -> Operation {
        Operation { versioned: true, ..self }
    }

    /// Carries out `action`, and answers with its outcome.
    pub(super) fn acts<P, B, A, F, Fut>(self, action: F) -> Operation
    where
        P: DeserializeOwned + PartialSchema + Send + 'static,
        B: DeserializeOwned + ToSchema + Send + 'static,
        A: Serialize + ToSchema,
        F: Fn(Arc<App>, P, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, admin::Error>> + Send,
    {
        let versioned = self.versioned;
        let handler = move |app, mut given: Given| {
            let action = action.clone();
            async move {
                let input = given.input()?;
                let outcome = text(&action(app, given.parameter().await?, input).await?)?;
                let version = versioned.then(|| etag(&outcome)).flatten();
                let mut response = json(outcome);
                response.headers_mut().extend(version.map(|version| (ETAG, version)));
                Ok(response)
            }
            .boxed()
        };
        self.with::<P, B>(Output::Json(Box::new(shape::<A>())), handler)
    }

    /// Like [`Operation::acts`], for a creation, which a caller may repeat under one idempotency key. `path_of` returns
    /// the path of what was created.
    pub(super) fn creates<P, B, A, F, Fut>(self, action: F, path_of: fn(&A) -> String) -> Operation
    where
        P: DeserializeOwned + PartialSchema + Send + 'static,
        B: DeserializeOwned + Serialize + ToSchema + Send + 'static,
        A: Serialize + ToSchema + Send + 'static,
        F: Fn(Arc<App>, P, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<A, admin::Error>> + Send + 'static,
    {
        let handler = move |app: Arc<App>, mut given: Given| {
            let action = action.clone();
            async move {
                let input = given.input()?;
                let path = given.parameter().await?;
                let once = creation::Once::read(&given.parts.headers, given.path(), &input)?;
                let create = action(Arc::clone(&app), path, input);
                let create = async move {
                    let created = create.await?;
                    Ok((path_of(&created), text(&created)))
                };
                creation::create(app, once, create.boxed()).await.map(json)
            }
            .boxed()
        };
        Operation { creates: true, ..self.with::<P, B>(Output::Json(Box::new(shape::<A>())), handler) }
    }

    /// Like [`Operation::acts`], for a list that is read in pages. With a page, `action` returns the `after` of the next one.
    pub(super) fn pages<B, A, F, Fut>(self, action: F) -> Operation
    where
        B: DeserializeOwned + ToSchema + Send + 'static,
        A: Serialize,
        Vec<A>: ToSchema,
        F: Fn(Arc<App>, B) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(Vec<A>, Option<u64>), admin::Error>> + Send,
    {
        let handler = move |app, mut given: Given| {
            let action = action.clone();
            async move {
                let (page, next) = action(app, given.input()?).await?;
                let link = next.and_then(|after| next_page(given.path(), given.parts.uri.query(), after));
                let mut response = json(text(&page)?);
                response.headers_mut().extend(link.map(|link| (LINK, link)));
                Ok(response)
            }
            .boxed()
        };
        Operation { pages: true, ..self.with::<(), B>(Output::Json(Box::new(shape::<Vec<A>>())), handler) }
    }

    /// Answers with a file of this media type, which `make` makes. So a HEAD, which gets none, changes nothing.
    pub(super) fn sends<F, Fut>(self, media_type: &'static str, make: F) -> Operation
    where
        F: Fn(Arc<App>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Body, Problem>> + Send,
    {
        let handler = move |app, mut given: Given| {
            let make = make.clone();
            async move {
                let Nothing {} = given.input()?;
                let body = match given.parts.method {
                    // Its length is not known.
                    Method::HEAD => Body::from_stream(empty::<Result<Bytes, Infallible>>()),
                    _ => make(app).await?,
                };
                Ok(([(CONTENT_TYPE, media_type)], body).into_response())
            }
            .boxed()
        };
        self.with::<(), Nothing>(Output::File(media_type), handler)
    }

    fn with<P: PartialSchema, B: ToSchema>(
        self,
        output: Output,
        handler: impl Fn(Arc<App>, Given) -> Answered + Send + Sync + 'static,
    ) -> Operation {
        let input = Some(shape::<B>()).filter(|shape| shape.name != Nothing::name());
        let parameter = self.path.contains('{').then(P::schema);
        Operation { parameter, input, output, handler: Arc::new(handler), ..self }
    }

    /// The operation's route.
    pub(super) fn route(self) -> MethodRouter<Arc<App>> {
        // A GET's handler serves HEAD too.
        let filter = MethodFilter::try_from(self.method).unwrap_or(MethodFilter::GET);
        let handler = self.handler;
        on(filter, async move |State(app): State<Arc<App>>, request: Request| {
            let answered = handler(Arc::clone(&app), Given::read(request).await?).await;
            answered.map_err(|Problem(error)| Problem(error.for_operators(&app)))
        })
    }
}

/// The JSON text of an answer.
fn text(outcome: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(outcome).map_err(ApiError::internal)
}

fn json(text: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

/// The version of the client that an answer shows.
fn etag(text: &[u8]) -> Option<HeaderValue> {
    let shown = serde_json::from_slice(text).ok()?;
    HeaderValue::try_from(format!("\"{}\"", admin::version(shown))).ok()
}

/// The link to the next page (RFC 8288).
fn next_page(path: &str, query: Option<&str>, after: u64) -> Option<HeaderValue> {
    let mut next = form_urlencoded::Serializer::new(String::new());
    let given = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    next.extend_pairs(given.filter(|(name, _)| name != "after"));
    next.append_pair("after", &after.to_string());
    HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", next.finish())).ok()
}
