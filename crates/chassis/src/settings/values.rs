//! How durations, sizes and secrets are written.

use secrecy::{ExposeSecret, SecretString};
use serde::{
    Serializer,
    de::{self, Unexpected, Visitor},
};
use std::fmt;

/// What stands in the place of a secret when settings are printed.
pub(super) const MASK: &str = "***";

/// A secret, or perhaps one.
pub trait MaybeSecret {
    /// Whether there is one.
    fn is_set(&self) -> bool;
}

impl MaybeSecret for SecretString {
    fn is_set(&self) -> bool {
        true
    }
}

impl MaybeSecret for Option<SecretString> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

/// `#[serde(serialize_with = "chassis::settings::mask")]` on a `SecretString` or `Option<SecretString>`.
///
/// # Errors
/// Those of the serializer.
pub fn mask<S: Serializer>(secret: &impl MaybeSecret, serializer: S) -> Result<S::Ok, S::Error> {
    if secret.is_set() {
        serializer.serialize_some(MASK)
    } else {
        serializer.serialize_none()
    }
}

/// `#[serde(serialize_with = "chassis::settings::mask_password")]` on a `SecretString` that is an address: only the
/// password within it is masked.
///
/// # Errors
/// Those of the serializer.
pub fn mask_password<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    let address = secret.expose_secret();
    match without_password(address) {
        Some(masked) => serializer.serialize_str(&masked),
        None => serializer.serialize_str(address),
    }
}

/// `scheme://user:***@host` for an address with a password.
pub(super) fn without_password(text: &str) -> Option<String> {
    let start = text.find("://")? + 3;
    let end = text[start..]
        .find(['/', '?', '#'])
        .map_or(text.len(), |length| start + length);
    let at = start + text[start..end].rfind('@')?;
    let colon = start + text[start..at].find(':')?;
    Some(format!("{}:{MASK}{}", &text[..colon], &text[at..]))
}

/// `#[serde(with = "chassis::settings::duration")]` on a `Duration`: `250ms`, `5s`, `1h 30m`.
pub mod duration {
    use serde::{Deserializer, Serializer};
    use std::time::Duration;

    /// As text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// From text.
    ///
    /// # Errors
    /// When it is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_str(super::DurationVisitor)
    }
}

/// `#[serde(with = "chassis::settings::duration_option")]` on an `Option<Duration>`.
pub mod duration_option {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "super::duration")] Duration);

    /// As text, or nothing.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::duration::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// From text, or nothing.
    ///
    /// # Errors
    /// When it is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

struct DurationVisitor;

impl Visitor<'_> for DurationVisitor {
    type Value = std::time::Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 250ms, 5s or 10m")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        humantime::parse_duration(text).map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// `#[serde(with = "chassis::settings::size")]` on a `usize` or `u64` of bytes: `1048576`, `64KiB`, `1MiB`.
pub mod size {
    use serde::{Deserializer, Serializer, de::Error};

    /// As a number with the largest unit that fits it exactly.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer, N: TryInto<u64> + Copy>(
        bytes: &N,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let bytes: u64 = (*bytes).try_into().unwrap_or(u64::MAX);
        match super::UNITS
            .iter()
            .find(|(_, factor)| *factor > 1 && bytes > 0 && bytes.is_multiple_of(*factor))
        {
            Some((unit, factor)) => serializer.collect_str(&format_args!("{}{unit}", bytes / factor)),
            None => serializer.serialize_u64(bytes),
        }
    }

    /// From a number or text.
    ///
    /// # Errors
    /// When it is no size, or too large for the type.
    pub fn deserialize<'de, D: Deserializer<'de>, N: TryFrom<u64>>(deserializer: D) -> Result<N, D::Error> {
        let bytes = deserializer.deserialize_any(super::SizeVisitor)?;
        N::try_from(bytes).map_err(|_| D::Error::custom(format_args!("{bytes} bytes are too many")))
    }
}

/// Largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a size such as 64KiB or 1MiB")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
        Ok(bytes)
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<u64, E> {
        u64::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
        let trimmed = text.trim();
        let (number, factor) = UNITS
            .iter()
            .find_map(|(unit, factor)| trimmed.strip_suffix(unit).map(|number| (number, *factor)))
            .unwrap_or((trimmed, 1));
        let bytes = number
            .trim_end()
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor));
        bytes.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}
