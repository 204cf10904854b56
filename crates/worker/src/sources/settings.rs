//! How sources are set.

use super::Kind;
use chassis::settings::Invalid;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use url::Url;

/// The sources by name: small letters, digits, `-` and single `_`, at most 40 characters.
///
/// In the names of environment variables `__` goes one level down and everything is in capitals, so
/// `DEVOPS_MCP__SOURCES__METRICS__GRANTS__ACME__MATCHERS__TENANT_ID=acme` sets `sources.metrics.grants.acme.matchers.tenant_id`.
/// What has capitals in it (a tenant's name, a label) cannot be written so; then one variable takes all sources as JSON or
/// YAML: `DEVOPS_MCP__SOURCES={"metrics": {…}}`.
pub type Settings = BTreeMap<String, Source>;

/// The most that a source may be allowed to answer; see [`super::room`].
const MAX_RESPONSE_BYTES: usize = 8 << 20;

/// One source.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What it is.
    pub kind: Kind,
    /// Where it is: `http` or `https`, with a path where it has one; `postgres` and `redis` (`rediss`) for those kinds.
    /// Without an address it is not there, whatever else is set.
    #[serde(default)]
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
    /// Whether it keeps tenants apart by that header, as Mimir, Thanos, Loki and Tempo do where they are set so. What
    /// does not know the header answers all the same, and with everything.
    #[serde(default)]
    pub multi_tenant: bool,
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

/// What one tenant sees of a source. At least one of `matchers` and `credentials`, or `org_id` where the source is
/// `multi_tenant`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grant {
    /// Labels, and the value of each: what has others is not seen. For traces these are attributes of spans.
    pub matchers: BTreeMap<String, String>,
    /// `X-Scope-OrgID` of its own. Alone it keeps nothing apart unless the source is `multi_tenant`.
    pub org_id: Option<String>,
    /// Credentials of its own. Without them the source's, if `matchers` or the source by its `org_id` keep it apart.
    pub credentials: Credentials,
    /// A certificate of its own; without it the source's, in the same way. Without a `ca`, always the source's.
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

impl Credentials {
    /// The files that are read.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.bearer_file, &self.password_file];
        files.into_iter().filter_map(|file| file.as_deref())
    }

    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let bearer = self.bearer.is_some() || self.bearer_file.is_some();
        let basic = self.username.is_some() || self.password.is_some() || self.password_file.is_some();
        let twice = (self.bearer.is_some() && self.bearer_file.is_some())
            || (self.password.is_some() && self.password_file.is_some());
        expect(
            !(twice || bearer && basic),
            key,
            "one of bearer, bearer_file, or username with a password",
        )?;
        let user = self.username.as_deref();
        expect(
            !user.is_some_and(|user| user.contains(':')),
            format!("{key}.username"),
            "a name without a colon",
        )
    }
}

impl Source {
    /// As a grant shows it: what the grant has of its own in place of the source's, and no grants.
    pub(super) fn granted(&self, grant: Option<&Grant>) -> Self {
        let mut source = Self {
            grants: BTreeMap::new(),
            ..self.clone()
        };
        let Some(grant) = grant else { return source };
        // Where nothing but what the source is shown keeps tenants apart, it is not shown anything of the installation's.
        if self.kind.speaks_http() && grant.matchers.is_empty() && !grant.is_by_header(self) {
            source.org_id = None;
            source.credentials = Credentials::default();
            (source.tls.certificate, source.tls.key) = (None, None);
        }
        if grant.org_id.is_some() {
            source.org_id.clone_from(&grant.org_id);
        }
        if !grant.credentials.is_empty() {
            source.credentials = grant.credentials.clone();
        }
        if grant.tls.ca.is_some() {
            source.tls.ca.clone_from(&grant.tls.ca);
        }
        if grant.tls.certificate.is_some() {
            source.tls.certificate.clone_from(&grant.tls.certificate);
            source.tls.key.clone_from(&grant.tls.key);
        }
        source
    }

