//! What the answers of all these tools have in common: how numbers and times are written, what was left out, and how
//! large one may be.

use crate::sources::{Access, time};
use domain::{JsonObject, Time};
use serde_json::{Value, json};

/// The most that an answer may be as JSON, in bytes.
pub(crate) const MAX_BYTES: usize = 32 << 10;

/// A measured number, to four significant digits; what JSON has no number for is text: `NaN`, `+Inf`, `-Inf`.
pub(crate) fn number(number: f64) -> Value {
    if number.is_nan() {
        return "NaN".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let rounded: f64 = format!("{number:.3e}").parse().unwrap_or(number);
    #[expect(clippy::cast_possible_truncation, reason = "bounded right here, and whole")]
    if rounded.fract() == 0.0 && rounded.abs() < 9e15 {
        return (rounded as i64).into();
    }
    rounded.into()
}

/// `2026-11-02T15:04:05Z`
pub(crate) fn time(time: Time) -> String {
    time::rfc3339(time)
}

/// At most `max` characters of a text, with `…` where it went on.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// An answer in the making: `{"source": …, …, "truncated": {"shown": n, "of": m}, "notes": […]}`.
pub(crate) struct Answer {
    object: JsonObject,
    truncated: Option<(usize, usize)>,
    notes: Vec<String>,
}

impl Answer {
    /// An answer from one source.
    pub(crate) fn from(access: &Access) -> Self {
        let mut answer = Self::new();
        answer.set("source", access.name());
        answer
    }

    /// An answer from several sources, or from none.
    pub(crate) fn new() -> Self {
        Self {
            object: JsonObject::new(),
            truncated: None,
            notes: Vec::new(),
        }
    }

    /// Says something.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.object.insert(key.to_owned(), value.into());
        self
    }

    /// Says something where there is something to say.
    pub(crate) fn set_some(&mut self, key: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.set(key, value);
        }
        self
    }

    /// Says what an agent must know of the answer: what is missing in it and how to get it.
    pub(crate) fn note(&mut self, note: impl Into<String>) -> &mut Self {
        self.notes.push(note.into());
        self
    }

    /// Says that `shown` of `of` are shown, where that is not all.
    pub(crate) fn truncated(&mut self, shown: usize, of: usize) -> &mut Self {
        if shown < of {
            self.truncated = Some((shown, of));
        }
        self
    }

    /// The whole answer. Where it is larger than [`MAX_BYTES`], elements of `list` are left out from its end until it
    /// fits, which it then says.
    pub(crate) fn finish(mut self, list: &str) -> Value {
        let all = self
            .object
            .get(list)
            .and_then(Value::as_array)
            .map_or(0, Vec::len);
        let whole = self.value();
        let excess = whole.to_string().len().saturating_sub(MAX_BYTES);
        if excess == 0 {
            return whole;
        }
        let kept = self.cut_list(list, excess);
        let of = self.truncated.map_or(all, |(_, of)| of.max(all));
        self.truncated(kept, of);
        self.note(format!(
            "the answer would be too large: {kept} of `{list}` are shown; narrow it"
        ));
        self.value()
    }

    /// How many elements are kept, so that at least `excess` bytes and what is said of it are saved.
    fn cut_list(&mut self, list: &str, excess: usize) -> usize {
        const SAID_OF_IT: usize = 256;
        let Some(Value::Array(items)) = self.object.get_mut(list) else {
            return 0;
        };
        let mut saved = 0;
        while saved < excess + SAID_OF_IT {
            let Some(item) = items.pop() else { break };
            saved += item.to_string().len() + 1;
        }
        items.len()
    }

    fn value(&self) -> Value {
        let mut object = self.object.clone();
        if let Some((shown, of)) = self.truncated {
            object.insert("truncated".into(), json!({ "shown": shown, "of": of }));
        }
        if !self.notes.is_empty() {
            object.insert("notes".into(), self.notes.clone().into());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_four_digits() {
        for (given, expected) in [
            (0.0, json!(0)),
            (-0.0, json!(0)),
            (1.0, json!(1)),
            (0.123_456, json!(0.1235)),
            (123_456.0, json!(123_500)),
            (1_793_620_800.5, json!(1_794_000_000)),
            (-2.5e-9, json!(-2.5e-9)),
            (99.999, json!(100)),
            (1e300, json!(1e300)),
            (f64::NAN, json!("NaN")),
            (f64::NEG_INFINITY, json!("-Inf")),
        ] {
            assert_eq!(number(given), expected, "{given}");
        }
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_told() {
        let mut answer = Answer::new();
        answer
            .set("lines", vec!["x".repeat(1000); 100])
            .truncated(100, 250);
        let answer = answer.finish("lines");
        let size = answer.to_string().len();
        assert!((MAX_BYTES - 2000..=MAX_BYTES).contains(&size), "{size}");
        let shown = answer["lines"].as_array().unwrap().len();
        assert_eq!(answer["truncated"], json!({ "shown": shown, "of": 250 }));
        assert_eq!(answer["notes"].as_array().unwrap().len(), 1);
    }
}
