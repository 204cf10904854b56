//! What jemalloc writes when it is asked for its samples.

use std::{
    collections::HashMap,
    io::{self, BufRead},
};

/// What is known of one stack: estimates for all allocations, made of the sampled ones.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) alloc_objects: f64,
    pub(super) alloc_space: f64,
    pub(super) inuse_objects: f64,
    pub(super) inuse_space: f64,
}

impl Counts {
    /// What came since `earlier`.
    fn since(self, earlier: Self) -> Self {
        Self {
            alloc_objects: self.alloc_objects - earlier.alloc_objects,
            alloc_space: self.alloc_space - earlier.alloc_space,
            inuse_objects: self.inuse_objects - earlier.inuse_objects,
            inuse_space: self.inuse_space - earlier.inuse_space,
        }
    }

    pub(super) fn values(self) -> [i64; 4] {
        [
            self.alloc_objects,
            self.alloc_space,
            self.inuse_objects,
            self.inuse_space,
        ]
        .map(|value| value.round() as i64)
    }
}

/// Samples by stack: addresses, leaf first.
#[derive(Debug, Default)]
pub(super) struct Dump {
    /// How many bytes lie between two samples, on average.
    pub(super) interval: f64,
    pub(super) stacks: HashMap<Vec<usize>, Counts>,
}

impl Dump {
    /// Reads a dump: after a line with the interval, for each stack a line `@ address…` and one
    /// `t*: objects: bytes [objects: bytes]` with what is in use and, in brackets, what has ever been allocated. What
    /// stands between them (threads, the program's mappings) is not needed.
    pub(super) fn read(text: impl BufRead) -> io::Result<Self> {
        let wrong =
            |line: &str| io::Error::new(io::ErrorKind::InvalidData, format!("unexpected line: {line}"));
        let mut lines = text.lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        let interval = first.strip_prefix("heap_v2/").and_then(|rate| rate.parse().ok());
        let mut dump = Self {
            interval: interval.ok_or_else(|| wrong(&first))?,
            stacks: HashMap::new(),
        };
        let mut stack = None;
        for line in lines {
            let line = line?;
            let trimmed = line.trim();
            if let Some(addresses) = trimmed.strip_prefix("@ ") {
                stack = Some(parse_stack(addresses).ok_or_else(|| wrong(&line))?);
            } else if let Some(counts) = trimmed.strip_prefix("t*: ")
                && let Some(stack) = stack.take()
            {
                let counts = dump.estimate(counts).ok_or_else(|| wrong(&line))?;
                dump.stacks.insert(stack, counts);
            }
        }
        Ok(dump)
    }

    /// What the samples stand for.
    fn estimate(&self, counts: &str) -> Option<Counts> {
        let mut numbers = counts
            .split(|c: char| !c.is_ascii_digit())
            .filter(|number| !number.is_empty())
            .map(|number| number.parse::<f64>().ok());
        let mut next = || numbers.next().flatten();
        let (inuse_objects, inuse_space) = unbiased(next()?, next()?, self.interval);
        let (alloc_objects, alloc_space) = unbiased(next()?, next()?, self.interval);
        Some(Counts {
            alloc_objects,
            alloc_space,
            inuse_objects,
            inuse_space,
        })
    }

    /// What came since `earlier`.
    pub(super) fn since(mut self, earlier: &Self) -> Self {
        for (stack, before) in &earlier.stacks {
            let now = self.stacks.entry(stack.clone()).or_default();
            *now = now.since(*before);
        }
        self
    }
}

fn parse_stack(addresses: &str) -> Option<Vec<usize>> {
    addresses
        .split_ascii_whitespace()
        .map(|address| usize::from_str_radix(address.strip_prefix("0x")?, 16).ok())
        .collect()
}

/// A large allocation is sampled nearly always, a small one seldom; an allocation of `size` bytes with the probability
/// 1 - e^(-size / interval). jemalloc's own tool counts back like this, and jemalloc writes its numbers so that it comes
/// out right.
fn unbiased(objects: f64, bytes: f64, interval: f64) -> (f64, f64) {
    if objects <= 0.0 || bytes <= 0.0 {
        return (0.0, 0.0);
    }
    let scale = 1.0 / (1.0 - (-(bytes / objects) / interval).exp());
    (objects * scale, bytes * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "heap_v2/524288
  t*: 3: 1573376 [5: 2621952]
  t0: 3: 1573376 [5: 2621952]
@ 0x10 0x20
  t*: 2: 1048576 [4: 2097152]
  t0: 2: 1048576 [4: 2097152]
@ 0x30 0x20
  t*: 1: 512 [1: 512]

MAPPED_LIBRARIES:
10-20 r-xp 00000000 00:00 0
";

    #[test]
    fn samples_stand_for_what_was_not_sampled() {
        let dump = Dump::read(TEXT.as_bytes()).unwrap();
        assert_eq!(dump.stacks.len(), 2);
        // Half a MiB each: sampled with probability 1 - 1/e.
        let large = dump.stacks[&vec![0x10, 0x20]].values();
        assert_eq!(large, [6, 3_317_646, 3, 1_658_823]);
        // 512 bytes are sampled once in 1025 times.
        let small = dump.stacks[&vec![0x30, 0x20]].values();
        assert_eq!((small[2], small[3]), (1025, 524_544));
    }

    #[test]
    fn a_difference_shows_what_grew_and_what_went() {
        let earlier = Dump::read(TEXT.as_bytes()).unwrap();
        let later = TEXT.replace("t*: 2: 1048576 [4: 2097152]", "t*: 4: 2097152 [6: 3145728]");
        let later = later.replace("@ 0x30 0x20\n  t*: 1: 512 [1: 512]\n", "");
        let difference = Dump::read(later.as_bytes()).unwrap().since(&earlier);
        let grown = difference.stacks[&vec![0x10, 0x20]].values();
        assert_eq!(grown[3], 1_658_823);
        assert_eq!(difference.stacks[&vec![0x30, 0x20]].values()[3], -524_544);
    }

    #[test]
    fn what_is_no_dump_is_refused() {
        for text in [
            "",
            "heap_v1/1",
            "heap_v2/524288\n@ 0x1 zz",
            "heap_v2/524288\n@ 0x1\nt*: 1",
        ] {
            assert!(Dump::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
