//! The configuration: what every service has ([`Common`]) and what it adds ([`Settings`]).
//!
//! Later wins: the service's defaults, the YAML file, the environment. Whatever is wrong is said before any socket
//! opens, with the key, where it stands and what was expected.

mod load;
mod print;
mod sources;
mod tls;
mod values;

pub use crate::faults::Fault;
pub use load::{SettingsError, from_variables, load};
pub use print::print;
pub use tls::{Files, Tls};
pub use values::{duration, duration_option, mask, mask_password, size};

use secrecy::SecretString;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// The sections that are a service's own. `#[serde(default, deny_unknown_fields)]` stands on the type and on all that is nested in it.
pub trait Settings: Serialize + DeserializeOwned + Default + Clone + Send + 'static {
    /// This service's defaults for what all services have.
    fn common() -> Common {
        Common::default()
    }

    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// [`Invalid`] names the key and what was expected.
    fn validate(&self, common: &Common) -> Result<(), Invalid> {
        let _ = common;
        Ok(())
    }
}

/// For a program that adds nothing.
impl Settings for () {}

/// A value that has the right type and still cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}")]
pub struct Invalid {
    pub(crate) key: String,
    pub(crate) expected: String,
}

impl Invalid {
    /// `key` in dots (`limits.item_bytes`), and what was expected there.
    pub fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
        }
    }
}

/// All settings of a service.
#[derive(Clone, Debug, Default)]
pub struct Configuration<S> {
    /// What every service has.
    pub common: Common,
    /// What this one adds.
    pub service: S,
}

impl<S: Settings> Configuration<S> {
    /// The service's defaults.
    pub fn defaults() -> Self {
        Self {
            common: S::common(),
            service: S::default(),
        }
    }
}

/// What every service has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Common {
    /// Where this runs (`development`, `staging`, `production`): stands in every log line and on every trace.
    pub environment: String,
    /// The HTTP server.
    pub http: Http,
    /// The gRPC server.
    pub grpc: Grpc,
    /// Opens `/admin` and `/debug`; without it they are closed. Also read from `ADMIN_TOKEN`.
    #[serde(serialize_with = "mask")]
    pub admin_token: Option<SecretString>,
    /// What the services show each other. Also read from `SERVICE_TOKEN`.
    #[serde(serialize_with = "mask")]
    pub service_token: Option<SecretString>,
    /// Gets `{"http": "127.0.0.1:8080", "grpc": null}` once the service is ready; for whoever starts it on port 0.
    pub ready_file: Option<PathBuf>,
    /// How the service ends.
    pub shutdown: Shutdown,
    /// Logs, metrics and traces.
    pub monitoring: telemetry::Settings,
    /// Faults to plant on purpose, for tests of what finds them or stands them: `leak`, `blocking_call`, `busy_call`,
    /// `slow_query`, `next_migration`, `failing_migration`. Refused in production.
    pub test_faults: Vec<Fault>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            environment: "development".into(),
            http: Http::default(),
            grpc: Grpc::default(),
            admin_token: None,
            service_token: None,
            ready_file: None,
            shutdown: Shutdown::default(),
            monitoring: telemetry::Settings::default(),
            test_faults: Vec::new(),
        }
    }
}

impl Common {
    /// The defaults, with these ports on the loopback interface. Whoever serves others says so by `http.address`.
    pub fn listening(http: u16, grpc: Option<u16>) -> Self {
        let mut common = Self::default();
        common.http.address = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
        common.grpc.address = grpc.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        common
    }

    fn validate(&self) -> Result<(), Invalid> {
        let positive = [
            ("http.request_timeout", self.http.request_timeout),
            ("http.header_read_timeout", self.http.header_read_timeout),
            ("http.max_connection_age", self.http.max_connection_age),
            ("grpc.max_connection_age", self.grpc.max_connection_age),
            ("shutdown.timeout", self.shutdown.timeout),
        ];
        for (key, duration) in positive {
            if duration.is_zero() {
                return Err(Invalid::new(key, "a duration above zero"));
            }
        }
        let counts = [
            ("http.max_body_bytes", self.http.max_body_bytes),
            ("http.max_connections", self.http.max_connections),
            ("http.max_in_flight", self.http.max_in_flight),
        ];
        for (key, count) in counts {
            if count == 0 {
                return Err(Invalid::new(key, "a number above zero"));
            }
        }
        if self.environment.is_empty() {
            return Err(Invalid::new(
                "environment",
                "a word such as development or production",
            ));
        }
        if !self.test_faults.is_empty() && self.is_production() {
            return Err(Invalid::new(
                "test_faults",
                "nothing where the environment is production: these faults are for tests",
            ));
        }
        self.grpc.tls.validate()?;
        self.monitoring
            .validate()
            .map_err(|invalid| Invalid::new(invalid.key, invalid.expected))
    }
}

impl Common {
    /// Whether this is production, however it is written: `Production`, `prod`, `prod-eu`.
    fn is_production(&self) -> bool {
        self.environment
            .split(|c: char| !c.is_alphanumeric())
            .any(|word| {
                ["production", "prod", "prd", "live"]
                    .iter()
                    .any(|known| word.eq_ignore_ascii_case(known))
            })
    }
}

/// The HTTP server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// The largest request body, in bytes (`2MiB`).
    #[serde(with = "size")]
    pub max_body_bytes: usize,
    /// How long a request may take until its response begins.
    #[serde(with = "duration")]
    pub request_timeout: Duration,
    /// How long a client may take to send a request's headers; also how long an idle connection is kept.
    #[serde(with = "duration")]
    pub header_read_timeout: Duration,
    /// After this, give or take a tenth, a connection closes with its next answer, so that load reaches new replicas.
    #[serde(with = "duration")]
    pub max_connection_age: Duration,
    /// Connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// Requests at a time; further ones get 503.
    pub max_in_flight: usize,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            max_body_bytes: 2 << 20,
            request_timeout: Duration::from_secs(60),
            header_read_timeout: Duration::from_secs(75),
            max_connection_age: Duration::from_secs(300),
            max_connections: 4096,
            max_in_flight: 1024,
        }
    }
}

/// The gRPC server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpc {
    /// Where it listens; port 0 takes a free one. None: it does not.
    pub address: Option<SocketAddr>,
    /// After this a client is asked to connect anew, so that calls spread over new replicas.
    #[serde(with = "duration")]
    pub max_connection_age: Duration,
    /// What the services show each other, here and as clients. Without it they speak plain text.
    pub tls: Tls,
}

impl Default for Grpc {
    fn default() -> Self {
        Self {
            address: None,
            max_connection_age: Duration::from_secs(300),
            tls: Tls::default(),
        }
    }
}

/// How the service ends.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long it still accepts requests while it says that it is not ready, so that load balancers can notice. Each
    /// answer closes its connection meanwhile.
    #[serde(with = "duration")]
    pub drain: Duration,
    /// How long requests and tasks may then take to finish before they are cut off.
    #[serde(with = "duration")]
    pub timeout: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain: Duration::ZERO,
            timeout: Duration::from_secs(20),
        }
    }
}
