use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION, request::Parts};
use tower_service::Service;

use super::{ResponseFuture, refusal::Refusal};
use crate::{Denied, Scopes, VerifiedToken, bearer_token};

/// The service that [`VerifyLayer`](super::VerifyLayer) puts before another one.
#[derive(Clone)]
pub struct Verify<S, D, C> {
    inner: S,
    decide: D,
    caller: C,
    required: Arc<Scopes>,
}

impl<S, D, C> Verify<S, D, C> {
    pub(super) fn new(inner: S, decide: D, caller: C, required: Arc<Scopes>) -> Verify<S, D, C> {
        Verify { inner, decide, caller, required }
    }
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
        match self.judge(&parts) {
            Ok(token) => {
                parts.extensions.insert(token);
                ResponseFuture::passed(self.inner.call(Request::from_parts(parts, body)))
            }
            Err(refusal) => ResponseFuture::refused(refusal),
        }
    }
}

impl<S, D, C> Verify<S, D, C>
where
    D: Fn(&str, Option<IpAddr>) -> Result<VerifiedToken, Denied>,
    C: Fn(&Parts) -> Option<IpAddr>,
{
    fn judge(&self, request: &Parts) -> Result<VerifiedToken, Refusal> {
        let refuse = |denied| Refusal::of(denied, &self.required);
        let lines = request.headers.get_all(AUTHORIZATION);
        let token = bearer_token(lines.iter().map(|line| line.as_bytes()))?;
        let caller = (self.caller)(request);
        let verified = (self.decide)(token, caller).map_err(refuse)?;
        // Also if `decide` accepts the token: it may have ignored that the address is not known.
        if caller.is_none() {
            return Err(refuse(Denied::AddressNotAllowed));
        }
        verified.require(&self.required).map_err(refuse)?;
        Ok(verified)
    }
}

impl<S: fmt::Debug, D, C> fmt::Debug for Verify<S, D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("inner", &self.inner)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}
