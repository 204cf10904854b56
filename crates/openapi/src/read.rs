//! Bytes to values, with bounds on what that may cost. An alias of YAML is counted each time that it is repeated, so
//! that a few hundred bytes cannot become gigabytes.

use crate::Error;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::Cell, fmt};

/// The most bytes of a document; who reads it from somewhere should stop there.
pub const MAX_BYTES: usize = 64 << 20;
/// The most values of a document.
pub const MAX_VALUES: usize = 1_000_000;
/// How deep they may be nested.
pub const MAX_DEPTH: usize = 100;
/// The most bytes of text in all, what aliases repeat counted each time.
const MAX_TEXT: usize = MAX_BYTES;
/// The stack that reading YAML gets, bytes; only what is used of it is ever taken.
const YAML_STACK: usize = 32 << 20;

pub(crate) fn document(bytes: &[u8]) -> Result<Value, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge(MAX_BYTES));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Error::Syntax("it is not UTF-8".into()))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        return bounded(|budget| json(text, budget));
    }
    // YAML's reader calls itself for each level, in large frames.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(YAML_STACK);
        let reading = thread.spawn_scoped(scope, || bounded(|budget| yaml(text, budget)));
        let read = reading.map_err(|_| Error::NoThread)?;
        read.join()
            .unwrap_or_else(|_| Err(Error::Syntax("it cannot be read".into())))
    })
}

fn bounded(read: impl FnOnce(&Budget) -> Result<Value, Error>) -> Result<Value, Error> {
    let budget = Budget::default();
    let value = read(&budget);
    budget.exceeded.take().map_or(value, Err)
}

fn json(text: &str, budget: &Budget) -> Result<Value, Error> {
    let syntax = |e: serde_json::Error| Error::Syntax(crate::note::cut(&e.to_string(), 200));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = budget.seed(0).deserialize(&mut reader).map_err(syntax)?;
    reader.end().map_err(syntax)?;
    Ok(value)
}

fn yaml(text: &str, budget: &Budget) -> Result<Value, Error> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_events: 4 * MAX_VALUES,
            max_nodes: 2 * MAX_VALUES,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_total_scalar_bytes: MAX_TEXT,
            // Ordinary documents repeat a few anchors many times; what they repeat is counted below.
            enforce_alias_anchor_ratio: false,
        },
    };
    let seed = budget.seed(0);
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| seed.deserialize(reader))
        .map_err(|e| {
            if let serde_saphyr::Error::Budget { breach, .. } = e {
                return match breach {
                    serde_saphyr::budget::BudgetBreach::Depth { .. } => Error::TooDeep(MAX_DEPTH),
                    _ => Error::TooManyValues(MAX_VALUES),
                };
            }
            let place = e
                .location()
                .map(|l| format!("line {}, column {}", l.line(), l.column()));
            let text = crate::note::cut(&e.without_snippet().to_string(), 200);
            // What a repeated anchor exceeds comes wrapped into where it is repeated.
            if text.contains("budget breached") {
                return Error::TooManyValues(MAX_VALUES);
            }
            Error::Syntax(match place {
                Some(place) if !text.contains(&place) => format!("{place}: {text}"),
                _ => text,
            })
        })
}

#[derive(Default)]
struct Budget {
    values: Cell<usize>,
    text: Cell<usize>,
    exceeded: Cell<Option<Error>>,
}

impl Budget {
    fn seed(&self, depth: usize) -> Seed<'_> {
        Seed { budget: self, depth }
    }

    fn exceed<E: serde::de::Error>(&self, error: Error) -> E {
        let told = E::custom(&error);
        self.exceeded.set(Some(error));
        told
    }

    fn spend<E: serde::de::Error>(&self, text: usize) -> Result<(), E> {
        self.values.set(self.values.get() + 1);
        self.text.set(self.text.get() + text);
        if self.values.get() > MAX_VALUES {
            return Err(self.exceed(Error::TooManyValues(MAX_VALUES)));
        }
        if self.text.get() > MAX_TEXT {
            return Err(self.exceed(Error::TooLarge(MAX_TEXT)));
        }
        Ok(())
    }
}

