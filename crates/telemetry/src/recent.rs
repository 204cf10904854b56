//! The last requests that were slow, failed or were debugged, with the timings of what was done for them.
//!
//! They are kept whether they were sampled or not, so that "why was that slow" has an answer without a tracing backend,
//! too. Each request notes its own children, a bounded number of them; once it is over, it either qualifies for a ring
//! or is forgotten. There is one ring a reason: a storm of failures cannot push out what was slow. Writers take no lock
//! that another request could hold.

mod record;
mod ring;
#[cfg(test)]
pub(crate) mod tests;
mod work;

use crate::{
    context::{Context, Request},
    metrics::own::RECENT_REQUESTS,
    settings::RecentRequests,
};
use arc_swap::ArcSwapOption;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use ring::Rings;
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

pub use record::{Entry, Reason, Record};
pub(crate) use work::Work;
pub use work::{Child, Kind};

/// From which duration on a request is slow, in microseconds; [`OFF`] while nothing is kept. Read for each request, so
/// that one which does not qualify touches nothing else.
static SLOW: AtomicU64 = AtomicU64::new(OFF);
const OFF: u64 = u64::MAX;

/// What is kept by this process, as telemetry is of the process as a whole.
static RINGS: ArcSwapOption<Rings> = ArcSwapOption::const_empty();

/// Begins to keep requests as the settings say, or ceases. What was kept before is forgotten.
pub fn configure(settings: &RecentRequests) {
    if settings.enabled {
        RINGS.store(Some(Arc::new(Rings::new(settings.capacity))));
        // Less than `OFF`, which would mean that nothing is kept.
        SLOW.store(
            settings.slow_ms.saturating_mul(1000).min(OFF - 1),
            Ordering::Release,
        );
    } else {
        SLOW.store(OFF, Ordering::Release);
        RINGS.store(None);
    }
}

/// Whether anything is kept.
#[must_use]
pub fn is_enabled() -> bool {
    SLOW.load(Ordering::Relaxed) != OFF
}

/// Notes a piece of work done for the request in hand; outside of a request, nothing. `name` says what was done in few
/// words and holds no secret.
pub fn child(kind: Kind, name: impl Into<Cow<'static, str>>, started: Instant, took: Duration, failed: bool) {
    if !is_enabled() {
        return;
    }
    Request::with_current(|request| {
        if !request.waits() {
            let offset = started.saturating_duration_since(request.started());
            let child = Child::new(kind, name.into(), offset, took, failed);
            request.work().lock().add(child);
        }
    });
}

/// Says that the request in hand lasts as long as its caller likes (a watch, a lease, a wait for something to end): it
/// is never slow, and its children are not noted.
pub fn waits() {
    Request::with_current(Request::set_waits);
}

/// Says that what is done in `cx` is recorded by itself (an MCP operation, an execution), instead of the HTTP request or
/// the RPC that it came with.
pub fn claim(cx: &Context) {
    if let Some(request) = cx.get::<Request>() {
        request.claim();
    }
}

/// What a request was, for its record.
#[derive(Debug)]
pub struct Description {
    /// The way it came in.
    pub kind: Entry,
    /// What it was: few values, never one of a client's making.
    pub name: String,
    /// How it ended: a status code, a code of errors, never a message.
    pub status: Cow<'static, str>,
    /// Which key it was made with, where the request itself does not know.
    pub key_id: Option<String>,
}

/// Ends the request of `cx`: it took from its arrival in this process until now. It is described only when it is kept.
pub fn finished(cx: &Context, failed: bool, describe: impl FnOnce() -> Description) {
    if !is_enabled() {
        return;
    }
    if let Some(request) = cx.get::<Request>() {
        let span = cx.span();
        let took = request.started().elapsed();
        drop(pending(request, span.span_context(), took, failed, describe));
    }
}

/// A request that is over and will be kept when this is dropped, unless something inside of it has claimed the record by then.
#[derive(Debug)]
pub(crate) struct Pending {
    request: Request,
    span: SpanContext,
    reasons: Vec<Reason>,
    took: Duration,
    description: Description,
}

/// What becomes the record of a request, if it qualifies.
pub(crate) fn pending(
    request: &Request,
    span: &SpanContext,
    took: Duration,
    failed: bool,
    describe: impl FnOnce() -> Description,
) -> Option<Pending> {
    let limit = SLOW.load(Ordering::Relaxed);
    if limit == OFF {
        return None;
    }
    let slow = took.as_micros() >= u128::from(limit) && !request.waits();
    let debugged = request.is_debug();
    if !(slow || failed || debugged) {
        return None;
    }
    let all = [
        (Reason::Slow, slow),
        (Reason::Failed, failed),
        (Reason::Debug, debugged),
    ];
    Some(Pending {
        request: request.clone(),
        span: span.clone(),
        reasons: all
            .into_iter()
            .filter(|(_, is)| *is)
            .map(|(reason, _)| reason)
            .collect(),
        took,
        description: describe(),
    })
}

impl Drop for Pending {
    fn drop(&mut self) {
        let outer = matches!(self.description.kind, Entry::Http | Entry::Grpc);
        if outer && self.request.is_claimed() {
            return;
        }
        let Some(rings) = RINGS.load_full() else { return };
        for reason in &self.reasons {
            RECENT_REQUESTS.inc([reason.as_str()]);
        }
        rings.keep(self.record());
    }
}

impl Pending {
    fn record(&mut self) -> Record {
        let work = self.request.work().lock().clone();
        let ago = self.request.started().elapsed();
        let key_id = self.description.key_id.take();
        Record {
            number: 0,
            request_id: self.request.id().clone(),
            trace_id: self.span.trace_id(),
            sampled: self.span.is_sampled(),
            kind: self.description.kind,
            name: work::bounded(std::mem::take(&mut self.description.name).into()),
            status: work::bounded(std::mem::take(&mut self.description.status)),
            started: SystemTime::now()
                .checked_sub(ago)
                .unwrap_or(SystemTime::UNIX_EPOCH),
            duration: self.took,
            tenant: self.request.tenant().cloned(),
            key_id: key_id.map(Arc::from).or_else(|| self.request.key_id().cloned()),
            reasons: std::mem::take(&mut self.reasons),
            children_dropped: work.dropped(),
            children: work.into_children(),
        }
    }
}

/// Everything that is kept, newest first.
#[must_use]
pub fn list() -> Vec<Arc<Record>> {
    RINGS
        .load()
        .as_ref()
        .map(|rings| rings.list())
        .unwrap_or_default()
}

/// What is kept of a request or of a trace, by its id; newest first. One request may have several records here: each
/// call that another service made for it is one.
#[must_use]
pub fn find(id: &str) -> Vec<Arc<Record>> {
    let mut all = list();
    all.retain(|record| record.is(id));
    all
}
