//! From addresses to names, in this process.

use super::Frame;
use std::{collections::HashMap, ptr};

/// The functions at addresses of this program, each looked up once. The debug information that is read for it is given
/// back in the end.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    known: HashMap<usize, Vec<Frame>>,
}

impl Symbols {
    /// Adds the functions at `address`, innermost first: more than one where calls were inlined, its number where none is
    /// known.
    pub(super) fn resolve(&mut self, address: usize, frames: &mut Vec<Frame>) {
        let known = self.known.entry(address).or_insert_with(|| look_up(address));
        frames.extend_from_slice(known);
    }
}

impl Drop for Symbols {
    fn drop(&mut self) {
        backtrace::clear_symbol_cache();
    }
}

fn look_up(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(ptr::without_provenance_mut(address), |symbol| {
        let Some(name) = symbol.name() else {
            return;
        };
        let file = symbol.filename();
        frames.push(Frame {
            // Without the hash at its end.
            function: format!("{name:#}"),
            file: file.map_or_else(String::new, |file| file.to_string_lossy().into_owned()),
            line: symbol.lineno().map_or(0, i64::from),
        });
    });
    if frames.is_empty() {
        frames.push(Frame {
            function: format!("{address:#x}"),
            file: String::new(),
            line: 0,
        });
    }
    frames
}
