//! How large a schema is, counted as those who run it count.

use serde_json::Value;

/// What a tool's schema may have, a little below what is accepted.
const MAX_VALUES: usize = 3900;
const MAX_DEPTH: usize = 120;
pub(super) const MAX_PATTERNS: usize = 60;
const MAX_BYTES: usize = domain::tool::MAX_SCHEMA_BYTES - 1024;

/// Whether a schema is small enough.
pub(crate) fn fits(schema: &Value) -> bool {
    let mut walk = Walk::default();
    walk.visit(schema, 0)
        && walk.patterns <= MAX_PATTERNS
        && serde_json::to_string(schema).is_ok_and(|text| text.len() <= MAX_BYTES)
}

#[derive(Default)]
struct Walk {
    values: usize,
    patterns: usize,
}

impl Walk {
    fn visit(&mut self, value: &Value, depth: usize) -> bool {
        self.values += 1;
        if self.values > MAX_VALUES || depth > MAX_DEPTH {
            return false;
        }
        match value {
            Value::Array(items) => items.iter().all(|item| self.visit(item, depth + 1)),
            Value::Object(fields) => fields.iter().all(|(keyword, value)| {
                match (keyword.as_str(), value) {
                    ("pattern", Value::String(_)) => self.patterns += 1,
                    ("patternProperties", Value::Object(patterns)) => self.patterns += patterns.len(),
                    _ => {}
                }
                self.visit(value, depth + 1)
            }),
            _ => true,
        }
    }
}

/// What one rendering may still spend: it stops soon after it has become too large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    values: usize,
    work: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            values: MAX_VALUES,
            work: 4 * MAX_VALUES,
            bytes: MAX_BYTES,
        }
    }
}

impl Budget {
    /// Something was looked at.
    pub(super) fn look(&mut self) -> Result<(), super::Stop> {
        self.work = self.work.checked_sub(1).ok_or(super::Stop::TooLarge)?;
        Ok(())
    }

    /// A value of so many bytes was made.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), super::Stop> {
        self.values = self.values.checked_sub(1).ok_or(super::Stop::TooLarge)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(super::Stop::TooLarge)?;
        Ok(())
    }
}
