//! Which traces are kept, decided where they enter.

use crate::context::{Request, Sampling};
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanId, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler as Builtin, SamplingDecision, SamplingResult, ShouldSample,
};
use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Looks at what the request says first, then at the parent span, then at the head ratio.
#[derive(Clone, Debug)]
pub(crate) struct Sampler {
    ratio: Builtin,
}

impl Sampler {
    /// Samples that share of the traces that start here, 0 to 1.
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio: Builtin::TraceIdRatioBased(ratio),
        }
    }
}

impl ShouldSample for Sampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let span = parent.map(Context::span);
        let span = span.as_ref().map(|s| s.span_context()).filter(|s| s.is_valid());
        let request = parent
            .and_then(Context::get::<Request>)
            .map_or(Sampling::Caller, Request::sampling);
        let kept = |kept, state: Option<&TraceState>| SamplingResult {
            decision: if kept {
                SamplingDecision::RecordAndSample
            } else {
                SamplingDecision::Drop
            },
            attributes: Vec::new(),
            trace_state: state.cloned().unwrap_or_default(),
        };
        match (span, request) {
            // Inside the service the decision has been made.
            (Some(local), _) if !local.is_remote() => kept(local.is_sampled(), Some(local.trace_state())),
            (remote, Sampling::Forced) => kept(true, remote.map(|s| s.trace_state())),
            (Some(remote), Sampling::Caller) => kept(remote.is_sampled(), Some(remote.trace_state())),
            (_, Sampling::Head | Sampling::Caller) => self
                .ratio
                .should_sample(parent, trace_id, name, kind, attributes, links),
        }
    }
}

/// Gives a root span the trace id that its request has had since it arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        Request::with_current(Request::trace_id).unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}

/// So many a second, and no more; bursts within the second are allowed.
#[derive(Debug)]
pub(crate) struct Budget {
    per_second: u32,
    since: Instant,
    /// The second (upper half) and what was spent in it (lower half).
    spent: AtomicU64,
}

impl Budget {
    pub(crate) fn new(per_second: u32) -> Self {
        Self {
            per_second,
            since: Instant::now(),
            spent: AtomicU64::new(0),
        }
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&self) -> bool {
        let second = self.since.elapsed().as_secs() << 32;
        self.spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |spent| {
                let used = if spent >> 32 == second >> 32 {
                    spent & u64::from(u32::MAX)
                } else {
                    0
                };
                (used < u64::from(self.per_second)).then_some(second | (used + 1))
            })
            .is_ok()
    }
}

/// A budget that many draw on, each of them no more than a share: one who asks without end leaves the others theirs.
#[derive(Debug)]
pub(crate) struct Shares {
    all: Budget,
    /// Whoever asks has one of these, found by a hash of the name: so many are enough that two seldom share one.
    each: [Budget; 64],
    hasher: RandomState,
}

impl Shares {
    pub(crate) fn new(per_second: u32, each: u32) -> Self {
        Self {
            all: Budget::new(per_second),
            each: std::array::from_fn(|_| Budget::new(each)),
            hasher: RandomState::new(),
        }
    }

    /// Takes one for `who`, if there is one left.
    pub(crate) fn take(&self, who: &str) -> bool {
        let place = self.hasher.hash_one(who) % self.each.len() as u64;
        self.each[place as usize].take() && self.all.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::RequestId;
    use opentelemetry::trace::{SpanContext, TraceFlags};

    fn decides(ratio: f64, remote: Option<TraceFlags>, sampling: Sampling) -> bool {
        let remote = remote.map(|flags| {
            SpanContext::new(
                TraceId::from(u128::MAX / 2),
                SpanId::from(7),
                flags,
                true,
                TraceState::default(),
            )
        });
        let request = Request::new(RequestId::new(), remote.as_ref(), sampling);
        let cx = Context::new().with_value(request.clone());
        let cx = remote.map_or(cx.clone(), |r| cx.with_remote_span_context(r));
        let result = Sampler::new(ratio).should_sample(
            Some(&cx),
            request.trace_id(),
            "x",
            &SpanKind::Server,
            &[],
            &[],
        );
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn the_callers_flag_counts_only_when_it_is_trusted() {
        let (yes, no) = (Some(TraceFlags::SAMPLED), Some(TraceFlags::default()));
        assert!(decides(0.0, yes, Sampling::Caller));
        assert!(!decides(1.0, no, Sampling::Caller));
        assert!(!decides(0.0, yes, Sampling::Head));
        assert!(decides(1.0, no, Sampling::Head));
        assert!(decides(0.0, no, Sampling::Forced));
        assert!(decides(0.0, None, Sampling::Forced));
        assert!(decides(1.0, None, Sampling::Caller));
        assert!(!decides(0.0, None, Sampling::Caller));
    }

    #[test]
    fn a_budget_is_spent_and_comes_back() {
        let budget = Budget::new(2);
        assert!(budget.take() && budget.take());
        // Unless a second just passed, there's nothing left; either way the third second has two again.
        let left = (0..10).filter(|_| budget.take()).count();
        assert!(left <= 2);
        std::thread::sleep(std::time::Duration::from_millis(1050));
        assert!(budget.take());
    }

    #[test]
    fn who_asks_without_end_leaves_the_others_theirs() {
        let shares = Shares::new(20, 5);
        let granted = (0..1000).filter(|_| shares.take("greedy")).count();
        // Ten, when a second began in between.
        assert!((5..=10).contains(&granted), "{granted}");
        // Some of these names may fall on the greedy one's share, never all.
        assert!((0..10).any(|other| shares.take(&format!("other-{other}"))));
        let all = (0..1000).filter(|who| shares.take(&who.to_string())).count();
        assert!(all <= 40, "together no more than there is: {all}");
    }
}
