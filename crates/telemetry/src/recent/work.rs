//! What one request notes of the work done for it.

use serde::Serialize;
use std::{borrow::Cow, time::Duration};

/// How many pieces of work a request notes; the rest is counted.
pub(super) const MOST: usize = 64;

/// How long a name or a status may be, in bytes.
pub(super) const TEXT_MAX: usize = 128;

/// What sort of work it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A query.
    Db,
    /// A command.
    Redis,
    /// A call of another of our services.
    Grpc,
    /// A call of a server outside.
    Http,
}

impl Kind {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Db => "db",
            Self::Redis => "redis",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// A piece of work done for a request.
#[derive(Clone, Debug)]
pub struct Child {
    /// What sort of work.
    pub kind: Kind,
    /// What was done.
    pub name: Cow<'static, str>,
    /// When it began, after the request's arrival.
    pub offset: Duration,
    /// How long it took.
    pub took: Duration,
    /// Whether it failed.
    pub failed: bool,
}

impl Child {
    pub(super) fn new(
        kind: Kind,
        name: Cow<'static, str>,
        offset: Duration,
        took: Duration,
        failed: bool,
    ) -> Self {
        Self {
            kind,
            name: bounded(name),
            offset,
            took,
            failed,
        }
    }
}

/// The beginning of a text. Names are ours, but a few hold what somebody else chose: a server's name, a path.
pub(super) fn bounded(text: Cow<'static, str>) -> Cow<'static, str> {
    if text.len() <= TEXT_MAX {
        return text;
    }
    text[..text.floor_char_boundary(TEXT_MAX)].to_owned().into()
}

/// The work done for one request, in the order in which it ended. Takes no memory before there is any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    children: Vec<Child>,
    dropped: u32,
}

impl Work {
    pub(super) fn add(&mut self, child: Child) {
        if self.children.len() < MOST {
            self.children.push(child);
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    pub(super) fn dropped(&self) -> u32 {
        self.dropped
    }

    /// In the order in which they began.
    pub(super) fn into_children(mut self) -> Vec<Child> {
        self.children.sort_by_key(|child| child.offset);
        self.children.shrink_to_fit();
        self.children
    }
}
