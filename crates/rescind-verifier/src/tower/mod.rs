//! A middleware for [tower](https://docs.rs/tower) that lets a request through if its token is valid.
//!
//! The rules, in the order in which they are checked:
//!
//! 1. The token comes from the `Authorization` header alone, as [`bearer_token`](crate::bearer_token)
//!    reads it. The query and the body are never looked at.
//! 2. `decide` checks the token, with the address that `caller` finds. It cannot accept a token by itself:
//!    only a [`Verifier`](crate::Verifier) makes a [`VerifiedToken`](crate::VerifiedToken).
//! 3. A caller whose address is not known (`None`) is refused, whatever `decide` returns.
//! 4. The token must have every scope of [`require`](VerifyLayer::require).
//! 5. The request goes on with the `VerifiedToken` among its extensions, in place of any that was
//!    there. Nothing else of the request is changed.
//!
//! A refused request never reaches the inner service, and its body is not read. It is answered with
//! the service's own envelope, `{"error":{"name":…,"code":…,"message":…}}`, and `Cache-Control: no-store`:
//!
//! | why | status | message | `WWW-Authenticate: Bearer realm="rescind"…` |
//! |---|---|---|---|
//! | no token | 401 | `Authorization header required` | |
//! | expired | 401 | `Token expired` | `, error="invalid_token"` |
//! | revoked | 401 | `Invalid token` | `, error="invalid_token", error_description="revoked: get a new token"` |
//! | any other fault of the token | 401 | `Invalid token` | `, error="invalid_token"` |
//! | the caller's address | 403 | `IP address not authorized` | not sent |
//! | a scope is missing | 403 | `Insufficient scope` | `, error="insufficient_scope", scope="…"` |
//! | cannot be decided now | 503, `Retry-After: 1` | `The service cannot answer safely now. …` | not sent |
//!
//! With [`resource_metadata`](VerifyLayer::resource_metadata), every challenge also names the URL of the API's metadata
//! (RFC 9728 §5.1).
//!
//! # Where the layer belongs
//!
//! - **Allowlists depend on `caller`.** Take the peer's address from the listener. Read a forwarding header
//!   only if the peer is one of your proxies, and then take the header's last entry that is not one of your
//!   proxies: the client may have written the entries before. Return `None` if the address is not certain.
//! - `decide` is called on the task of the request and must not block. A token that is
//!   [not known](crate::Denied::NotKnown) is answered `Invalid token`.
//! - The decision is made once, when the request arrives. A later logout does not end a stream or a
//!   WebSocket that was begun before.
//! - Put CORS outside of the layer, because preflight requests carry no token. Put caches inside of it: an
//!   outer layer that answers by itself answers requests whose token was not checked.
//! - The `Authorization` header stays in the request. Do not log it, and do not pass it on to another party.
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

pub use future::ResponseFuture;
pub use layer::{Verify, VerifyLayer};