/// A value at some depth.
#[derive(Clone, Copy)]
struct Seed<'a> {
    budget: &'a Budget,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(self.budget.exceed(Error::TooDeep(MAX_DEPTH)));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn scalar<E: serde::de::Error>(self, value: impl Into<Value>) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(value.into())
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        self.scalar(value)
    }

    fn visit_i128<E: serde::de::Error>(self, value: i128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_u128<E: serde::de::Error>(self, value: u128) -> Result<Value, E> {
        self.visit_f64(value as f64)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        self.scalar(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        self.budget.spend(text.len())?;
        Ok(Value::String(without_nul(text.to_owned())))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Value, E> {
        self.budget.spend(text.len())?;
        Ok(Value::String(without_nul(text)))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Value, E> {
        self.scalar(Value::Null)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let item = self.deeper()?;
        let mut list = Vec::new();
        while let Some(value) = items.next_element_seed(item)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let value = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key_seed(Key(self.budget))? {
            let value = entries.next_value_seed(value)?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice in an object"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// The key of an object. YAML's may be numbers (`200:`) and the like: they are taken as they would be written.
struct Key<'a>(&'a Budget);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<String, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<String, E> {
        self.0.text.set(self.0.text.get() + text.len());
        Ok(without_nul(text))
    }
}

/// PostgreSQL cannot keep U+0000.
fn without_nul(text: String) -> String {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fmt::Write as _;

    #[test]
    fn yaml_reads_as_json_does() {
        let text = "a: &x {n: 1, f: 1.5, t: yes, u: ~, d: 2024-01-01}\nb: *x\n200: [\"200\", true]\nc:\n  <<: *x\n  n: 2\n";
        let read = document(text.as_bytes()).unwrap();
        let x = json!({"n": 1, "f": 1.5, "t": "yes", "u": null, "d": "2024-01-01"});
        assert_eq!(read["a"]["n"], x["n"]);
        assert_eq!(read["b"], read["a"]);
        assert_eq!(read["a"]["d"], x["d"]);
        assert_eq!(read["200"], json!(["200", true]));
        assert_eq!(read["c"]["n"], 2);
        assert_eq!(read["c"]["f"], 1.5);
        assert_eq!(
            document(b"\xef\xbb\xbf {\"a\": \"x\\u0000y\"}").unwrap(),
            json!({"a": "x\u{fffd}y"})
        );
    }

    #[test]
    fn what_would_cost_too_much_is_refused() {
        let deep_json = format!("{{\"a\":{}", "[".repeat(10_000));
        let deep_flow = format!("a: {}", "[".repeat(10_000));
        let deep_block = (0..10_000).fold(String::new(), |mut text, i| {
            let _ = writeln!(text, "{}a:", " ".repeat(i % 3000));
            text
        });
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
            let _ = writeln!(laughs, "a{i}: &a{i} [{aliases}]");
        }
        let long = "x".repeat(1 << 20);
        let long_laughs = format!("a: &a {long}\nb: [{}]\n", vec!["*a"; 100].join(","));
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let merges = (1..40).fold("a0: &a0 {x: 1}\n".to_owned(), |mut text, i| {
            let _ = writeln!(
                text,
                "a{i}: &a{i} {{<<: [*a{0}, *a{0}], y{i}: {{<<: *a{0}}}}}",
                i - 1
            );
            text
        });
        for (text, code) in [
            (deep_json, "document_too_large"),
            (deep_flow, "document_too_large document_syntax"),
            (deep_block, "document_too_large document_syntax"),
            (laughs, "document_too_large"),
            (long_laughs, "document_too_large"),
            (many, "document_too_large"),
            (merges, "document_too_large document_syntax"),
            ("{\"a\": 1,}".into(), "document_syntax"),
            ("{\"a\": 1} x".into(), "document_syntax"),
            ("a: *b".into(), "document_syntax"),
            ("a: 1\n---\nb: 2".into(), "document_syntax document_too_large"),
            ("{\"a\": 1, \"a\": 2}".into(), "document_syntax"),
        ] {
            let error = document(text.as_bytes()).expect_err(&text[..text.len().min(60)]);
            assert!(
                code.contains(error.code()),
                "{} {error}",
                &text[..text.len().min(60)]
            );
        }
    }
}
