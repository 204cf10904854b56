//! Profiles of CPU time.
//!
//! The kernel interrupts whichever thread is running once per so much CPU time of the process; a signal handler notes
//! its stack ([`sampler`]). A thread collects the notes, so that a profile of a blocked runtime can be taken, too.

mod flamegraph;
mod sampler;

use super::{Frame, Profile, symbols::Symbols};
use nix::{errno::Errno, time::ClockId};
use parking_lot::Mutex;
use sampler::Armed;
use std::{
    collections::{HashMap, hash_map::Entry},
    fs,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// How often the handler's notes are collected: before their room is full, while a thread that ended has a name.
const COLLECT_EVERY: Duration = Duration::from_millis(100);

/// How many different stacks a profile holds: tens of megabytes at most, and of a picture's lines not many times that.
const MOST_STACKS: usize = 1 << 15;

/// When the profile in hand is expected to end.
static RUNNING: Mutex<Option<Instant>> = Mutex::new(None);

/// Why a profile cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is one already, until about then.
    #[error("a CPU profile is being taken, for another {} s", .0.as_secs() + 1)]
    Busy(Duration),
    /// The system does not let it.
    #[error("this system does not allow CPU profiles: {0}")]
    Refused(#[from] Errno),
    /// No thread for it.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// When the profile that is being taken is expected to end, if there is one.
#[must_use]
pub fn running_until() -> Option<Instant> {
    *RUNNING.lock()
}

/// A profile being taken. Dropped, it is given up and freed.
#[derive(Debug)]
pub struct Recording {
    /// Nothing is ever sent: the end of the channel says stop.
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Samples>,
}

/// The right to take a profile: there is one.
#[derive(Debug)]
struct Turn;

impl Turn {
    fn take(expected: Duration) -> Result<Self, StartError> {
        let mut running = RUNNING.lock();
        let now = Instant::now();
        if let Some(until) = *running {
            return Err(StartError::Busy(until.saturating_duration_since(now)));
        }
        *running = Some(now + expected);
        Ok(Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock() = None;
    }
}

/// Begins a profile with `frequency` samples (1 to 1000) for each second of CPU time. `expected` is how long it will be
/// taken, for whoever asks for one meanwhile.
///
/// # Errors
/// [`StartError`], above all when one is being taken.
pub fn start(frequency: u32, expected: Duration) -> Result<Recording, StartError> {
    let turn = Turn::take(expected)?;
    let armed = Armed::new(frequency)?;
    let (stop, stopped) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("cpu-profile".to_owned())
        .spawn(move || record(armed, turn, frequency, &stopped))?;
    Ok(Recording { stop, thread })
}

impl Recording {
    /// Ends the profile. Blocks for a moment.
    #[must_use]
    pub fn finish(self) -> Option<Samples> {
        drop(self.stop);
        self.thread.join().ok()
    }
}

fn record(armed: Armed, turn: Turn, frequency: u32, stopped: &mpsc::Receiver<()>) -> Samples {
    let (started, begun, cpu) = (SystemTime::now(), Instant::now(), cpu_time());
    let mut samples = Samples {
        stacks: HashMap::new(),
        threads: HashMap::new(),
        lost: 0,
        frequency,
        started,
        duration: Duration::ZERO,
        cpu: Duration::ZERO,
        _turn: turn,
    };
    while stopped.recv_timeout(COLLECT_EVERY) == Err(RecvTimeoutError::Timeout) {
        samples.collect(&armed);
    }
    samples.collect(&armed);
    drop(armed);
    samples.duration = begun.elapsed();
    samples.cpu = cpu_time().saturating_sub(cpu);
    samples
}

/// The CPU time that the process has used, in user and in system mode.
fn cpu_time() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID
        .now()
        .map(Duration::from)
        .unwrap_or_default()
}

/// What was seen. Another profile can be taken once this is dropped.
#[derive(Debug)]
pub struct Samples {
    /// How often each stack of each thread was seen: addresses, leaf first.
    stacks: HashMap<(usize, Vec<usize>), u64>,
    threads: HashMap<usize, String>,
    lost: usize,
    frequency: u32,
    started: SystemTime,
    duration: Duration,
    cpu: Duration,
    _turn: Turn,
}

impl Samples {
    fn collect(&mut self, armed: &Armed) {
        let lost = armed.collect(|thread, addresses| self.add(thread, addresses));
        self.lost += lost;
    }

    fn add(&mut self, thread: usize, addresses: &[usize]) {
        let known = self.stacks.len();
        match self.stacks.entry((thread, addresses.to_vec())) {
            Entry::Occupied(seen) => *seen.into_mut() += 1,
            Entry::Vacant(new) if known < MOST_STACKS => {
                new.insert(1);
                self.threads.entry(thread).or_insert_with(|| thread_name(thread));
            }
            Entry::Vacant(_) => self.lost += 1,
        }
    }

    /// How many samples there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.stacks.values().sum()
    }

    /// How many samples were lost for lack of room.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.lost
    }

    /// The CPU time that one sample stands for. The kernel's clock can be slower than the frequency asked for, so this is
    /// what was used, divided by what was seen.
    fn nanoseconds_a_sample(&self) -> f64 {
        let all = self.count() + self.lost as u64;
        if all == 0 {
            return 1e9 / f64::from(self.frequency);
        }
        self.cpu.as_nanos() as f64 / all as f64
    }

    /// Each stack with its functions' names, its thread's name and how often it was seen.
    fn named(&self) -> impl Iterator<Item = (Vec<Frame>, &str, u64)> {
        // Below the leaf they are where a call returns to, which may be the next line, or function.
        let called = |(depth, address): (usize, &usize)| address - usize::from(depth > 0);
        let addresses = self.stacks.keys().map(|(_, addresses)| addresses);
        let symbols = Symbols::of(addresses.flat_map(|addresses| addresses.iter().enumerate().map(called)));
        self.stacks.iter().map(move |((thread, addresses), count)| {
            let mut frames = Vec::new();
            for address in addresses.iter().enumerate().map(called) {
                symbols.resolve(address, &mut frames);
            }
            (frames, self.threads[thread].as_str(), *count)
        })
    }

    /// The profile, with names. This is work: up to seconds in a program with much debug information.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let nanoseconds = self.nanoseconds_a_sample();
        let mut profile = Profile::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
        profile.duration(self.started, self.duration);
        profile.period(("cpu", "nanoseconds"), nanoseconds as i64);
        if self.lost > 0 {
            profile.comment(&format!("{} samples were lost for lack of room", self.lost));
        }
        for (frames, thread, count) in self.named() {
            let values = [count as i64, (count as f64 * nanoseconds) as i64];
            profile.add(&frames, &values, &[("thread", thread)]);
        }
        profile
    }

    /// The profile as a picture for browsers. As much work as [`profile`](Self::profile).
    #[must_use]
    pub fn flamegraph(&self, title: &str) -> String {
        flamegraph::draw(title, self.named())
    }
}

fn thread_name(thread: usize) -> String {
    fs::read_to_string(format!("/proc/self/task/{thread}/comm"))
        .map_or_else(|_| thread.to_string(), |name| name.trim_end().to_owned())
}

#[cfg(test)]
mod tests;
