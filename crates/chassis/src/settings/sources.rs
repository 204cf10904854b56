//! Where settings stand: the file and the environment, each as a tree of values that remembers its origin.

use super::SettingsError;
use figment::value::{Dict, Tag, Value};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// Environment variables that are settings begin with this; `__` goes down one level.
const PREFIX: &str = "DEVOPS_MCP__";

/// Variables with a name of their own, and the key that each sets.
const PLAIN: [(&str, &str); 2] = [("ADMIN_TOKEN", "admin_token"), ("SERVICE_TOKEN", "service_token")];

/// A variable with this after its name holds the path of a file that holds the value, as secrets are mounted.
const FILE: &str = "_FILE";

/// One place where settings come from.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// What it set.
    pub(super) values: Dict,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// A file, by its name.
    File(String),
    /// Keys in dots, and the variable that set each.
    Environment(BTreeMap<String, String>),
}

impl Default for Origin {
    fn default() -> Self {
        Self::Environment(BTreeMap::new())
    }
}

impl Source {
    /// Reads a YAML file. Keys without a value count as not written.
    pub(super) fn file(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let file = path.display().to_string();
        let values: Option<Dict> = yaml_serde::from_str(text).map_err(|error| SettingsError::Syntax {
            file: file.clone(),
            problem: error.to_string(),
        })?;
        Ok(Self {
            values: without_empty(values.unwrap_or_default()),
            origin: Origin::File(file),
        })
    }

    /// Reads the environment. An empty variable counts as not set.
    pub(super) fn environment(
        variables: impl Iterator<Item = (String, String)>,
        shape: &Dict,
    ) -> Result<Self, SettingsError> {
        let mut variables: Vec<_> = variables.filter(|(_, value)| !value.is_empty()).collect();
        // The prefixed form comes last and wins over the plain one.
        variables.sort_by_key(|(name, _)| name.starts_with(PREFIX));
        let mut values = Dict::new();
        let mut names = BTreeMap::new();
        for (name, text) in &variables {
            let Some((path, text)) = setting(name, text, shape)? else {
                continue;
            };
            let twin = name.strip_suffix(FILE).filter(|_| matches!(text, Cow::Owned(_)));
            if let Some(twin) = twin.filter(|twin| variables.iter().any(|(name, _)| name == twin)) {
                return Err(SettingsError::Value {
                    key: path.join("."),
                    problem: format!("{twin} is set, too; expected only one of them"),
                    origin: name.clone(),
                });
            }
            let value = value_of(&text, find(shape, &path));
            if !insert(&mut values, &path, value) {
                return Err(SettingsError::Value {
                    key: path.join("."),
                    origin: name.clone(),
                    problem: "expected either one value or variables for its parts, not both".into(),
                });
            }
            names.insert(path.join("."), name.clone());
        }
        Ok(Self {
            values,
            origin: Origin::Environment(names),
        })
    }

    /// Where in this source `path` stands, in a reader's words.
    pub(super) fn origin(&self, path: &[String]) -> Option<String> {
        find(&self.values, path)?;
        match &self.origin {
            Origin::File(file) => Some(file.clone()),
            Origin::Environment(names) => {
                let key = path.join(".");
                let below = format!("{key}.");
                let found = names
                    .iter()
                    .find(|(name, _)| **name == key || name.starts_with(&below));
                found.map(|(_, variable)| variable.clone())
            }
        }
    }
}

/// A setting's key and its value.
type Setting<'a> = (Vec<String>, Cow<'a, str>);

/// The setting that a variable stands for, and its value: owned when it was read from the file that the variable names.
fn setting<'a>(name: &str, text: &'a str, shape: &Dict) -> Result<Option<Setting<'a>>, SettingsError> {
    let own = path_of(name);
    let twin = name.strip_suffix(FILE).and_then(path_of);
    // `ready_file` and the like are settings of their own.
    let known = |path: &Vec<String>| find(shape, path).is_some();
    match twin.filter(|twin| known(twin) && !own.as_ref().is_some_and(known)) {
        Some(twin) => {
            let value = from_file(name, &twin, text)?;
            Ok(Some((twin, value)))
        }
        None => Ok(own.map(|own| (own, Cow::Borrowed(text)))),
    }
}

/// The key that a variable's name stands for.
fn path_of(name: &str) -> Option<Vec<String>> {
    match name.strip_prefix(PREFIX) {
        Some(rest) => Some(rest.split("__").map(str::to_lowercase).collect()),
        None => {
            let (_, key) = PLAIN.iter().find(|(plain, _)| *plain == name)?;
            Some(vec![(*key).to_owned()])
        }
    }
}

/// What a file holds, without the newline that editors end it with.
fn from_file<'a>(name: &str, path: &[String], file: &str) -> Result<Cow<'a, str>, SettingsError> {
    let told = |problem: String| SettingsError::Value {
        key: path.join("."),
        origin: name.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(file).map_err(|error| told(format!("cannot read {file}: {error}")))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(told(format!("{file} is empty"))),
        value => Ok(Cow::Owned(value.to_owned())),
    }
}

/// What `path` leads to.
pub(super) fn find<'a>(values: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    let value = values.get(first)?;
    if rest.is_empty() {
        Some(value)
    } else {
        find(value.as_dict()?, rest)
    }
}

/// Text becomes a list where the defaults have one; the rest is read as its type demands.
fn value_of(text: &str, default: Option<&Value>) -> Value {
    match default {
        Some(Value::Array(..)) => {
            let inner = text
                .trim()
                .strip_prefix('[')
                .and_then(|text| text.strip_suffix(']'))
                .unwrap_or(text);
            let parts = inner
                .split(',')
                .map(|part| part.trim().trim_matches('"'))
                .filter(|part| !part.is_empty());
            Value::Array(Tag::Default, parts.map(Value::from).collect())
        }
        Some(Value::Dict(..)) => yaml_serde::from_str(text).unwrap_or_else(|_| Value::from(text)),
        _ => Value::from(text),
    }
}

/// Puts `value` at `path`; `false` when something else already stands on the way.
fn insert(values: &mut Dict, path: &[String], value: Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    if rest.is_empty() {
        return !matches!(values.insert(first.clone(), value), Some(Value::Dict(..)));
    }
    let below = values
        .entry(first.clone())
        .or_insert_with(|| Value::from(Dict::new()));
    match below {
        Value::Dict(_, below) => insert(below, rest, value),
        _ => false,
    }
}

/// Without the keys that have no value.
pub(super) fn without_empty(values: Dict) -> Dict {
    let kept = values.into_iter().filter_map(|(key, value)| match value {
        Value::Empty(..) => None,
        Value::Dict(tag, below) => Some((key, Value::Dict(tag, without_empty(below)))),
        other => Some((key, other)),
    });
    kept.collect()
}
