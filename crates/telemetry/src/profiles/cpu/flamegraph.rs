use super::Frame;
use inferno::flamegraph::{Options, from_lines};
use std::io;

/// A picture of stacks: width is how often, colour says nothing. A thread is the lowest frame.
pub(super) fn draw<'a>(
    title: &str,
    stacks: impl Iterator<Item = (Vec<Frame>, &'a str, u64)>,
) -> io::Result<Vec<u8>> {
    let mut lines: Vec<_> = stacks
        .map(|(frames, thread, count)| line(&frames, thread, count))
        .collect();
    if lines.is_empty() {
        // A picture of nothing is an error to the library, and an answer to whoever asked.
        lines.push("(no CPU time was used) 1".to_owned());
    }
    lines.sort_unstable();
    let mut options = Options::default();
    options.title = title.to_owned();
    let mut picture = Vec::new();
    from_lines(&mut options, lines.iter().map(String::as_str), &mut picture).map_err(io::Error::other)?;
    Ok(picture)
}

/// Root first, as the library reads it.
fn line(frames: &[Frame], thread: &str, count: u64) -> String {
    let mut line = thread.replace(';', ":");
    for frame in frames.iter().rev() {
        line.push(';');
        line.push_str(&frame.function.replace(';', ":"));
    }
    format!("{line} {count}")
}
