//! What a plan tells of what it could not do.

/// The most notes of one tool.
const MAX_NOTES: usize = 32;
/// The most bytes of a text that are looked at.
const MAX_LOOKED_AT: usize = 32 * 1024;

/// Something that a tool does in a simpler way than its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

/// An operation that no tool was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The operation: its `operationId`, or method and path.
    pub operation: String,
    /// Stable, for programs.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

/// Why an operation can be no tool.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

impl Unfit {
    pub(crate) fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

/// Notes as they are gathered: each once, a bounded number of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Vec<Note>);

impl Notes {
    pub(crate) fn add(&mut self, code: &'static str, text: impl Into<String>) {
        let text = cut(&text.into(), 300);
        let known = self.0.iter().any(|note| note.code == code && note.text == text);
        if !known && self.0.len() < MAX_NOTES {
            self.0.push(Note { code, text });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Note> {
        self.0
    }
}

/// As much of a text as anyone may be told of: what is longer is not even looked at.
pub(crate) fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOOKED_AT)]
}

/// The first `most` characters; says so when there were more.
pub(crate) fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept = text.chars().take(most.saturating_sub(1));
            kept.chain(['…']).collect()
        }
    }
}
