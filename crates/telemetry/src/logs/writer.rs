//! Where lines leave: a queue, and a thread that writes it out.

use crate::metrics::own::LOG_LINES_DROPPED;
use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// How many lines may wait: some megabytes. Beyond it, lines are dropped rather than requests held up.
const QUEUE: usize = 8192;

/// Never waits; counts what is lost.
#[derive(Debug)]
pub(super) struct Writer {
    queue: NonBlocking,
    lost: ErrorCounter,
    counted: AtomicUsize,
}

impl Writer {
    pub(super) fn new(output: impl Write + Send + 'static) -> (Self, WorkerGuard) {
        let builder = NonBlockingBuilder::default()
            .lossy(true)
            .buffered_lines_limit(QUEUE)
            .thread_name("logs");
        let (queue, guard) = builder.finish(output);
        let lost = queue.error_counter();
        (
            Self {
                queue,
                lost,
                counted: AtomicUsize::new(0),
            },
            guard,
        )
    }

    pub(super) fn write(&self, line: &[u8]) {
        // A clone shares the queue; writing to it wants one of its own.
        let _ = self.queue.clone().write_all(line);
        let lost = self.lost.dropped_lines();
        if lost > 0 {
            let counted = self.counted.fetch_max(lost, Ordering::Relaxed);
            LOG_LINES_DROPPED.add(lost.saturating_sub(counted) as u64, []);
        }
    }
}
