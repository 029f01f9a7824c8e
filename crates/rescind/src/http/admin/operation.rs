//! An operation of the admin API: its route, who may call it, its handler, and what the document says of it. All follow
//! from one value, so none can differ from the others.

use std::{error::Error as _, sync::Arc};

use axum::{
    Json,
    extract::{
        FromRequest, OriginalUri, Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use hyper::{
    HeaderMap, Method,
    header::{ETAG, HeaderValue, LINK},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::{creation, problem::Problem};
use crate::{
    admin,
    app::App,
    http::{
        body::{JsonBody, MAX_ADMIN_LENGTH},
        error::{ApiError, Class},
    },
    model::Role,
    secret,
};

/// What an operation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Clients: the rules (`admin/`) show a bound token only its own.
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
    pub(super) handler: MethodRouter<Arc<App>>,
}

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
pub(super) struct Nothing {}

/// A path's one parameter, or `()`.
type GivenPath<P> = Result<Path<P>, PathRejection>;

/// A parameter that cannot be read is answered with 404.
fn parameter<P>(path: GivenPath<P>) -> Result<P, Problem> {
    path.map(|Path(value)| value).map_err(|_| ApiError::new(Class::NotFound, "No such path").into())
}

/// A request's input: the query of a GET or DELETE, or else the JSON body.
pub(super) struct Input<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if [Method::GET, Method::HEAD, Method::DELETE].contains(request.method()) {
            let query = Query::try_from_uri(request.uri()).map_err(|rejection| in_words(&rejection))?;
            return Ok(Input(query.0));
        }
        let JsonBody::<_, MAX_ADMIN_LENGTH>(body) = JsonBody::from_request(request, state).await?;
        Ok(Input(body))
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
            handler: MethodRouter::new(),
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
        let handler = async move |State(app): State<Arc<App>>, path: GivenPath<P>, Input(input): Input<B>| {
            let outcome = action(app, parameter(path)?, input).await?;
            let version = versioned.then(|| etag(&outcome)).flatten();
            let mut response = Json(outcome).into_response();
            response.headers_mut().extend(version.map(|version| (ETAG, version)));
            Ok::<_, Problem>(response)
        };
        self.with::<P, B, _>(Output::Json(Box::new(shape::<A>())), handler)
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
        let handler = async move |State(app): State<Arc<App>>,
                                  path: GivenPath<P>,
                                  OriginalUri(uri): OriginalUri,
                                  headers: HeaderMap,
                                  Input(input): Input<B>| {
            let path = parameter(path)?;
            let once = creation::Once::read(&headers, uri.path(), &input)?;
            let create = action(Arc::clone(&app), path, input);
            Ok::<_, Problem>(Json(creation::create(app, once, create, path_of).await?))
        };
        Operation { creates: true, ..self.with::<P, B, _>(Output::Json(Box::new(shape::<A>())), handler) }
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
        let handler = async move |State(app): State<Arc<App>>,
                                  OriginalUri(uri): OriginalUri,
                                  Input(input): Input<B>| {
            let (page, next) = action(app, input).await?;
            let link = next.and_then(|after| next_page(uri.path(), uri.query(), after));
            let mut response = Json(page).into_response();
            response.headers_mut().extend(link.map(|link| (LINK, link)));
            Ok::<_, Problem>(response)
        };
        Operation { pages: true, ..self.with::<(), B, _>(Output::Json(Box::new(shape::<Vec<A>>())), handler) }
    }

    /// Answers with a file of this media type.
    pub(super) fn sends<F, Fut>(self, media_type: &'static str, send: F) -> Operation
    where
        F: Fn(Arc<App>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response, Problem>> + Send + 'static,
    {
        let handler = async move |State(app): State<Arc<App>>| send(app).await;
        self.with::<(), Nothing, _>(Output::File(media_type), handler)
    }

    fn with<P: DeserializeOwned + PartialSchema + Send + 'static, B: ToSchema, T: 'static>(
        self,
        output: Output,
        handler: impl Handler<T, Arc<App>>,
    ) -> Operation {
        let input = Some(shape::<B>()).filter(|shape| shape.name != Nothing::name());
        // A GET's handler serves HEAD too.
        let filter = MethodFilter::try_from(self.method.clone()).unwrap_or(MethodFilter::GET);
        let parameter = self.path.contains('{').then(P::schema);
        Operation { parameter, input, output, handler: on(filter, handler), ..self }
    }
}

fn etag(outcome: &impl Serialize) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{}\"", admin::version(outcome))).ok()
}

/// The link to the next page (RFC 8288).
fn next_page(path: &str, query: Option<&str>, after: u64) -> Option<HeaderValue> {
    let mut next = form_urlencoded::Serializer::new(String::new());
    let given = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    next.extend_pairs(given.filter(|(name, _)| name != "after"));
    next.append_pair("after", &after.to_string());
    HeaderValue::try_from(format!("<{path}?{}>; rel=\"next\"", next.finish())).ok()
}
