//! Bodies that are made while they are sent.

use crate::{context::Context, recent::Pending, span::Open};
use axum::body::{Body, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{self, Poll},
};

/// Whether the body is made while it is sent, so that its making belongs to the request, too.
pub(super) fn is_stream(body: &Body) -> bool {
    body.size_hint().exact().is_none()
}

/// A body that is polled in its request's context, and keeps the request's span open until it has been sent.
pub(super) struct InContext {
    pub(super) inner: Body,
    pub(super) cx: Context,
    pub(super) open: Option<Open>,
    /// The request's record, which is kept once the body has been sent: by then it is known whether something inside of
    /// the request is recorded in its place.
    pub(super) record: Option<Pending>,
}

impl http_body::Body for InContext {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let _request = self.cx.clone().attach();
        let frame = Pin::new(&mut self.inner).poll_frame(task);
        if let Poll::Ready(None | Some(Err(_))) = frame {
            self.open = None;
            self.record = None;
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
