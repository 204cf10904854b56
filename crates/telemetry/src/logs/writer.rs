//! Where lines leave: a buffer, and a thread that writes it out.

use crate::metrics::own::LOG_LINES_DROPPED;
use parking_lot::{Condvar, Mutex};
use std::{
    io::{self, Write},
    sync::Arc,
    thread,
    time::Duration,
};

/// How much may wait, in bytes. Beyond it, lines are dropped rather than requests held up.
const CAPACITY: usize = 4 << 20;
/// How much of the buffer is kept after a burst.
const KEPT: usize = 64 << 10;
/// How long a line waits for others: under load, to wake a thread and to write cost more than all else about a line.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Never waits for the output; counts what is lost.
#[derive(Debug)]
pub(super) struct Writer(Arc<Queue>);

/// Has what still waits written when dropped, in bounded time.
#[derive(Debug)]
pub(super) struct Guard(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// No more lines will come.
    closed: bool,
    /// All lines are written.
    done: bool,
}

impl Writer {
    /// Writes to `output` until the guard is dropped.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn new(output: impl Write + Send + 'static) -> io::Result<(Self, Guard)> {
        let queue = Arc::<Queue>::default();
        let (writer, guard) = (Self(queue.clone()), Guard(queue.clone()));
        thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || queue.write_out(output))?;
        Ok((writer, guard))
    }

    /// Takes one line, or counts it as dropped.
    pub(super) fn write(&self, line: &[u8]) {
        let mut state = self.0.state.lock();
        if state.closed || state.lines.len() + line.len() > CAPACITY {
            drop(state);
            return LOG_LINES_DROPPED.inc([]);
        }
        let first = state.lines.is_empty();
        state.lines.extend_from_slice(line);
        drop(state);
        if first {
            self.0.changed.notify_all();
        }
    }
}

impl Queue {
    fn write_out(&self, mut output: impl Write) {
        let mut lines = Vec::new();
        loop {
            let closed = self.take(&mut lines);
            if output.write_all(&lines).and_then(|()| output.flush()).is_err() {
                let count = lines.iter().filter(|byte| **byte == b'\n').count();
                LOG_LINES_DROPPED.add(count as u64, []);
            }
            if closed {
                self.state.lock().done = true;
                self.changed.notify_all();
                return;
            }
            lines.clear();
            lines.shrink_to(KEPT);
        }
    }

    /// Waits for lines and takes them all; says whether they are the last.
    fn take(&self, lines: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        self.changed
            .wait_while(&mut state, |state| state.lines.is_empty() && !state.closed);
        self.changed
            .wait_while_for(&mut state, |state| !state.closed, PAUSE);
        std::mem::swap(&mut state.lines, lines);
        state.closed
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        self.0.changed.notify_all();
        // Whoever reads the output may have stopped reading: it must not keep the process from ending.
        self.0
            .changed
            .wait_while_for(&mut state, |state| !state.done, LAST_LINES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Says what it is given, and takes it once it may.
    struct Slow(Sender<usize>, Receiver<()>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.len()).map_err(io::Error::other)?;
            self.1.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_a_slow_output_up_to_a_bound_and_go_together() {
        let ((given, sizes), (may, wait)) = (channel(), channel());
        let (writer, guard) = Writer::new(Slow(given, wait)).expect("a thread");
        writer.write(b"first\n");
        assert_eq!(sizes.recv(), Ok(6));
        let line = vec![b'x'; CAPACITY / 4];
        for _ in 0..6 {
            writer.write(&line);
        }
        may.send(()).expect("it waits");
        assert_eq!(sizes.recv(), Ok(CAPACITY), "four fit, in one write");
        may.send(()).expect("it waits");
        drop(guard);
    }
}
