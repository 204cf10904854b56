use super::{
    Configuration, Settings,
    values::{MASK, without_password},
};
use yaml_serde::{Mapping, Value};

/// The effective settings as YAML that [`super::load()`] could read, but for the secrets, which are masked.
///
/// # Errors
/// When a service's settings cannot be written as YAML.
pub fn print<S: Settings>(configuration: &Configuration<S>) -> Result<String, yaml_serde::Error> {
    let mut all = Mapping::new();
    for part in [
        yaml_serde::to_value(&configuration.common)?,
        yaml_serde::to_value(&configuration.service)?,
    ] {
        if let Value::Mapping(part) = part {
            all.extend(part);
        }
    }
    let mut all = Value::Mapping(all);
    mask_secrets(&mut all, "");
    yaml_serde::to_string(&all)
}

/// Whether a key's name says that its value is not for everyone's eyes.
pub(super) fn is_secret(key: &str) -> bool {
    ["token", "secret", "password", "credentials_key"]
        .iter()
        .any(|word| key.ends_with(word))
}

/// Types mask their own secrets; this also catches what a type forgot, and passwords within addresses.
fn mask_secrets(value: &mut Value, key: &str) {
    match value {
        Value::String(text) if is_secret(key) && !text.is_empty() => MASK.clone_into(text),
        Value::String(text) => {
            if let Some(masked) = without_password(text) {
                *text = masked;
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| mask_secrets(item, key)),
        Value::Mapping(map) => {
            for (key, value) in map.iter_mut() {
                mask_secrets(value, key.as_str().unwrap_or_default());
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_masked() {
        assert_eq!(
            without_password("postgres://app:p@ss@db:5432/app?sslmode=require").as_deref(),
            Some("postgres://app:***@db:5432/app?sslmode=require")
        );
        assert_eq!(
            without_password("redis://:hunter2@cache").as_deref(),
            Some("redis://:***@cache")
        );
        assert_eq!(without_password("http://user@host/a:b@c"), None);
        assert_eq!(without_password("sqlite://data.db"), None);
    }
}
