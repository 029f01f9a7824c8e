use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseFuture, future::State, refusal::Refusal};
use crate::{Denied, ResourceError, Resources, Scopes, VerifiedToken, bearer_token};

/// A layer that lets requests with a valid token through, by these [rules](crate::tower).
#[derive(Clone)]
pub struct VerifyLayer<D, C> {
    decide: D,
    caller: C,
    required: Scopes,
    /// What every challenge ends with.
    metadata: Arc<str>,
}

impl<D, C> VerifyLayer<D, C>
where
    D: Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied> + Clone,
    C: Fn(&Parts) -> Option<IpAddr> + Clone,
{
    /// A layer that requires no scope. `decide` checks a token presented from an address, for example with
    /// [`Verifier::verify`](crate::Verifier::verify). `caller` finds the caller's address: if that is
    /// `None`, the request is refused.
    pub fn new(decide: D, caller: C) -> VerifyLayer<D, C> {
        VerifyLayer { decide, caller, required: Scopes::default(), metadata: Arc::default() }
    }

    /// Requires all of these scopes, in addition to those required before.
    #[must_use]
    pub fn require(mut self, scopes: Scopes) -> VerifyLayer<D, C> {
        self.required = self.required.union(&scopes);
        self
    }

    /// Names the URL of the API's metadata (RFC 9728 §5.1) in every challenge, as `resource_metadata`. By it a client
    /// finds out where to get a token.
    ///
    /// # Errors
    ///
    /// Fails if this is no absolute URI without a fragment.
    pub fn resource_metadata(self, url: &str) -> Result<VerifyLayer<D, C>, ResourceError> {
        Resources::new([url])?;
        Ok(VerifyLayer { metadata: format!(r#", resource_metadata="{url}""#).into(), ..self })
    }
}

impl<S, D: Clone, C: Clone> Layer<S> for VerifyLayer<D, C> {
    type Service = Verify<S, D, C>;

    fn layer(&self, inner: S) -> Verify<S, D, C> {
        Verify { inner, layer: self.clone() }
    }
}

impl<D, C> fmt::Debug for VerifyLayer<D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyLayer").field("required", &self.required).finish_non_exhaustive()
    }
}

/// The service that [`VerifyLayer`] puts before another one.
#[derive(Clone)]
pub struct Verify<S, D, C> {
    inner: S,
    layer: VerifyLayer<D, C>,
}

impl<S, D, C, ReqBody, ResBody> Service<Request<ReqBody>> for Verify<S, D, C>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    D: Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied>,
    C: Fn(&Parts) -> Option<IpAddr>,
    ResBody: From<&'static str>,
{
    type Response = Response<ResBody>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let state = match self.judge(&parts) {
            Ok(token) => {
                parts.extensions.insert(token);
                State::Passed { future: self.inner.call(Request::from_parts(parts, body)) }
            }
            Err(refusal) => State::Refused { refusal },
        };
        ResponseFuture { state }
    }
}

impl<S, D, C> Verify<S, D, C>
where
    D: Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied>,
    C: Fn(&Parts) -> Option<IpAddr>,
{
    fn judge(&self, request: &Parts) -> Result<VerifiedToken, Refusal> {
        let VerifyLayer { decide, caller, required, metadata } = &self.layer;
        let refuse = |denied| Refusal::of(denied, required, metadata);
        let lines = request.headers.get_all(AUTHORIZATION);
        let token = bearer_token(lines.iter().map(|line| line.as_bytes()));
        let token = token.map_err(|error| Refusal::without_token(error, metadata))?;
        let caller = caller(request);
        let verified = decide(token, caller).map_err(refuse)?;
        // Also if `decide` accepts the token: it may have ignored that the address is not known.
        if caller.is_none() {
            return Err(refuse(Denied::AddressNotAllowed));
        }
        verified.require(required).map_err(refuse)?;
        Ok(verified)
    }
}

impl<S: fmt::Debug, D, C> fmt::Debug for Verify<S, D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("inner", &self.inner)
            .field("required", &self.layer.required)
            .finish_non_exhaustive()
    }
}
