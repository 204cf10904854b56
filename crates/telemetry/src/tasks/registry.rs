//! All live tasks.

use super::entry::Entry;
use parking_lot::Mutex;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// More than there are threads on most machines: two that spawn at once seldom meet.
const SHARDS: usize = 16;

static LIVE: [Shard; SHARDS] = [const { Shard::new() }; SHARDS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Alone in its cache lines.
#[repr(align(128))]
struct Shard(Mutex<Slots>);

impl Shard {
    const fn new() -> Self {
        Self(Mutex::new(Slots {
            entries: Vec::new(),
            free: Vec::new(),
        }))
    }
}

/// Entries at fixed places, so that one leaves without a search.
struct Slots {
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
}

/// An entry's place in the registry, for as long as this lives.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) entry: Arc<Entry>,
    shard: usize,
    slot: usize,
}

impl Ticket {
    pub(super) fn new(entry: Entry) -> Self {
        let entry = Arc::new(entry);
        let shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut slots = LIVE[shard].0.lock();
        let slot = match slots.free.pop() {
            Some(slot) => {
                slots.entries[slot] = Some(entry.clone());
                slot
            }
            None => {
                slots.entries.push(Some(entry.clone()));
                slots.entries.len() - 1
            }
        };
        drop(slots);
        Self { entry, shard, slot }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut slots = LIVE[self.shard].0.lock();
        slots.entries[self.slot] = None;
        if slots.free.len() + 1 == slots.entries.len() {
            // Nothing is left: the room that a crowd needed is not kept for the next one.
            slots.entries = Vec::new();
            slots.free = Vec::new();
        } else {
            let slot = self.slot;
            slots.free.push(slot);
        }
    }
}

/// Every live task's entry.
pub(super) fn entries() -> Vec<Arc<Entry>> {
    let mut all = Vec::new();
    for shard in &LIVE {
        all.extend(shard.0.lock().entries.iter().flatten().cloned());
    }
    all
}
