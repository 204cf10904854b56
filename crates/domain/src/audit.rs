//! The audit log: who called what, when, and how it ended. What was said in a call is kept as a hash, and in clear only
//! where the settings say so, with what is secret taken out.

use crate::{ApiKeyId, ExecutionId, Invalid, JsonObject, TenantId, Time};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{io, str::FromStr};
use uuid::{NoContext, Timestamp, Uuid};

mod rejections;

pub use rejections::{Owner, Rejected, Rejections};

/// What stands in the place of something secret.
const REDACTED: &str = "[redacted]";
/// How much of a text is kept in redacted arguments, characters.
const TEXT_MAX: usize = 200;
/// How much of redacted arguments is kept in all, bytes.
const ARGUMENTS_MAX: usize = 4096;
/// How much of redacted arguments that are longer than that is kept, bytes.
const ARGUMENTS_HEAD: usize = 2000;
/// Where a caller entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// The Model Context Protocol.
    Mcp,
    /// REST.
    Rest,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it was meant to.
    Ok,
    /// With an error.
    Error,
    /// The caller may not do this, or is not known.
    Denied,
    /// The caller went away, or did not want it any more.
    Cancelled,
}

macro_rules! words {
    ($($type:ident { $($variant:ident = $word:literal),+ })+) => {$(
        impl $type {
            /// The word that stands in requests, databases and on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $type {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Invalid::new(stringify!($type).to_lowercase(), concat!($($word, " ",)+))),
                }
            }
        }
    )+};
}
words! {
    Door { Mcp = "mcp", Rest = "rest" }
    Outcome { Ok = "ok", Error = "error", Denied = "denied", Cancelled = "cancelled" }
}

impl Outcome {
    /// How a call ended with this stable error code; empty: without an error.
    pub fn of_code(code: &str) -> Self {
        match code {
            "" => Self::Ok,
            "cancelled" => Self::Cancelled,
            "missing_scope"
            | "arguments_not_allowed"
            | "tool_rules_exceeded"
            | "own_request"
            | "declined"
            | "forbidden" => Self::Denied,
            _ => Self::Error,
        }
    }
}

/// One call, or what was counted together of rejected authentications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// UUIDv7 of [`Self::at`]: records sort by it.
    pub id: Uuid,
    /// When it began; the first one, where several are counted together.
    pub at: Time,
    /// Whose it is; `None`: nobody knows.
    pub tenant_id: Option<TenantId>,
    /// The key.
    pub key_id: Option<ApiKeyId>,
    /// The key's name, or for rejected ones the first characters of what was shown.
    pub key_name: String,
    /// Where the caller entered.
    pub door: Door,
    /// A tool's name, a method with its route's template, or [`AUTHENTICATE`].
    pub action: String,
    /// SHA-256 of the arguments' JSON, or of a request's body, in hex; empty: there was nothing, or it may hold secrets.
    pub arguments_hash: String,
    /// The arguments as [`redacted`] shows them, where the settings say so.
    pub arguments: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The stable code of the error; empty: none.
    pub code: String,
    /// How long it took, microseconds.
    pub duration_us: i64,
    /// The trace, 32 hexadecimal digits; empty: none.
    pub trace_id: String,
    /// The execution, where there is one.
    pub execution_id: Option<ExecutionId>,
    /// How many such there were, where they are counted together.
    pub count: i64,
    /// The peer's address, for rejected authentications; empty: not known.
    pub address: String,
}

/// The action of a rejected authentication.
pub const AUTHENTICATE: &str = "authenticate";

impl Record {
    /// A record of `action`, which began `at` and of which nothing else is known yet.
    pub fn new(at: Time, door: Door, action: impl Into<String>) -> Self {
        Self {
            id: new_id(at),
            at,
            tenant_id: None,
            key_id: None,
            key_name: String::new(),
            door,
            action: action.into(),
            arguments_hash: String::new(),
            arguments: None,
            outcome: Outcome::Cancelled,
            code: String::new(),
            duration_us: 0,
            trace_id: String::new(),
            execution_id: None,
            count: 1,
            address: String::new(),
        }
    }
}

fn new_id(at: Time) -> Uuid {
    let seconds = u64::try_from(at.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(
        NoContext,
        seconds,
        at.timestamp_subsec_nanos(),
    ))
}

/// The least identifier that a record of that millisecond, or of a later one, may have.
pub fn first_id(at: Time) -> Uuid {
    let millis = u64::try_from(at.timestamp_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
}

/// Whether calls' arguments are kept in clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arguments {
    /// No: their hash alone.
    #[default]
    None,
    /// With what looks secret taken out, and long texts cut.
    Redacted,
}

