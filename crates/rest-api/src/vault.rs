//! Seals tools' credentials: AES-256-GCM under named keys, of which the first seals and all open.

use crate::{
    error::{Error, Result},
    settings::Credentials as Settings,
    store::SealedCredentials,
};
use anyhow::{Context as _, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::tool::Credentials;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};

/// Holds the credentials keys; the only part of the product that does.
pub struct Vault {
    keys: Vec<(String, LessSafeKey)>,
    random: SystemRandom,
}

impl Vault {
    /// Reads the keys from the settings or from the file that they name.
    ///
    /// # Errors
    /// When a key is not `name:base64` of 32 bytes, or a name stands twice.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let text = match (&settings.keys, &settings.keys_file) {
            (Some(keys), _) => Some(keys.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("credentials.keys_file {}", path.display()))?;
                Some(SecretString::from(text))
            }
            (None, None) => None,
        };
        let mut keys: Vec<(String, LessSafeKey)> = Vec::new();
        let text = text.as_ref().map_or("", |t| t.expose_secret());
        for entry in text.split([',', '\n']).map(str::trim).filter(|e| !e.is_empty()) {
            let (name, key) = entry
                .split_once(':')
                .context("credentials.keys: expected name:base64")?;
            if keys.iter().any(|(known, _)| known == name) {
                bail!("credentials.keys: the name {name} stands twice");
            }
            keys.push((name.to_owned(), parse(name, key)?));
        }
        Ok(Self {
            keys,
            random: SystemRandom::new(),
        })
    }

    /// The name of the key that seals; `None` when none is configured.
    pub fn current(&self) -> Option<&str> {
        self.keys.first().map(|(name, _)| name.as_str())
    }

    /// Seals credentials.
    ///
    /// # Errors
    /// [`Error::NoCredentialsKey`].
    pub fn seal(&self, credentials: &Credentials) -> Result<SealedCredentials> {
        let text = serde_json::to_vec(credentials).map_err(|e| Error::Internal(e.into()))?;
        self.seal_bytes(text)
    }

    /// Seals again under the current key what was sealed under an older one.
    ///
    /// # Errors
    /// When the older key is not here any more.
    pub fn reseal(&self, sealed: &SealedCredentials) -> Result<SealedCredentials> {
        self.seal_bytes(self.unseal_bytes(sealed)?)
    }

    /// Opens credentials, as JSON text for the worker.
    ///
    /// # Errors
    /// When their key is not configured, or they were tampered with.
    pub fn unseal(&self, sealed: &SealedCredentials) -> Result<String> {
        let bytes = self.unseal_bytes(sealed)?;
        String::from_utf8(bytes)
            .map_err(|_| Error::Internal(anyhow::anyhow!("sealed credentials are no text")))
    }

    fn seal_bytes(&self, mut text: Vec<u8>) -> Result<SealedCredentials> {
        let (name, key) = self.keys.first().ok_or(Error::NoCredentialsKey)?;
        let mut nonce = [0; NONCE_LEN];
        self.random
            .fill(&mut nonce)
            .map_err(|_| Error::Internal(anyhow::anyhow!("no randomness")))?;
        key.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name.as_bytes()),
            &mut text,
        )
        .map_err(|_| Error::Internal(anyhow::anyhow!("credentials could not be sealed")))?;
        let mut sealed = nonce.to_vec();
        sealed.append(&mut text);
        Ok(SealedCredentials {
            key_id: name.clone(),
            sealed,
        })
    }

    fn unseal_bytes(&self, sealed: &SealedCredentials) -> Result<Vec<u8>> {
        let missing = || {
            Error::Internal(anyhow::anyhow!(
                "the credentials key '{}' is not configured",
                sealed.key_id
            ))
        };
        let (name, key) = self
            .keys
            .iter()
            .find(|(name, _)| *name == sealed.key_id)
            .ok_or_else(missing)?;
        let broken = || Error::Internal(anyhow::anyhow!("sealed credentials do not open"));
        let (nonce, text) = sealed.sealed.split_at_checked(NONCE_LEN).ok_or_else(broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
        let mut text = text.to_vec();
        let length = key
            .open_in_place(nonce, Aad::from(name.as_bytes()), &mut text)
            .map_err(|_| broken())?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

fn parse(name: &str, key: &str) -> anyhow::Result<LessSafeKey> {
    let bytes = STANDARD
        .decode(key.trim())
        .with_context(|| format!("credentials.keys: {name} is not base64"))?;
    ensure!(
        bytes.len() == 32,
        "credentials.keys: {name} has {} bytes, expected 32",
        bytes.len()
    );
    let key = UnboundKey::new(&AES_256_GCM, &bytes)
        .map_err(|_| anyhow::anyhow!("credentials.keys: {name} is no key"))?;
    Ok(LessSafeKey::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(keys: &str) -> anyhow::Result<Vault> {
        Vault::open(&Settings {
            keys: Some(keys.to_owned().into()),
            keys_file: None,
        })
    }

    #[test]
    fn credentials_move_from_key_to_key() {
        let (a, b) = (
            format!("a:{}", STANDARD.encode([1; 32])),
            format!("b:{}", STANDARD.encode([2; 32])),
        );
        let credentials = Credentials::Bearer { token: "hush".into() };
        let old = vault(&a).unwrap().seal(&credentials).unwrap();
        assert_eq!(old.key_id, "a");
        assert!(!String::from_utf8_lossy(&old.sealed).contains("hush"));
        let both = vault(&format!("{b}\n{a}\n")).unwrap();
        let new = both.reseal(&old).unwrap();
        assert_eq!(new.key_id, "b");
        assert!(vault(&b).unwrap().unseal(&new).unwrap().contains("hush"));
        assert!(vault(&b).unwrap().unseal(&old).is_err());
        let mut broken = new;
        broken.sealed[14] ^= 1;
        assert!(both.unseal(&broken).is_err());
    }

    #[test]
    fn bad_keys_are_told_at_start() {
        for bad in [
            "nocolon",
            "a:!!!",
            "a:c2hvcnQ=",
            &format!("a:{0},a:{0}", STANDARD.encode([1; 32])),
        ] {
            assert!(vault(bad).is_err(), "{bad}");
        }
        assert!(
            vault("")
                .unwrap()
                .seal(&Credentials::Bearer { token: "x".into() })
                .is_err()
        );
    }
}
