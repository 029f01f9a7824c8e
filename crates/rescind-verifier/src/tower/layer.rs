use std::{fmt, net::IpAddr, sync::Arc};

use http::request::Parts;
use tower_layer::Layer;

use super::Verify;
use crate::{Denied, Scopes, VerifiedToken};

/// Lets requests through whose token stands. See the [rules](crate::tower).
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
    /// `decide` judges a token presented by a caller, most simply with
    /// [`Verifier::verify`](crate::Verifier::verify). `caller` finds the caller's address; for
    /// `None`, nothing is permitted.
    pub fn new(decide: D, caller: C) -> VerifyLayer<D, C> {
        VerifyLayer { decide, caller, required: Arc::default() }
    }

    /// Demands all of these scopes too, next to those demanded before.
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
