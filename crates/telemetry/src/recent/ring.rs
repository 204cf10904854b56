//! The rings that records are kept in.

use super::record::{Reason, Record};
use arc_swap::ArcSwapOption;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The last records of one reason. Writers take turns by a counter and never wait for one another.
#[derive(Debug)]
struct Ring {
    slots: Box<[ArcSwapOption<Record>]>,
    turn: AtomicU64,
}

impl Ring {
    fn new(capacity: usize) -> Self {
        Self {
            slots: (0..capacity.max(1)).map(|_| ArcSwapOption::empty()).collect(),
            turn: AtomicU64::new(0),
        }
    }

    fn push(&self, record: &Arc<Record>) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let slot = &self.slots[(turn % self.slots.len() as u64) as usize];
        // A writer that was held up for a whole round must not put its record over a newer one.
        slot.rcu(|there| match there {
            Some(newer) if newer.number > record.number => there.clone(),
            _ => Some(record.clone()),
        });
    }
}

/// One ring a reason.
#[derive(Debug)]
pub(super) struct Rings {
    rings: [Ring; Reason::ALL.len()],
    kept: AtomicU64,
}

impl Rings {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            rings: Reason::ALL.map(|_| Ring::new(capacity)),
            kept: AtomicU64::new(0),
        }
    }

    /// Keeps it in the ring of each of its reasons.
    pub(super) fn keep(&self, mut record: Record) {
        record.number = self.kept.fetch_add(1, Ordering::Relaxed);
        let record = Arc::new(record);
        for reason in &record.reasons {
            self.rings[*reason as usize].push(&record);
        }
    }

    /// Newest first, each once.
    pub(super) fn list(&self) -> Vec<Arc<Record>> {
        let slots = self.rings.iter().flat_map(|ring| &ring.slots);
        let mut all: Vec<_> = slots.filter_map(ArcSwapOption::load_full).collect();
        all.sort_unstable_by_key(|record| std::cmp::Reverse(record.number));
        all.dedup_by_key(|record| record.number);
        all
    }
}