impl Arguments {
    /// Puts into `record` what is kept of a call's arguments.
    pub fn keep(self, arguments: &JsonObject, record: &mut Record) {
        record.arguments_hash = hash_of(arguments);
        record.arguments = (self == Self::Redacted).then(|| redacted(arguments));
    }
}

/// SHA-256 of the arguments' JSON, in hex. Maps are sorted by key, so the same arguments have the same hash.
pub fn hash_of(arguments: &JsonObject) -> String {
    let mut hash = Hash::default();
    // Writing to a hash cannot fail.
    let _ = serde_json::to_writer(&mut hash, arguments);
    hash.hex()
}

/// SHA-256 of what is written into it.
pub struct Hash(Context);

impl Default for Hash {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Hash {
    /// Takes in what comes next.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was taken in, in hex.
    pub fn hex(&self) -> String {
        let hash = self.0.clone().finish();
        let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
        let digits = hash.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
        digits.map(digit).collect()
    }
}

impl io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The arguments as JSON without what looks secret: members whose names say so, and texts that look like keys. Long
/// texts are cut, and so is the whole.
pub fn redacted(arguments: &JsonObject) -> String {
    let text = Value::Object(members(arguments)).to_string();
    if text.len() <= ARGUMENTS_MAX {
        return text;
    }
    let head = &text[..text.floor_char_boundary(ARGUMENTS_HEAD)];
    json!({"truncated": true, "bytes": text.len(), "begins": head}).to_string()
}

fn members(object: &JsonObject) -> JsonObject {
    let member = |(name, value): (&String, &Value)| {
        let value = if names_a_secret(name) {
            REDACTED.into()
        } else {
            shown(value)
        };
        (name.clone(), value)
    };
    object.iter().map(member).collect()
}

fn shown(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(members(object)),
        Value::Array(values) => values.iter().map(shown).collect(),
        Value::String(text) if looks_secret(text) => REDACTED.into(),
        Value::String(text) => match text.char_indices().nth(TEXT_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]).into(),
            None => text.clone().into(),
        },
        other => other.clone(),
    }
}

fn names_a_secret(name: &str) -> bool {
    const WORDS: [&str; 11] = [
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "secret",
        "token",
        "authorization",
        "apikey",
        "credential",
        "privatekey",
        "cookie",
    ];
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    WORDS.iter().any(|word| name.contains(word)) || name.ends_with("accesskey")
}

fn looks_secret(text: &str) -> bool {
    let begins = |with: &str| {
        text.get(..with.len())
            .is_some_and(|b| b.eq_ignore_ascii_case(with))
    };
    text.contains(crate::api_key::PREFIX)
        || text.contains("-----BEGIN ")
        || begins("bearer ")
        || begins("basic ")
        || ["ghp_", "github_pat_", "xoxb-", "sk-", "sk_live_", "eyJ"]
            .iter()
            .any(|with| begins(with))
        || (begins("AKIA") && text.len() == 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: &Value) -> JsonObject {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn the_same_arguments_have_the_same_hash() {
        let one: JsonObject = serde_json::from_str(r#"{"b":1,"a":{"y":2,"x":3}}"#).unwrap();
        let other: JsonObject = serde_json::from_str(r#"{ "a": {"x": 3, "y": 2}, "b": 1 }"#).unwrap();
        assert_eq!(hash_of(&one), hash_of(&other));
        // As sha256sum says of the text.
        let known = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
        assert_eq!(hash_of(&JsonObject::new()), known);
    }

    #[test]
    fn what_looks_secret_is_taken_out_and_what_is_long_is_cut() {
        let key = crate::api_key::Secret::generate();
        let arguments = object(&json!({
            "service": "web", "Api-Key": "s1", "nested": [{"dbPassword": {"deep": "s2"}, "note": "x".repeat(1000)}],
            "text": format!("use {}", key.expose()), "header": "Bearer s3", "accessToken": 4,
        }));
        let text = redacted(&arguments);
        for secret in ["s1", "s2", "s3", key.expose(), ":4"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
        assert!(text.contains(r#""service":"web""#) && text.len() < 700, "{text}");
        let many: JsonObject = (0..1000)
            .map(|n| (format!("member{n}"), json!("é".repeat(50))))
            .collect();
        let text = redacted(&many);
        assert!(text.len() <= ARGUMENTS_MAX, "{}", text.len());
        assert!(serde_json::from_str::<Value>(&text).is_ok());
    }

    #[test]
    fn identifiers_sort_by_time() {
        let now: Time = "2026-11-23T08:00:00.123456Z".parse().unwrap();
        let record = Record::new(now, Door::Mcp, "x");
        assert!(record.id >= first_id(now));
        assert!(record.id < first_id(now + chrono::TimeDelta::milliseconds(1)));
        assert_eq!(record.id.get_version_num(), 7);
    }
}
