//! Building a pprof profile from names.

use super::message::{Function, Label, Line, Location, Mapping, Profile as Message, Sample, ValueType};
use flate2::{Compression, write::GzEncoder};
use prost::Message as _;
use std::{
    collections::HashMap,
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The number of the only mapping.
const PROGRAM: u64 = 1;

/// One function in a stack.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function's name.
    pub function: String,
    /// Its source file; empty when it is not known.
    pub file: String,
    /// The line in it; 0 when it is not known.
    pub line: i64,
}

/// A pprof profile under construction, from names rather than addresses, so that whoever reads it needs neither the
/// program nor its symbols.
#[derive(Debug)]
pub struct Profile {
    message: Message,
    strings: Strings,
    functions: HashMap<(i64, i64), u64>,
    locations: HashMap<(u64, i64), u64>,
}

impl Profile {
    /// An empty profile, taken now. `sample_types` say of what and in which unit each sample holds a value:
    /// `[("samples", "count"), ("cpu", "nanoseconds")]`. The last is what tools show first, unless
    /// [`show_first`](Self::show_first) says otherwise.
    #[must_use]
    pub fn new(sample_types: &[(&str, &str)]) -> Self {
        let mut strings = Strings::default();
        let sample_type: Vec<_> = sample_types.iter().map(|of| strings.value_type(*of)).collect();
        let program = std::env::current_exe().unwrap_or_default();
        let program = program.to_string_lossy();
        // Linux tells it by the link's end. The names then come from the file that took its place.
        let replaced = program.ends_with(" (deleted)");
        let comment = replaced.then(|| {
            strings.index(
                "the program's file was replaced since it started: names are wrong until it is started again",
            )
        });
        let program = Mapping {
            id: PROGRAM,
            filename: strings.index(&program),
            // Otherwise tools look for a program to take the names from.
            has_functions: true,
            has_filenames: true,
            has_line_numbers: true,
            has_inline_frames: true,
        };
        Self {
            message: Message {
                default_sample_type: sample_type.last().map_or(0, |last| last.r#type),
                sample_type,
                mapping: vec![program],
                comment: comment.into_iter().collect(),
                time_nanos: nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
                ..Message::default()
            },
            strings,
            functions: HashMap::new(),
            locations: HashMap::new(),
        }
    }

    /// How far samples lie apart: `("cpu", "nanoseconds")`, 10000000.
    pub fn period(&mut self, of: (&str, &str), period: i64) {
        self.message.period_type = Some(self.strings.value_type(of));
        self.message.period = period;
    }

    /// Which of the sample types tools show first.
    pub fn show_first(&mut self, of: &str) {
        self.message.default_sample_type = self.strings.index(of);
    }

    /// When the profile was begun, and for how long samples were taken.
    pub fn duration(&mut self, started: SystemTime, duration: Duration) {
        self.message.time_nanos = nanos(started.duration_since(UNIX_EPOCH).unwrap_or_default());
        self.message.duration_nanos = nanos(duration);
    }

    /// A remark for people; `go tool pprof -comments` shows them.
    pub fn comment(&mut self, comment: &str) {
        let comment = self.strings.index(comment);
        self.message.comment.push(comment);
    }

    /// Adds `values`, one for each sample type, seen at `stack`, leaf first.
    pub fn add(&mut self, stack: &[Frame], values: &[i64], labels: &[(&str, &str)]) {
        let location_id = stack.iter().map(|frame| self.location(frame)).collect();
        let label = labels
            .iter()
            .map(|(key, value)| Label {
                key: self.strings.index(key),
                str: self.strings.index(value),
                num: 0,
            })
            .collect();
        self.message.sample.push(Sample {
            location_id,
            value: values.to_vec(),
            label,
        });
    }

    /// The profile as it is sent and stored: a message, compressed by gzip.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let message = self.message();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&message.encode_to_vec())
            .and_then(|()| gzip.finish())
            .expect("writing to memory does not fail")
    }

    /// The profile as a message.
    #[must_use]
    pub fn message(self) -> Message {
        Message {
            string_table: self.strings.all,
            ..self.message
        }
    }

    fn location(&mut self, frame: &Frame) -> u64 {
        let name = self.strings.index(&frame.function);
        let filename = self.strings.index(&frame.file);
        let functions = &mut self.message.function;
        let function_id = *self.functions.entry((name, filename)).or_insert_with(|| {
            let id = functions.len() as u64 + 1;
            functions.push(Function {
                id,
                name,
                // A name here would have tools undo what they take for C++.
                system_name: 0,
                filename,
            });
            id
        });
        let locations = &mut self.message.location;
        *self
            .locations
            .entry((function_id, frame.line))
            .or_insert_with(|| {
                let id = locations.len() as u64 + 1;
                locations.push(Location {
                    id,
                    mapping_id: PROGRAM,
                    line: vec![Line {
                        function_id,
                        line: frame.line,
                    }],
                });
                id
            })
    }
}

/// The string table. Its first string must be empty.
#[derive(Debug)]
struct Strings {
    all: Vec<String>,
    indices: HashMap<String, i64>,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            all: vec![String::new()],
            indices: HashMap::from([(String::new(), 0)]),
        }
    }
}

impl Strings {
    fn index(&mut self, string: &str) -> i64 {
        if let Some(index) = self.indices.get(string) {
            return *index;
        }
        let index = i64::try_from(self.all.len()).unwrap_or(i64::MAX);
        self.all.push(string.to_owned());
        self.indices.insert(string.to_owned(), index);
        index
    }

    fn value_type(&mut self, (of, unit): (&str, &str)) -> ValueType {
        ValueType {
            r#type: self.index(of),
            unit: self.index(unit),
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn frame(function: &str, line: i64) -> Frame {
        Frame {
            function: function.into(),
            file: "src/main.rs".into(),
            line,
        }
    }

    #[test]
    fn what_was_added_is_decoded_and_nothing_is_said_twice() {
        let mut profile = Profile::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
        profile.period(("cpu", "nanoseconds"), 10);
        profile.add(
            &[frame("leaf", 3), frame("main", 9)],
            &[1, 10],
            &[("thread", "a")],
        );
        profile.add(
            &[frame("leaf", 4), frame("main", 9)],
            &[2, 20],
            &[("thread", "b")],
        );
        let encoded = profile.encode();
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(encoded.as_slice())
            .read_to_end(&mut bytes)
            .unwrap();
        let profile = Message::decode(bytes.as_slice()).unwrap();

        let string = |index: i64| profile.string_table[usize::try_from(index).unwrap()].as_str();
        assert_eq!(string(0), "");
        assert_eq!(string(profile.default_sample_type), "cpu");
        assert_eq!(profile.period, 10);
        assert_eq!((profile.function.len(), profile.location.len()), (2, 3));
        let stacks: Vec<_> = profile.sample.iter().map(|sample| &sample.location_id).collect();
        assert_eq!(stacks, [&vec![1, 2], &vec![3, 2]]);
        assert_eq!(profile.sample[1].value, [2, 20]);
        assert_eq!(string(profile.sample[1].label[0].str), "b");
        let leaf = &profile.location[2].line[0];
        assert_eq!(leaf.line, 4);
        let leaf = &profile.function[usize::try_from(leaf.function_id).unwrap() - 1];
        assert_eq!(
            (string(leaf.name), string(leaf.filename)),
            ("leaf", "src/main.rs")
        );
    }
}
