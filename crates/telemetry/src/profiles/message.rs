//! The messages of pprof's `profile.proto`, as far as they are used here. Strings are indices into
//! [`Profile::string_table`].

use prost::Message;

/// A profile.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of a sample are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// What was seen.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// The program's parts.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    /// Places in the code.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// All strings; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// When the profile was taken, in nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it was collected, in nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What lies between two samples.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Remarks for people.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The type of value that is shown unless another is asked for.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// Of what, for example `cpu`.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// In what, for example `nanoseconds`.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Values seen at one stack.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sample {
    /// The stack, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each of the profile's types.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
    /// What else is known.
    #[prost(message, repeated, tag = "3")]
    pub label: Vec<Label>,
}

/// A label of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Label {
    /// Its name.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Its value, when it is text.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// Its value, when it is a number.
    #[prost(int64, tag = "3")]
    pub num: i64,
}

/// A part of the program.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Mapping {
    /// Its number, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The file it comes from.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Whether its functions are named already.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// Whether their files are.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Whether lines are.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Whether inlined functions stand among them.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// A place in the code.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Location {
    /// Its number, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The part of the program.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// Function and line.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A line of a function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Line {
    /// The function.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// The line in its file.
    #[prost(int64, tag = "2")]
    pub line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// Its number, not 0.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Its name as the linker knows it.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Its source file.
    #[prost(int64, tag = "4")]
    pub filename: i64,
}