    /// Whether it is there.
    pub(super) fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let (schemes, example): (&[&str], _) = match self.kind {
            Kind::Postgresql => (
                &["postgres", "postgresql"],
                "an address such as postgres://db:5432/app",
            ),
            Kind::Redis => (&["redis", "rediss"], "an address such as redis://cache:6379"),
            _ => (&["http", "https"], "an address such as http://prometheus:9090"),
        };
        let fits = |text: &str, schemes: &[&str]| {
            Url::parse(text)
                .ok()
                .filter(|url| schemes.contains(&url.scheme()) && url.has_host())
        };
        let url = fits(&self.url, schemes).ok_or_else(|| Invalid::new(format!("{key}.url"), example))?;
        let bare = !self.kind.speaks_http() || (url.query().is_none() && url.fragment().is_none());
        expect(bare, format!("{key}.url"), "an address without a query")?;
        let secret = url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password");
        expect(
            !secret,
            format!("{key}.url"),
            "an address without a password; credentials have a section of their own",
        )?;
        let public = self
            .public_url
            .as_deref()
            .is_none_or(|url| fits(url, &["http", "https"]).is_some());
        expect(
            public,
            format!("{key}.public_url"),
            "an address such as http://localhost:9090",
        )?;
        let time = (Duration::from_millis(100)..=Duration::from_secs(120)).contains(&self.timeout);
        expect(time, format!("{key}.timeout"), "100ms to 2m")?;
        let size = (1024..=MAX_RESPONSE_BYTES).contains(&self.max_response_bytes);
        expect(size, format!("{key}.max_response_bytes"), "1KiB to 8MiB")?;
        validate_org_id(key, self.org_id.as_deref())?;
        self.credentials.validate(&format!("{key}.credentials"))?;
        self.tls.validate(&format!("{key}.tls"))?;
        let of_use = self.platform || !self.grants.is_empty();
        expect(
            of_use,
            format!("{key}.grants"),
            "a grant at least, because platform is false",
        )?;
        let mut grants = self.grants.iter();
        grants.try_for_each(|(tenant, grant)| grant.validate(self, tenant, &format!("{key}.grants.{tenant}")))
    }
}

impl Grant {
    /// Whether the source keeps the tenant apart by the header.
    fn is_by_header(&self, source: &Source) -> bool {
        source.multi_tenant && self.org_id.is_some()
    }

    fn validate(&self, source: &Source, tenant: &str, key: &str) -> Result<(), Invalid> {
        let kind = source.kind;
        expect(
            domain::tenant::check_name(tenant).is_ok(),
            key,
            "the name of a tenant",
        )?;
        validate_org_id(key, self.org_id.as_deref())?;
        self.credentials.validate(&format!("{key}.credentials"))?;
        self.tls.validate(&format!("{key}.tls"))?;
        let own = !self.credentials.is_empty() || self.tls.certificate.is_some();
        if !kind.speaks_http() {
            expect(
                !self.credentials.is_empty(),
                key,
                "credentials of its own: nothing else keeps tenants apart there",
            )?;
            return expect(
                self.matchers.is_empty(),
                format!("{key}.matchers"),
                "nothing: a database has no labels",
            );
        }
        let apart = own || self.is_by_header(source) || !self.matchers.is_empty();
        expect(
            apart,
            key,
            "matchers or credentials of its own, or its org_id at a source that has multi_tenant: true: else it would \
             show everything",
        )?;
        self.matchers.iter().try_for_each(|(name, value)| {
            let key = format!("{key}.matchers.{name}");
            expect(is_label(kind, name), &key, "a label's name")?;
            // What lacks the label would fit an empty value.
            expect(
                !value.is_empty() && !value.contains(char::is_control),
                key,
                "a value",
            )
        })
    }
}

impl Tls {
    fn validate(&self, key: &str) -> Result<(), Invalid> {
        let both = self.certificate.is_some() == self.key.is_some();
        expect(both, key, "certificate and key, or neither")
    }
}

/// Spans' attributes have dots, labels have not.
fn is_label(kind: Kind, name: &str) -> bool {
    let dots = matches!(kind, Kind::Jaeger | Kind::Tempo);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || (dots && c == '.');
    !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn validate_org_id(key: &str, org_id: Option<&str>) -> Result<(), Invalid> {
    let plain = |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic());
    expect(org_id.is_none_or(plain), format!("{key}.org_id"), "an identifier")
}

fn expect(ok: bool, key: impl Into<String>, expected: &str) -> Result<(), Invalid> {
    if ok {
        Ok(())
    } else {
        Err(Invalid::new(key, expected))
    }
}

/// Checks what the types cannot say. Files are not looked at; [`super::Sources::new`] reads them.
///
/// # Errors
/// [`Invalid`] for the first that is wrong.
pub fn validate(sources: &Settings) -> Result<(), Invalid> {
    sources.iter().try_for_each(|(name, source)| {
        let key = format!("sources.{name}");
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
        let fits = (1..=40).contains(&name.len()) && name.chars().all(plain) && !name.contains("__");
        expect(fits, &key, "a name of small letters, digits, `-` and single `_`")?;
        if source.is_set() {
            source.validate(&key)
        } else {
            Ok(())
        }
    })
}

fn yes() -> bool {
    true
}

fn timeout() -> Duration {
    Duration::from_secs(20)
}

fn max_response_bytes() -> usize {
    2 << 20
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
