use super::{Grpc, Invalid, duration};
use serde::{Deserialize, Serialize};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Mutual TLS between the services, the same for what a service serves and for what it calls. On as soon as it has files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate that this service shows, and those between it and the CA, as PEM.
    pub certificate: Option<PathBuf>,
    /// Its private key, as PEM.
    pub key: Option<PathBuf>,
    /// The CA certificates that are believed, both ways, as PEM. Several while one takes the place of another.
    pub ca: Option<PathBuf>,
    /// The clients that are served: DNS names that stand in their certificates. Empty: whoever has one of the CA.
    pub allowed_clients: Vec<String>,
    /// How often the files are looked at. What changed is used for new connections.
    #[serde(with = "duration")]
    pub reload: Duration,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: None,
            key: None,
            ca: None,
            allowed_clients: Vec::new(),
            reload: Duration::from_secs(10),
        }
    }
}

/// The three files of [`Tls`].
#[derive(Clone, Copy, Debug)]
pub struct Files<'a> {
    /// The certificate chain.
    pub certificate: &'a Path,
    /// The private key.
    pub key: &'a Path,
    /// The CA certificates.
    pub ca: &'a Path,
}

impl Tls {
    /// The files, when TLS is on.
    pub fn files(&self) -> Option<Files<'_>> {
        Some(Files {
            certificate: self.certificate.as_deref()?,
            key: self.key.as_deref()?,
            ca: self.ca.as_deref()?,
        })
    }

    pub(super) fn validate(&self) -> Result<(), Invalid> {
        let files = [
            ("grpc.tls.certificate", &self.certificate),
            ("grpc.tls.key", &self.key),
            ("grpc.tls.ca", &self.ca),
        ];
        let given = files.iter().find(|(_, file)| file.is_some());
        let missing = files.iter().find(|(_, file)| file.is_none());
        if let (Some((given, _)), Some((missing, _))) = (given, missing) {
            let expected = format!("the path of a PEM file, because {given} is set");
            return Err(Invalid::new(*missing, expected));
        }
        if given.is_none() && !self.allowed_clients.is_empty() {
            let expected = "nothing without grpc.tls.certificate: plain text names no client";
            return Err(Invalid::new("grpc.tls.allowed_clients", expected));
        }
        if self.reload.is_zero() {
            return Err(Invalid::new("grpc.tls.reload", "a duration above zero"));
        }
        Ok(())
    }
}

impl Grpc {
    /// Checks the address of another service's gRPC server: `https` with TLS, `http` without.
    ///
    /// # Errors
    /// [`Invalid`] with `key` when it is none.
    pub fn check_peer(&self, key: &str, url: &str) -> Result<(), Invalid> {
        let secure = self.tls.files().is_some();
        let fits = url.parse::<http::Uri>().is_ok_and(|url| {
            let scheme = if secure { "https" } else { "http" };
            url.scheme_str() == Some(scheme) && url.host().is_some()
        });
        if fits {
            Ok(())
        } else if secure {
            let expected = "an address such as https://localhost:50051, because grpc.tls is set";
            Err(Invalid::new(key, expected))
        } else {
            let expected = "an address such as http://127.0.0.1:50051 (https needs grpc.tls)";
            Err(Invalid::new(key, expected))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on() -> Tls {
        Tls {
            certificate: Some("tls.crt".into()),
            key: Some("tls.key".into()),
            ca: Some("ca.crt".into()),
            ..Tls::default()
        }
    }

    #[test]
    fn all_files_or_none() {
        assert_eq!(Tls::default().validate(), Ok(()));
        assert_eq!(on().validate(), Ok(()));
        let without_key = Tls { key: None, ..on() };
        let invalid = without_key.validate().expect_err("half of it");
        assert_eq!(
            invalid.to_string(),
            "grpc.tls.key: expected the path of a PEM file, because grpc.tls.certificate is set"
        );
        let names_only = Tls {
            allowed_clients: vec!["worker".into()],
            ..Tls::default()
        };
        assert!(names_only.validate().is_err(), "it would let everybody in");
    }

    #[test]
    fn addresses_of_peers_say_whether_it_is_on() {
        let plain = Grpc::default();
        let secure = Grpc {
            tls: on(),
            ..Grpc::default()
        };
        let (http, https) = ("http://127.0.0.1:50051", "https://rest-api-grpc:50051");
        assert!(plain.check_peer("worker.url", http).is_ok());
        assert!(secure.check_peer("worker.url", https).is_ok());
        for (grpc, url) in [
            (&plain, https),
            (&secure, http),
            (&plain, "worker:50053"),
            (&secure, ""),
        ] {
            let invalid = grpc.check_peer("worker.url", url).expect_err("the other kind");
            assert!(invalid.to_string().starts_with("worker.url: expected an address"));
        }
    }
}
