//! From addresses to names, in this process.

use super::Frame;
use std::{
    collections::{BTreeSet, HashMap},
    ptr,
};
use tikv_jemalloc_ctl::{epoch, stats};

/// How much memory may be taken by debug information that was read, in bytes, before it is given back.
const ROOM: usize = 64 << 20;

/// The functions at addresses of this program.
#[derive(Debug)]
pub(super) struct Symbols(HashMap<usize, Vec<Frame>>);

impl Symbols {
    /// Looks up each address once, in their order: neighbours need the same debug information.
    pub(super) fn of(addresses: impl IntoIterator<Item = usize>) -> Self {
        let sorted: BTreeSet<_> = addresses.into_iter().collect();
        let mut room = Room::new();
        let known = sorted.into_iter().map(|address| {
            let frames = look_up(address);
            room.make();
            (address, frames)
        });
        let known = known.collect();
        backtrace::clear_symbol_cache();
        Self(known)
    }

    /// Adds the functions at `address`, innermost first: more than one where calls were inlined, its number where none is
    /// known.
    pub(super) fn resolve(&self, address: usize, frames: &mut Vec<Frame>) {
        frames.extend(self.0.get(&address).into_iter().flatten().cloned());
    }
}

/// Keeps the debug information that was read from filling a container.
struct Room {
    begun_with: usize,
    most: usize,
}

impl Room {
    fn new() -> Self {
        let begun_with = allocated();
        let most = ROOM;
        Self { begun_with, most }
    }

    /// Gives back what was read when it takes too much. Twice as much is allowed from then on: where a single part of the
    /// program takes more than there is room for, it must not be read again for each address.
    fn make(&mut self) {
        if allocated().saturating_sub(self.begun_with) > self.most {
            backtrace::clear_symbol_cache();
            self.most *= 2;
        }
    }
}

fn allocated() -> usize {
    let fresh = epoch::advance().and_then(|_| stats::allocated::read());
    fresh.unwrap_or_default()
}

fn look_up(address: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    backtrace::resolve(ptr::without_provenance_mut(address), |symbol| {
        let Some(name) = symbol.name() else {
            return;
        };
        let file = symbol.filename();
        let file = file.map_or_else(String::new, |file| file.to_string_lossy().into_owned());
        frames.push(Frame {
            // Without the hash at its end.
            function: told_apart(format!("{name:#}"), &file),
            file,
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

/// A build with few symbols calls every asynchronous function `{async_fn#0}`: the source file says which it may be.
fn told_apart(name: String, file: &str) -> String {
    if !name.starts_with('{') || file.is_empty() {
        return name;
    }
    let mut parts = file.rsplit('/');
    let (last, folder) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    format!("{name} ({folder}/{last})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_path_has_its_file_beside_it() {
        let file = "crates/rest-api/src/store/write.rs";
        assert_eq!(
            told_apart("{async_fn#0}".into(), file),
            "{async_fn#0} (store/write.rs)"
        );
        assert_eq!(told_apart("rest_api::run".into(), file), "rest_api::run");
        assert_eq!(told_apart("{closure#0}".into(), ""), "{closure#0}");
    }
}
