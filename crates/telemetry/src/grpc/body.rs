//! A response's body, followed to the trailers.

use super::call::{Call, status};
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{self, Poll},
};
use tonic::Code;

/// A body that is polled in its call's context and notes the status that its trailers bring.
#[derive(Debug)]
pub struct Metered<B> {
    inner: B,
    call: Call,
}

impl<B> Metered<B> {
    /// The body of a call whose response has these headers.
    pub(super) fn new(inner: B, mut call: Call, response: &http::response::Parts) -> Self {
        if let Some(code) = status(&response.headers) {
            call.finish(code);
        } else if !response.status.is_success() {
            call.finish(Code::Unknown);
        }
        Self { inner, call }
    }
}

impl<B: Body + Unpin> Body for Metered<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.get_mut();
        let frame = {
            let _call = this.call.open().map(|open| open.context().clone().attach());
            Pin::new(&mut this.inner).poll_frame(task)
        };
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(code) = frame.trailers_ref().map(|t| status(t).unwrap_or(Code::Unknown)) {
                    this.call.finish(code);
                }
            }
            // An end without trailers: the connection broke, or the peer doesn't speak gRPC.
            Poll::Ready(Some(Err(_)) | None) => this.call.finish(Code::Unknown),
            Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
