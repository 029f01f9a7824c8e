use std::{fmt, net::IpAddr, sync::Arc};

use http::request::Parts;
use tower_layer::Layer;

use super::Verify;
use crate::{Denied, Scopes, VerifiedToken};

/// A layer that lets requests with a valid token through, by these [rules](crate::tower).
#[derive(Clone)]
pub struct VerifyLayer<D, C> {
    decide: D,
    caller: C,
    required: Arc<Scopes>,
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
        VerifyLayer { decide, caller, required: Arc::default() }
    }

    /// Requires all of these scopes, in addition to those required before.
    #[must_use]
    pub fn require(mut self, scopes: Scopes) -> VerifyLayer<D, C> {
        self.required = Arc::new(self.required.union(&scopes));
        self
    }
}

impl<S, D: Clone, C: Clone> Layer<S> for VerifyLayer<D, C> {
    type Service = Verify<S, D, C>;

    fn layer(&self, inner: S) -> Verify<S, D, C> {
        Verify::new(inner, self.decide.clone(), self.caller.clone(), Arc::clone(&self.required))
    }
}

impl<D, C> fmt::Debug for VerifyLayer<D, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyLayer").field("required", &self.required).finish_non_exhaustive()
    }
}
