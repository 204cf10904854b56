//! API keys: their secrets and their records.
//!
//! A secret is `dmcp_` + 36 random letters and digits (214 bits) + a checksum of 6, so that a scanner can
//! recognise one and a typing mistake is told apart from a wrong key without a look into the database.
//! Only its SHA-256 is ever stored: with that much entropy a slow hash would add cost and no safety.

use crate::{ApiKeyId, Invalid, Scopes, TenantId, Time, ToolRules, validate};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};
use std::fmt;
use subtle::ConstantTimeEq;

/// What every secret begins with.
pub const PREFIX: &str = "dmcp_";
/// How many characters of a secret may be shown to recognise it by, [`PREFIX`] included.
pub const SHOWN: usize = 12;

const RANDOM: usize = 36;
const CHECKSUM: usize = 6;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A secret in clear: shown once, then forgotten. It does not print itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The secret's SHA-256, as it is stored and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

/// Text that cannot be one of our secrets: wrong prefix, length or checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed API key")]
pub struct Malformed;

impl Secret {
    /// A new random secret.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn generate() -> Self {
        let rng = SystemRandom::new();
        let mut body = String::with_capacity(PREFIX.len() + RANDOM + CHECKSUM);
        body.push_str(PREFIX);
        let mut bytes = [0_u8; 64];
        while body.len() < PREFIX.len() + RANDOM {
            rng.fill(&mut bytes)
                .expect("the operating system gives randomness");
            // 248 is the greatest multiple of 62 below 256: larger bytes would favour the first characters.
            let fair = bytes
                .iter()
                .filter(|b| **b < 248)
                .map(|b| char::from(ALPHABET[usize::from(b % 62)]));
            body.extend(fair.take(PREFIX.len() + RANDOM - body.len()));
        }
        let sum = checksum(&body);
        body.push_str(&sum);
        Self(body)
    }

    /// Takes what a caller sent.
    ///
    /// # Errors
    /// [`Malformed`] when prefix, length, alphabet or checksum are not a secret's.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let rest = text.strip_prefix(PREFIX).ok_or(Malformed)?;
        if rest.len() != RANDOM + CHECKSUM || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Malformed);
        }
        let (body, sum) = text.split_at(PREFIX.len() + RANDOM);
        if checksum(body) == sum {
            Ok(Self(text.to_owned()))
        } else {
            Err(Malformed)
        }
    }

    /// What is stored in its place.
    pub fn hash(&self) -> SecretHash {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, self.0.as_bytes()).as_ref());
        SecretHash(out)
    }

    /// The first characters, by which a person recognises the key.
    pub fn shown(&self) -> &str {
        &self.0[..SHOWN]
    }

    /// The secret itself, for the one answer that shows it and for calls made in its name.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}…)", self.shown())
    }
}

impl SecretHash {
    /// Compares in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

fn checksum(body: &str) -> String {
    let mut sum = crc32fast::hash(body.as_bytes());
    let mut out = [b'0'; CHECKSUM];
    for place in out.iter_mut().rev() {
        *place = ALPHABET[(sum % 62) as usize];
        sum /= 62;
    }
    out.iter().map(|b| char::from(*b)).collect()
}

/// A key's record: everything but the secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Identifier.
    pub id: ApiKeyId,
    /// Whose key it is.
    pub tenant_id: TenantId,
    /// A person's name for it.
    pub name: String,
    /// The secret's first characters.
    pub prefix: String,
    /// What it may do.
    pub scopes: Scopes,
    /// Which tools it may see and call, and with which arguments.
    #[serde(default)]
    pub tools: ToolRules,
    /// When it was made.
    pub created_at: Time,
    /// When it was last accepted, to the minute.
    pub last_used_at: Option<Time>,
    /// From when on it is refused.
    pub expires_at: Option<Time>,
    /// Since when it is refused for good.
    pub revoked_at: Option<Time>,
}

impl ApiKey {
    /// Whether the key is accepted at `now`.
    pub fn is_active(&self, now: Time) -> bool {
        self.revoked_at.is_none_or(|t| t > now) && self.expires_at.is_none_or(|t| t > now)
    }
}

/// Checks a key's name: 1 to 100 characters.
///
/// # Errors
/// When it is empty or too long.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    validate::text("name", name, 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_survives_the_round_trip_and_hides_itself() {
        let secret = Secret::generate();
        let again = Secret::parse(secret.expose()).unwrap();
        assert!(secret.hash().matches(&again.hash()));
        assert_ne!(secret, Secret::generate());
        assert!(!format!("{secret:?}").contains(secret.expose()));
        assert!(secret.shown().starts_with(PREFIX) && secret.shown().len() == SHOWN);
    }

    #[test]
    fn a_mistyped_secret_is_told_by_its_checksum() {
        let secret = Secret::generate();
        let flipped = if secret.expose().ends_with('0') { "1" } else { "0" };
        let typo = format!("{}{flipped}", &secret.expose()[..secret.expose().len() - 1]);
        for bad in [
            "",
            "dmcp_",
            &typo,
            "sk_live_1234",
            &secret.expose()[1..],
            "dmcp_ä",
        ] {
            assert_eq!(Secret::parse(bad), Err(Malformed), "{bad}");
        }
    }
}
