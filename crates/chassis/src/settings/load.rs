use super::{
    Configuration, Invalid, Settings,
    sources::{Source, without_empty},
    values::MASK,
};
use figment::{
    Figment,
    error::Kind,
    providers::Serialized,
    value::{Dict, Value},
};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings file {file}: {problem}")]
    Unreadable {
        /// Its path.
        file: String,
        /// What the system said.
        problem: std::io::Error,
    },
    /// The file is no YAML.
    #[error("{file} is not valid YAML: {problem}")]
    Syntax {
        /// Its path.
        file: String,
        /// Where, and why.
        problem: String,
    },
    /// A key that means nothing.
    #[error("unknown setting {key} (from {origin}); expected {expected}")]
    Unknown {
        /// The key, in dots.
        key: String,
        /// The file or the variable.
        origin: String,
        /// What stands there otherwise.
        expected: String,
    },
    /// A value that cannot be.
    #[error("setting {key} (from {origin}): {problem}")]
    Value {
        /// The key, in dots.
        key: String,
        /// The file or the variable.
        origin: String,
        /// What was expected.
        problem: String,
    },
}

/// Loads a service's settings: its defaults, then `config` (or `./config.yaml` where there is one), then the environment.
///
/// # Errors
/// [`SettingsError`] for the first thing that is wrong.
pub fn load<S: Settings>(config: Option<&Path>) -> Result<Configuration<S>, SettingsError> {
    let default = Path::new("config.yaml");
    let path = config.or_else(|| default.exists().then_some(default));
    let file = match path {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|problem| SettingsError::Unreadable {
                file: path.display().to_string(),
                problem,
            })?;
            Some(Source::file(path, &text)?)
        }
    };
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    combine(file, variables)
}

/// Loads a service's settings as it would with these variables and no file: for checks of an environment that is not ours.
///
/// # Errors
/// [`SettingsError`] for the first thing that is wrong.
pub fn from_variables<S: Settings>(
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Configuration<S>, SettingsError> {
    combine(None, variables)
}

fn combine<S: Settings>(
    file: Option<Source>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<Configuration<S>, SettingsError> {
    let defaults = Configuration::<S>::defaults();
    let common = dict_of(&defaults.common);
    let service = dict_of(&defaults.service);
    let mut shape = service.clone();
    shape.extend(common.clone());
    let environment = Source::environment(variables, &shape)?;
    let sources: Vec<Source> = file.into_iter().chain([environment]).collect();

    for source in &sources {
        refuse_unknown_sections(source, &shape)?;
    }
    let configuration = Configuration {
        common: extract(without_masked(common.clone()), &sources, |key| {
            common.contains_key(key)
        })?,
        service: extract(without_masked(service), &sources, |key| !common.contains_key(key))?,
    };
    validate(&configuration).map_err(|invalid| {
        let path: Vec<String> = invalid.key.split('.').map(str::to_owned).collect();
        let problem = format!("expected {}", invalid.expected);
        SettingsError::Value {
            key: invalid.key,
            origin: origin(&sources, &path),
            problem,
        }
    })?;
    Ok(configuration)
}

fn validate<S: Settings>(configuration: &Configuration<S>) -> Result<(), Invalid> {
    configuration.common.validate()?;
    configuration.service.validate(&configuration.common)
}

/// Settings as values. Their types serialize to maps; `()` to nothing.
fn dict_of(settings: &impl serde::Serialize) -> Dict {
    match Value::serialize(settings) {
        Ok(Value::Dict(_, dict)) => dict,
        _ => Dict::new(),
    }
}

/// Defaults as a source: without the keys that have no value, and without masked secrets. Those come from the types'
/// own defaults.
fn without_masked(defaults: Dict) -> Dict {
    let kept = without_empty(defaults)
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(_, text) if text.contains(MASK) => None,
            Value::Dict(tag, below) => Some((key, Value::Dict(tag, without_masked(below)))),
            other => Some((key, other)),
        });
    kept.collect()
}

/// Sections of both kinds stand side by side, so neither type can refuse what belongs to none.
fn refuse_unknown_sections(source: &Source, shape: &Dict) -> Result<(), SettingsError> {
    let Some((key, value)) = source.values.iter().find(|(key, _)| !shape.contains_key(*key)) else {
        return Ok(());
    };
    let mut path = vec![key.clone()];
    // A variable names a leaf: say all of it.
    let mut below = value;
    while let Some((key, value)) = below
        .as_dict()
        .filter(|dict| dict.len() == 1)
        .and_then(|dict| dict.iter().next())
    {
        path.push(key.clone());
        below = value;
    }
    let expected = one_of(shape.keys().map(String::as_str));
    Err(SettingsError::Unknown {
        origin: source.origin(&path).unwrap_or_default(),
        key: path.join("."),
        expected,
    })
}

fn extract<T: DeserializeOwned>(
    defaults: Dict,
    sources: &[Source],
    belongs: impl Fn(&str) -> bool,
) -> Result<T, SettingsError> {
    let mut figment = Figment::from(Serialized::defaults(defaults));
    for source in sources {
        let values: Dict = source
            .values
            .iter()
            .filter(|(key, _)| belongs(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        figment = figment.merge(Serialized::defaults(values));
    }
    // Lossy: what comes from the environment is text and is read as the type demands.
    figment.extract_lossy().map_err(|error| explain(error, sources))
}

fn explain(error: figment::Error, sources: &[Source]) -> SettingsError {
    let path = error.path;
    if let Kind::UnknownField(_, expected) = &error.kind {
        return SettingsError::Unknown {
            origin: origin(sources, &path),
            key: path.join("."),
            expected: one_of(expected.iter().copied()),
        };
    }
    let secret = path.last().is_some_and(|key| super::print::is_secret(key));
    let problem = match &error.kind {
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if secret => {
            format!("expected {expected}")
        }
        Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
            format!("expected {expected}, found {found}")
        }
        Kind::UnknownVariant(found, expected) => {
            format!("expected {}, found `{found}`", one_of(expected.iter().copied()))
        }
        Kind::Message(message) => expectation(message),
        other => other.to_string(),
    };
    SettingsError::Value {
        origin: origin(sources, &path),
        key: path.join("."),
        problem,
    }
}

/// The standard library does not say what an address looks like.
fn expectation(message: &str) -> String {
    match message {
        "invalid socket address syntax" => "expected an address such as 127.0.0.1:8080".into(),
        other => other.into(),
    }
}

/// Where `path` was last set, or the nearest thing around it.
fn origin(sources: &[Source], path: &[String]) -> String {
    (1..=path.len())
        .rev()
        .find_map(|length| {
            sources
                .iter()
                .rev()
                .find_map(|source| source.origin(&path[..length]))
        })
        .unwrap_or_else(|| "the defaults".into())
}

fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => "nothing here".into(),
        [only] => (*only).into(),
        _ => format!("one of {}", names.join(", ")),
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
