use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Response;
use pin_project_lite::pin_project;

use super::refusal::Refusal;

pin_project! {
    /// The response of a [`Verify`](super::Verify): the inner service's, or the refusal.
    pub struct ResponseFuture<F> {
        #[pin]
        pub(super) state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<F> {
        Passed { #[pin] future: F },
        Refused { refusal: Refusal },
    }
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<&'static str>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().state.project() {
            StateProjection::Passed { future } => future.poll(cx),
            StateProjection::Refused { refusal } => Poll::Ready(Ok(refusal.response())),
        }
    }
}
