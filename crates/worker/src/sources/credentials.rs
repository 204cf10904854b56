//! What sources are shown.

use super::settings::Credentials;
use crate::outcome::{Code, Failure};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use std::path::Path;

/// The largest file that is read as a secret, in bytes.
const MAX_BYTES: u64 = 64 << 10;

impl Credentials {
    /// The `Authorization` header; nothing where nothing is shown. Files are read anew.
    ///
    /// # Errors
    /// [`Code::SourceUnavailable`] when a file cannot be read. It names neither the file nor what is in it, for tenants
    /// see it; the log has more.
    pub async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        let bearer = either(self.bearer.as_ref(), self.bearer_file.as_deref()).await?;
        let text = match (bearer, &self.username) {
            (Some(bearer), _) => format!("Bearer {}", bearer.expose_secret()),
            (None, Some(username)) => {
                let password = self.password().await?;
                let password = password.as_ref().map_or("", |password| password.expose_secret());
                format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(format!("{username}:{password}"))
                )
            }
            (None, None) => return Ok(None),
        };
        let mut header = HeaderValue::from_str(&text).map_err(|_| unusable())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }

    /// The password, wherever it stands; nothing where none is set.
    ///
    /// # Errors
    /// As [`Self::authorization`].
    pub async fn password(&self) -> Result<Option<SecretString>, Failure> {
        either(self.password.as_ref(), self.password_file.as_deref()).await
    }
}

async fn either(inline: Option<&SecretString>, file: Option<&Path>) -> Result<Option<SecretString>, Failure> {
    match (inline, file) {
        (Some(inline), _) => Ok(Some(inline.clone())),
        (None, None) => Ok(None),
        (None, Some(file)) => {
            let read = read(file).await;
            let secret = read.inspect_err(|error| {
                tracing::warn!(file = %file.display(), %error, "a source's credentials cannot be read");
            });
            secret.map(Some).map_err(|_| unusable())
        }
    }
}

async fn read(file: &Path) -> std::io::Result<SecretString> {
    let size = tokio::fs::metadata(file).await?.len();
    if size > MAX_BYTES {
        return Err(std::io::Error::other(format!("it has {size} bytes")));
    }
    let text = tokio::fs::read_to_string(file).await?;
    Ok(text.trim_end_matches(['\r', '\n']).into())
}

fn unusable() -> Failure {
    Failure::new(
        Code::SourceUnavailable,
        "the credentials for the source cannot be read; its operator must act",
    )
}
