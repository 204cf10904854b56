//! Pages of a listing, in a stable order.

use serde::{Deserialize, Serialize};

/// The most entries that a page may hold.
pub const MAX_LIMIT: u32 = 200;
/// How many entries a page holds when the caller does not say.
pub const DEFAULT_LIMIT: u32 = 50;

/// What part of a listing is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Entries wanted, 1 to [`MAX_LIMIT`].
    pub limit: u32,
    /// Where the page before ended, as it said in [`Page::next_cursor`]; `None` for the first page.
    pub cursor: Option<String>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self {
            limit: DEFAULT_LIMIT,
            cursor: None,
        }
    }
}

impl PageRequest {
    /// Takes a caller's wish, cut to the allowed range.
    pub fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        let limit = limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
        Self {
            limit,
            cursor: cursor.filter(|c| !c.is_empty()),
        }
    }
}

/// One page, in the listing's stable order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Opaque; asks for the next page. `None` on the last one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// The same page with each entry turned into something else.
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(f).collect(),
            next_cursor: self.next_cursor,
        }
    }
}
