//! A middleware for [tower](https://docs.rs/tower) that lets a request through if its token stands.
//!
//! The rules, in the order in which they are checked:
//!
//! 1. The token comes from the `Authorization` header alone, as [`bearer_token`](crate::bearer_token)
//!    reads it. The query and the body are never looked at.
//! 2. `decide` is asked about the token, with the address that `caller` finds. It is the only
//!    judge: there is a [`VerifiedToken`](crate::VerifiedToken) only if a
//!    [`Verifier`](crate::Verifier) made it.
//! 3. A caller whose address could not be told (`None`) is refused, whatever `decide` says.
//! 4. The token must have every scope of [`require`](VerifyLayer::require).
//! 5. The request goes on with the `VerifiedToken` among its extensions, in place of any that was
//!    there; nothing else about it is changed.
//!
//! A refused request never reaches the inner service, and its body is not read. It is answered with
//! the service's own envelope, `{"error":{"name":…,"code":…,"message":…}}`, never to be stored:
//!
//! | why | status | message | `WWW-Authenticate: Bearer realm="rescind"…` |
//! |---|---|---|---|
//! | no token | 401 | `Authorization header required` | |
//! | expired | 401 | `Token expired` | `, error="invalid_token"` |
//! | any other fault of the token | 401 | `Invalid token` | `, error="invalid_token"` |
//! | the caller's address | 403 | `IP address not authorized` | not sent |
//! | a scope is missing | 403 | `Insufficient scope` | `, error="insufficient_scope", scope="…"` |
//! | cannot be decided now | 503, `Retry-After: 1` | `The service cannot answer safely now. …` | not sent |
//!
//! # Where it stands
//!
//! - **Allowlists are worth what `caller` is worth.** Take the peer's address from the listener.
//!   Believe a forwarding header only if the peer is a proxy of yours, and then its last entry that
//!   is not one of your proxies: the entries before that were written by the client. Where the
//!   address is not certain, return `None`.
//! - `decide` is called in place and must not block. A token that is
//!   [not known](crate::Denied::NotKnown) is answered `Invalid token`; whoever can learn of newer
//!   ones does so before.
//! - The decision is made once, as the request comes in: a stream or a WebSocket that lives on is
//!   not cut off by a later logout.
//! - CORS belongs outside of it, for preflights carry no token. So does whatever answers requests
//!   without the inner service, a cache above all: nothing is checked for those.
//! - The `Authorization` header stays in the request. Do not log it, nor pass it on to another party.
//!
//! # Example
//!
//! ```
//! use std::{convert::Infallible, net::{IpAddr, SocketAddr}, sync::Arc};
//!
//! use http::{Request, Response, StatusCode, request::Parts};
//! use rescind_verifier::{State, UnixSeconds, VerifiedToken, Verifier, tower::VerifyLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # fn now() -> UnixSeconds { 0 }
//! # struct Nothing;
//! # impl State for Nothing {
//! #     fn client(&self, _: u64) -> Option<Arc<rescind_verifier::ClientPolicy>> { None }
//! #     fn session(&self, _: u64) -> Option<rescind_verifier::SessionState> { None }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let profile = rescind_verifier::Profile::new("https://id.example", "https://api.example").unwrap();
//! # let (verifier, memory) = (Arc::new(Verifier::new(Default::default(), profile)), Arc::new(Nothing));
//! let layer = VerifyLayer::new(
//!     move |token: &str, caller| verifier.verify(token, caller, now(), &*memory),
//!     // The listener put the peer's address there, and no proxy stands in between.
//!     |request: &Parts| request.extensions.get::<SocketAddr>().map(SocketAddr::ip),
//! )
//! .require("orders:read".parse()?);
//!
//! let orders = ServiceBuilder::new().layer(layer).service(service_fn(
//!     async |request: Request<String>| -> Result<Response<String>, Infallible> {
//!         let token = request.extensions().get::<VerifiedToken>();
//!         Ok(Response::new(token.map(|token| token.client().name.clone()).unwrap_or_default()))
//!     },
//! ));
//!
//! let response = orders.oneshot(Request::new(String::new())).await?;
//! assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
//! # Ok(())
//! # }
//! ```

mod future;
mod layer;
mod refusal;
mod service;

pub use future::ResponseFuture;
pub use layer::VerifyLayer;
pub use service::Verify;
