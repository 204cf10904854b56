//! Signals on their way: to this replica at once, to the others through the database, where it has a way for that.

use super::Signal;
use domain::ExecutionId;
use std::sync::{Mutex, PoisonError};
use tokio::{
    sync::{broadcast, mpsc},
    task::JoinSet,
};

/// How many signals a slow receiver may be behind.
const BACKLOG: usize = 4096;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This replica: nobody else can wait for it.
    Here,
    /// Every replica.
    Everywhere,
}

/// The ways that signals take.
pub(crate) struct Signals {
    here: broadcast::Sender<Signal>,
    others: Option<mpsc::Sender<Signal>>,
    /// What carries signals to and from other replicas; ends with this.
    carriers: Mutex<JoinSet<()>>,
}

impl Signals {
    /// Signals that stay in this process.
    pub(crate) fn in_process() -> Self {
        Self {
            here: broadcast::Sender::new(BACKLOG),
            others: None,
            carriers: Mutex::default(),
        }
    }

    /// Signals that also travel: `carry` starts what takes them out of the one and puts others' into the other.
    pub(crate) fn travelling(
        carry: impl FnOnce(mpsc::Receiver<Signal>, broadcast::Sender<Signal>, &mut JoinSet<()>),
    ) -> Self {
        let here = broadcast::Sender::new(BACKLOG);
        let (others, outgoing) = mpsc::channel(BACKLOG);
        let mut carriers = JoinSet::new();
        carry(outgoing, here.clone(), &mut carriers);
        Self {
            here,
            others: Some(others),
            carriers: Mutex::new(carriers),
        }
    }

    /// What happens from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Signal> {
        self.here.subscribe()
    }

    /// Tells who waits. What cannot be told is found by those who look by themselves.
    pub(crate) fn tell(&self, signal: Signal, reach: Reach) {
        // An error says that nobody listens.
        let _ = self.here.send(signal);
        if let Some(others) = self.others.as_ref().filter(|_| reach == Reach::Everywhere) {
            let _ = others.try_send(signal);
        }
    }

    /// Ends what carries signals.
    pub(crate) async fn close(&self) {
        let mut carriers = std::mem::take(&mut *self.carriers.lock().unwrap_or_else(PoisonError::into_inner));
        carriers.shutdown().await;
    }
}

/// A signal in a message between replicas: one word.
pub(crate) fn word(signal: Signal) -> String {
    match signal {
        Signal::Queued => "queued".to_owned(),
        Signal::Cancel(id) => format!("cancel:{id}"),
        Signal::Changed(id) => format!("changed:{id}"),
    }
}

/// What a word says; `None` when another version sent it.
pub(crate) fn parse(word: &str) -> Option<Signal> {
    let (kind, id) = word.split_once(':').unwrap_or((word, ""));
    let id = || id.parse::<ExecutionId>().ok();
    match kind {
        "queued" => Some(Signal::Queued),
        "cancel" => id().map(Signal::Cancel),
        "changed" => id().map(Signal::Changed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_survive_the_way_and_strange_ones_are_dropped() {
        let id = ExecutionId::new();
        for signal in [Signal::Queued, Signal::Cancel(id), Signal::Changed(id)] {
            assert_eq!(parse(&word(signal)), Some(signal));
        }
        for strange in ["", "cancel", "cancel:", "changed:1", "paused:x"] {
            assert_eq!(parse(strange), None, "{strange}");
        }
    }
}
