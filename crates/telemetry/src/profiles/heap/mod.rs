//! Profiles of memory: which code holds it, and which code allocates it.
//!
//! jemalloc samples allocations while it is told to, and only those can be shown: what was allocated before is not known.

mod dump;
mod jemalloc;

use super::{Profile, symbols::Symbols};
use chrono::{DateTime, SecondsFormat, Utc};
use dump::Dump;
use parking_lot::Mutex;
use serde::{Serialize, Serializer};
use std::{
    io::{self, BufReader},
    time::{Duration, SystemTime},
};
use tikv_jemalloc_ctl::{arenas, epoch, stats};

/// Since when allocations are sampled. Held while that changes.
static SINCE: Mutex<Option<SystemTime>> = Mutex::new(None);

/// What of the heap is shown first. Both hold all four values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// What is in use.
    InUse,
    /// What has been allocated, whether or not it still is in use.
    Allocated,
}

/// Why there is no profile.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The allocator cannot.
    #[error("the allocator was started without profiles (opt.prof is false)")]
    Disabled,
    /// Nothing is sampled.
    #[error("allocations are not sampled")]
    Inactive,
    /// The allocator refused.
    #[error("the allocator refused: {0}")]
    Allocator(tikv_jemalloc_ctl::Error),
    /// Its samples could not be read.
    #[error("the allocator's samples cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

impl From<tikv_jemalloc_ctl::Error> for Unavailable {
    fn from(error: tikv_jemalloc_ctl::Error) -> Self {
        Self::Allocator(error)
    }
}

/// Has allocations sampled from now on, one every `sample_bytes` on average (rounded up to a power of two), or as often as
/// before; nothing changes when they are already.
///
/// # Errors
/// When the allocator cannot.
pub fn activate(sample_bytes: Option<u64>) -> Result<(), Unavailable> {
    let mut since = SINCE.lock();
    if !jemalloc::is_enabled() {
        return Err(Unavailable::Disabled);
    }
    if jemalloc::is_active() {
        since.get_or_insert_with(SystemTime::now);
        return Ok(());
    }
    let log_sample = match sample_bytes {
        Some(bytes) => bytes.max(1).next_power_of_two().ilog2() as usize,
        None => jemalloc::log_sample()?,
    };
    jemalloc::reset(log_sample)?;
    jemalloc::set_active(true)?;
    *since = Some(SystemTime::now());
    Ok(())
}

/// Has allocations sampled no longer, and forgets those that were: whatever is allocated from now on would be missing.
///
/// # Errors
/// When the allocator cannot.
pub fn deactivate() -> Result<(), Unavailable> {
    let mut since = SINCE.lock();
    if !jemalloc::is_enabled() {
        return Err(Unavailable::Disabled);
    }
    jemalloc::set_active(false)?;
    jemalloc::reset(jemalloc::log_sample()?)?;
    *since = None;
    Ok(())
}

/// Says how often allocations are to be sampled, and begins if it is to.
pub(crate) fn configure(settings: &crate::settings::Profiling) -> Result<(), Unavailable> {
    if settings.heap {
        return activate(Some(settings.heap_sample_bytes));
    }
    if jemalloc::is_enabled() && !jemalloc::is_active() {
        jemalloc::reset(settings.heap_sample_bytes.next_power_of_two().ilog2() as usize)?;
    }
    Ok(())
}

/// All samples at one time.
#[derive(Debug)]
pub struct Snapshot {
    dump: Dump,
    taken: SystemTime,
    since: Option<SystemTime>,
}

impl Snapshot {
    /// Takes one. This blocks allocations for some milliseconds, and its caller for longer.
    ///
    /// # Errors
    /// When allocations aren't sampled, or the allocator fails.
    pub fn take() -> Result<Self, Unavailable> {
        // Not held while dumping: whoever wants to know since when should not wait.
        let since = *SINCE.lock();
        if !jemalloc::is_enabled() {
            return Err(Unavailable::Disabled);
        }
        if !jemalloc::is_active() {
            return Err(Unavailable::Inactive);
        }
        Ok(Self {
            dump: Dump::read(BufReader::new(jemalloc::dump()?))?,
            taken: SystemTime::now(),
            since,
        })
    }

    /// What changed since `earlier`, growth positive.
    #[must_use]
    pub fn since(self, earlier: &Self) -> Self {
        Self {
            dump: self.dump.since(&earlier.dump),
            since: Some(earlier.taken),
            ..self
        }
    }

