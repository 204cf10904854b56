//! Lines that say the same but for numbers and ids, told once with a count.

use super::line::Line;
use crate::tools::observe::answer;
use domain::{JsonObject, Time};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// How much of a line tells it from others, and is shown, in characters.
const MAX_SHOWN: usize = 600;
/// After one of these a number is a word of its own: 200 is not 500.
const NUMBER_MATTERS: [&str; 4] = ["status", "status_code", "code", "answered"];

/// Lines that say the same.
pub(crate) struct Group {
    /// The first of them in the order asked for.
    sample: Line,
    count: usize,
    first: Time,
    last: Time,
}

/// The groups, each where its first line stands.
pub(crate) fn grouped(lines: Vec<Line>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(Option<String>, Option<String>, String), usize> = HashMap::new();
    for line in lines {
        let key = (line.service.clone(), line.level.clone(), template(&line.text));
        let next = groups.len();
        match known.entry(key).or_insert(next) {
            at if *at < next => {
                let group = &mut groups[*at];
                group.count += 1;
                group.first = group.first.min(line.time);
                group.last = group.last.max(line.time);
            }
            _ => groups.push(Group {
                count: 1,
                first: line.time,
                last: line.time,
                sample: line,
            }),
        }
    }
    groups
}

impl Group {
    /// `{"count": 30, "first": …, "last": …, "service": …, "level": …, "line": …, "trace_id": …, "request_id": …}`; the
    /// ids are those of the line shown. One that stands alone has a `time` in place of the first three.
    pub(crate) fn value(&self) -> Value {
        let mut object = JsonObject::new();
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        if self.count > 1 {
            set("count", self.count.into());
            set("first", answer::time(self.first).into());
            set("last", answer::time(self.last).into());
        } else {
            set("time", answer::time(self.first).into());
        }
        let Line {
            service,
            level,
            trace_id,
            request_id,
            text,
            ..
        } = &self.sample;
        set("line", answer::cut(text, MAX_SHOWN).into());
        let told = [
            ("service", service),
            ("level", level),
            ("trace_id", trace_id),
            ("request_id", request_id),
        ];
        for (key, value) in told {
            if let Some(value) = value {
                set(key, answer::cut(value, 128).into());
            }
        }
        Value::Object(object)
    }
}

/// A line without what differs from one to the next: numbers, ids, addresses, times.
fn template(text: &str) -> String {
    let mut template = String::with_capacity(text.len().min(MAX_SHOWN));
    let mut before = "";
    let mut rest: &str = match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => &text[..end],
        None => text,
    };
    while let Some(c) = rest.chars().next() {
        let length = word(rest);
        if length == 0 {
            template.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        let (found, next) = rest.split_at(length);
        let kept = NUMBER_MATTERS
            .iter()
            .any(|word| before.eq_ignore_ascii_case(word));
        if !kept && varies(found) {
            template.push('#');
        } else {
            template.push_str(found);
        }
        (before, rest) = (found, next);
    }
    template
}

/// How long the word is that a text begins with, in bytes: a UUID, or letters and digits, with the points in numbers.
fn word(text: &str) -> usize {
    if text.get(..36).is_some_and(|start| Uuid::try_parse(start).is_ok()) {
        return 36;
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let inside = |at: usize| {
        let byte = bytes[at];
        byte.is_ascii_alphanumeric()
            || byte == b'_'
            || (byte == b'.' && at > 0 && digit(at - 1) && digit(at + 1))
    };
    (0..bytes.len()).take_while(|at| inside(*at)).count()
}

fn varies(word: &str) -> bool {
    word.bytes().any(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, text: &str) -> Line {
        Line {
            time: Time::UNIX_EPOCH + std::time::Duration::from_secs(second.into()),
            service: Some("rest-api".to_owned()),
            level: Some("info".to_owned()),
            text: text.to_owned(),
            trace_id: Some(format!("trace-{second}")),
            request_id: None,
        }
    }

    #[test]
    fn numbers_and_ids_do_not_tell_lines_apart() {
        for (a, b) in [
            ("took 150 ms", "took 1.5e3 ms"),
            (
                "took 12.5ms from 10.0.0.1:443",
                "took 3.25ms from 192.168.17.200:8080",
            ),
            (
                "GET /contexts/0194a3b0-7c1e-7abc-8def-0123456789ab failed",
                "GET /contexts/ffffffff-abcd-4bcd-8bcd-abcdefabcdef failed",
            ),
            (
                "panicked at src/main.rs:10:5:\nindex 7",
                "panicked at src/main.rs:12:9:\nindex 31",
            ),
            (
                "2026-11-23 08:33:00.123 UTC [4001] LOG",
                "2026-11-23 08:34:07.9 UTC [17] LOG",
            ),
        ] {
            assert_eq!(template(a), template(b));
        }
        for (a, b) in [
            (
                "request status=200 duration_ms=1",
                "request status=500 duration_ms=1",
            ),
            ("the endpoint answered 503", "the endpoint answered 404"),
            ("a 1", "b 1"),
            ("größer 1", "kleiner 1"),
        ] {
            assert_ne!(template(a), template(b));
        }
    }

    #[test]
    fn a_group_stands_where_its_first_line_stood() {
        let lines = vec![
            line(9, "took 9 ms"),
            line(8, "started"),
            line(7, "took 7 ms"),
            line(3, "took 3 ms"),
        ];
        let groups: Vec<Value> = grouped(lines).iter().map(Group::value).collect();
        let expected = serde_json::json!([
            {
                "count": 3, "first": "1970-01-01T00:00:03Z", "last": "1970-01-01T00:00:09Z", "line": "took 9 ms",
                "service": "rest-api", "level": "info", "trace_id": "trace-9"
            },
            {
                "time": "1970-01-01T00:00:08Z", "line": "started", "service": "rest-api", "level": "info",
                "trace_id": "trace-8"
            }
        ]);
        assert_eq!(Value::Array(groups), expected);
    }

    #[test]
    fn lines_of_another_service_or_level_are_others() {
        let mut other = line(1, "x");
        other.level = Some("error".to_owned());
        assert_eq!(grouped(vec![line(1, "x"), other, line(2, "x")]).len(), 2);
    }

    #[test]
    fn a_long_line_is_cut() {
        let groups = grouped(vec![line(1, &"é".repeat(700))]);
        assert_eq!(
            groups[0].value()["line"].as_str().unwrap().chars().count(),
            MAX_SHOWN
        );
    }
}
