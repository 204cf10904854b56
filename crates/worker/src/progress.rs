//! How far a run has come, on its way to the caller.

use proto::v1;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::mpsc;

/// How many reports may be on their way; a caller that reads slower than that misses some.
const QUEUE: usize = 16;

/// Where a run reports. Reporting never waits.
pub struct Reporter {
    sender: mpsc::Sender<v1::Progress>,
    count: AtomicU32,
}

/// A reporter, and where its reports come out.
pub fn channel() -> (Reporter, mpsc::Receiver<v1::Progress>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (
        Reporter {
            sender,
            count: AtomicU32::new(0),
        },
        receiver,
    )
}

impl Reporter {
    /// Says what the run does now; for a person, without secrets and arguments. The number told with it only grows,
    /// as MCP wants it; how far it will go isn't known.
    pub fn report(&self, message: impl Into<String>) {
        let step = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let progress = v1::Progress {
            progress: step.into(),
            total: None,
            message: message.into(),
        };
        // Full, or nobody there: progress is a courtesy.
        let _ = self.sender.try_send(progress);
    }
}