    /// The profile, with names. This is work: a second or more the first time, in a program with much debug information.
    #[must_use]
    pub fn profile(&self, view: View) -> Profile {
        let mut profile = Profile::new(&[
            ("alloc_objects", "count"),
            ("alloc_space", "bytes"),
            ("inuse_objects", "count"),
            ("inuse_space", "bytes"),
        ]);
        profile.show_first(match view {
            View::InUse => "inuse_space",
            View::Allocated => "alloc_space",
        });
        profile.period(("space", "bytes"), self.dump.interval as i64);
        if let Some(since) = self.since {
            let duration = self.taken.duration_since(since).unwrap_or(Duration::ZERO);
            profile.duration(since, duration);
            profile.comment(&format!(
                "allocations of the {} s before it was taken",
                duration.as_secs()
            ));
        }
        // They are where calls return to, which may be the next line, or function.
        let called = |address: &usize| address.saturating_sub(1);
        let some = self
            .dump
            .stacks
            .iter()
            .filter(|(_, counts)| counts.values() != [0; 4]);
        let symbols = Symbols::of(
            some.clone()
                .flat_map(|(addresses, _)| addresses.iter().map(called)),
        );
        for (addresses, counts) in some {
            let values = counts.values();
            let mut frames = Vec::new();
            for address in addresses {
                symbols.resolve(called(address), &mut frames);
            }
            profile.add(without_allocator(&frames), &values, &[]);
        }
        profile
    }
}

/// A stack without the allocator's own frames at its leaf: they are the same in all.
fn without_allocator(frames: &[super::Frame]) -> &[super::Frame] {
    let own = frames.iter().rposition(|frame| {
        let name = frame.function.as_str();
        [
            "_rjem_",
            "prof_",
            "imalloc",
            "<tikv_jemallocator::",
            "alloc::alloc::",
        ]
        .iter()
        .any(|start| name.starts_with(start))
            || ["__rust_alloc", "__rust_realloc", "__rust_alloc_zeroed"]
                .iter()
                .any(|end| name.ends_with(end))
            || ["malloc", "calloc", "realloc", "aligned_alloc"].contains(&name)
    });
    match own {
        Some(last) if last + 1 < frames.len() => &frames[last + 1..],
        _ => frames,
    }
}

/// The heap in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct Statistics {
    /// Whether allocations are sampled.
    pub profiling: bool,
    /// Since when; RFC 3339 in JSON.
    #[serde(serialize_with = "rfc3339")]
    pub profiling_since: Option<SystemTime>,
    /// How many bytes lie between two samples, on average; none when the allocator cannot.
    pub sample_bytes: Option<u64>,
    /// Bytes that the program has allocated and not freed.
    pub allocated_bytes: Option<usize>,
    /// Bytes in pages that hold allocations.
    pub active_bytes: Option<usize>,
    /// Bytes of the allocator's own data.
    pub metadata_bytes: Option<usize>,
    /// Bytes in RAM, with the allocator's own data and pages not yet returned.
    pub resident_bytes: Option<usize>,
    /// Bytes in mappings that are in use.
    pub mapped_bytes: Option<usize>,
    /// Bytes of address space kept for reuse, without RAM behind them.
    pub retained_bytes: Option<usize>,
    /// How many arenas threads may be spread over.
    pub arenas: Option<u32>,
}

/// The heap in numbers, now.
#[must_use]
pub fn statistics() -> Statistics {
    let profiling = jemalloc::is_active();
    // The allocator's numbers stand still between epochs.
    let current = epoch::advance().is_ok();
    let read = |value: tikv_jemalloc_ctl::Result<usize>| value.ok().filter(|_| current);
    Statistics {
        profiling,
        profiling_since: *SINCE.lock(),
        sample_bytes: jemalloc::log_sample().ok().map(|log| 1 << log),
        allocated_bytes: read(stats::allocated::read()),
        active_bytes: read(stats::active::read()),
        metadata_bytes: read(stats::metadata::read()),
        resident_bytes: read(stats::resident::read()),
        mapped_bytes: read(stats::mapped::read()),
        retained_bytes: read(stats::retained::read()),
        arenas: arenas::narenas::read().ok(),
    }
}

fn rfc3339<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = |time| DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true);
    time.map(text).serialize(serializer)
}
