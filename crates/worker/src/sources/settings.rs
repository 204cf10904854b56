//! How sources are set.

use super::Kind;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};

/// The sources by name: `[a-z0-9_-]`, at most 40 characters, for a name stands in answers, in metrics and in the names
/// of environment variables, where it is written in capitals.
pub type Settings = BTreeMap<String, Source>;

/// One source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it is.
    pub kind: Kind,
    /// Where it is: `http` or `https`, with a path where it has one; `postgres` and `redis` (`rediss`) for those kinds.
    #[serde(serialize_with = "masked_url")]
    pub url: String,
    /// What links in answers begin with, where people reach it elsewhere.
    #[serde(default)]
    pub public_url: Option<String>,
    /// What it is shown.
    #[serde(default)]
    pub credentials: Credentials,
    /// How its certificate is checked, and what it is shown.
    #[serde(default)]
    pub tls: Tls,
    /// `X-Scope-OrgID`: whose data is asked for, where one source holds that of many.
    #[serde(default)]
    pub org_id: Option<String>,
    /// Whether a key with the scope `platform:observe` sees everything in it. Otherwise only the grants count.
    #[serde(default = "yes")]
    pub platform: bool,
    /// How long one request may take.
    #[serde(default = "timeout", with = "chassis::settings::duration")]
    pub timeout: Duration,
    /// The largest answer, in bytes.
    #[serde(default = "max_response_bytes", with = "chassis::settings::size")]
    pub max_response_bytes: usize,
    /// What tenants see of it, by their names.
    #[serde(default)]
    pub grants: BTreeMap<String, Grant>,
}

/// What one tenant sees of a source. At least one of `matchers`, `org_id` and `credentials`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// Labels, and the value of each: what has others is not seen. For traces these are attributes of spans.
    pub matchers: BTreeMap<String, String>,
    /// `X-Scope-OrgID` of its own.
    pub org_id: Option<String>,
    /// Credentials of its own; without them, the source's.
    pub credentials: Credentials,
    /// Certificates of its own; without them, the source's.
    pub tls: Tls,
}

/// What a source is shown: nothing, a bearer token, or a user's name and password. Files are read for each request, so
/// that secrets can be changed under a running worker.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Credentials {
    /// A bearer token.
    #[serde(serialize_with = "chassis::settings::mask")]
    pub bearer: Option<SecretString>,
    /// A file that holds a bearer token.
    pub bearer_file: Option<PathBuf>,
    /// A user's name.
    pub username: Option<String>,
    /// Its password.
    #[serde(serialize_with = "chassis::settings::mask")]
    pub password: Option<SecretString>,
    /// A file that holds its password.
    pub password_file: Option<PathBuf>,
}

impl Credentials {
    /// Whether nothing is shown.
    pub fn is_empty(&self) -> bool {
        let Self {
            bearer,
            bearer_file,
            username,
            password,
            password_file,
        } = self;
        bearer.is_none()
            && bearer_file.is_none()
            && username.is_none()
            && password.is_none()
            && password_file.is_none()
    }
}

/// TLS with a source. The files are read at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The CA certificates that are believed instead of the system's, as PEM.
    pub ca: Option<PathBuf>,
    /// The certificate that the source is shown, and those between it and the CA, as PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, as PEM.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

fn timeout() -> Duration {
    Duration::from_secs(20)
}

fn max_response_bytes() -> usize {
    8 << 20
}

/// Addresses of databases may hold a password.
fn masked_url<S: serde::Serializer>(url: &String, serializer: S) -> Result<S::Ok, S::Error> {
    chassis::settings::mask_password(&SecretString::from(url.to_owned()), serializer)
}
