//! What goes around futures.

use super::{
    LONG_POLL, enabled,
    entry::Entry,
    long_polls::{self, Blame, InProgress},
    registry::Ticket,
};
use axum::extract::MatchedPath;
use pin_project_lite::pin_project;
use std::{
    borrow::Cow,
    panic::Location,
    pin::Pin,
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Tracks a future that becomes a task by other means than [`spawn`](super::spawn): in a `JoinSet`, say.
#[track_caller]
pub fn track<F>(name: &'static str, future: F) -> Tracked<F> {
    let location = Location::caller();
    let ticket = enabled().then(|| Ticket::new(Entry::new(name, location)));
    Tracked { future, ticket }
}

pin_project! {
    /// A task's future, tracked. Made by [`track`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Tracked<F> {
        #[pin]
        future: F,
        // After the future: the task lives until all that it holds is dropped.
        ticket: Option<Ticket>,
    }
}

impl<F> Tracked<F> {
    /// Says how often the task is polled at least, as [`spawn_every`](super::spawn_every) does.
    pub fn every(self, every: Duration) -> Self {
        if let Some(ticket) = &self.ticket {
            ticket.entry.set_every(every);
        }
        self
    }
}

impl<F: Future> Future for Tracked<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _polling = this.ticket.as_ref().map(|ticket| Polling::new(&ticket.entry));
        this.future.poll(task)
    }
}

/// A poll of a tracked task; a panic ends it as well.
struct Polling<'a> {
    entry: &'a Entry,
    blame: Blame,
    began: u64,
}

impl<'a> Polling<'a> {
    fn new(entry: &'a Entry) -> Self {
        Self {
            entry,
            blame: Blame::begin(),
            began: entry.begin(),
        }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let took = self.entry.end(self.began);
        if self.blame.is_long(took, LONG_POLL.load(Ordering::Relaxed)) {
            let (name, location) = (self.entry.name, self.entry.location);
            long_polls::report(name, Some(location), &About::default(), took);
        }
    }
}

/// Only notes when a poll of the future takes too long: for the work on a request, whose task may belong to a library. The
/// line in the log has the ids of the request in hand, so what attaches these goes around this.
pub fn polled<F>(name: &'static str, future: F) -> Polled<F> {
    let request = About::default();
    Polled {
        future,
        name,
        request,
    }
}

/// What a request asks for, for the line in the log.
#[derive(Clone, Debug, Default)]
pub(super) struct About {
    pub(super) method: Option<Cow<'static, str>>,
    pub(super) path: Option<MatchedPath>,
}

impl<F> Polled<F> {
    /// Says which request it is: an HTTP method and a route, or an RPC's method.
    pub(crate) fn of(mut self, method: impl Into<Cow<'static, str>>, path: Option<&MatchedPath>) -> Self {
        if enabled() {
            self.request = About {
                method: Some(method.into()),
                path: path.cloned(),
            };
        }
        self
    }
}

pin_project! {
    /// A future whose long polls are noted. Made by [`polled`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Polled<F> {
        #[pin]
        future: F,
        name: &'static str,
        request: About,
    }
}

impl<F: Future> Future for Polled<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _polling = enabled().then(|| PollingRequest::new(this.name, this.request));
        this.future.poll(task)
    }
}

/// A poll of the work on a request; a panic ends it as well.
struct PollingRequest<'a> {
    name: &'static str,
    request: &'a About,
    blame: Blame,
    began: Instant,
    _in_progress: InProgress,
}

impl<'a> PollingRequest<'a> {
    fn new(name: &'static str, request: &'a About) -> Self {
        let began = Instant::now();
        Self {
            name,
            request,
            blame: Blame::begin(),
            began,
            _in_progress: InProgress::begin(name, began),
        }
    }
}

impl Drop for PollingRequest<'_> {
    fn drop(&mut self) {
        let took = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if self.blame.is_long(took, LONG_POLL.load(Ordering::Relaxed)) {
            long_polls::report(self.name, None, self.request, took);
        }
    }
}
