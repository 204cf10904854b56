//! Tokens and keys of a data directory: made once, kept in a file that only its owner can read.

use crate::servers::write_private;
use anyhow::{Context, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What a run signs in with. The credentials key must stay with the database that it encrypts for.
pub(super) struct Secrets {
    pub(super) admin_token: String,
    pub(super) service_token: String,
    /// `id:base64`, 32 bytes.
    pub(super) credentials_key: String,
    pub(super) postgres_password: String,
    api_keys: Map<String, Value>,
    path: PathBuf,
}

impl Secrets {
    /// Reads the file, making what it lacks.
    pub(super) fn load(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("secrets.json");
        let kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged: delete it, and dev.db beside it", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let or = |name: &str, make: &dyn Fn() -> anyhow::Result<String>| match kept[name].as_str() {
            Some(value) => Ok(value.to_owned()),
            None => make(),
        };
        let secrets = Self {
            admin_token: or("admin_token", &|| Ok(hex(&random::<24>()?)))?,
            service_token: or("service_token", &|| Ok(hex(&random::<24>()?)))?,
            credentials_key: or("credentials_key", &|| {
                Ok(format!("dev:{}", BASE64_STANDARD.encode(random::<32>()?)))
            })?,
            postgres_password: or("postgres_password", &|| Ok(hex(&random::<16>()?)))?,
            api_keys: kept["api_keys"].as_object().cloned().unwrap_or_default(),
            path,
        };
        secrets.save()?;
        Ok(secrets)
    }

    /// The API key of a former run on this database.
    pub(super) fn api_key(&self, database: &str) -> Option<&str> {
        self.api_keys.get(database)?.as_str()
    }

    /// Keeps an API key for the next run on this database.
    pub(super) fn keep_api_key(&mut self, database: &str, key: &str) -> anyhow::Result<()> {
        self.api_keys.insert(database.to_owned(), key.into());
        self.save()
    }

    fn save(&self) -> anyhow::Result<()> {
        let all = json!({
            "admin_token": self.admin_token,
            "service_token": self.service_token,
            "credentials_key": self.credentials_key,
            "postgres_password": self.postgres_password,
            "api_keys": self.api_keys,
        });
        write_private(&self.path, &format!("{all:#}\n"))
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?
        .read_exact(&mut bytes)
        .context("reading /dev/urandom")?;
    ensure!(
        bytes.iter().any(|byte| *byte != 0),
        "/dev/urandom gave nothing but zeros"
    );
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
