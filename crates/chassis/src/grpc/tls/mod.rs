//! Mutual TLS between the services: what this one shows and whom it believes, read again when the files change.
//!
//! Connections keep what they were made with; `grpc.max_connection_age` ends them. While a new CA takes the place of an
//! old one, both stand in the file, everywhere, before the first certificate of the new one is handed out.

mod accept;
mod clients;
mod material;

pub(super) use accept::accept;

use crate::{TLS_CERTIFICATE_EXPIRY, TLS_RELOADS, settings};
use chrono::{DateTime, Utc};
use material::{Material, Unusable};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tonic::transport::ClientTlsConfig;

/// The newest files that could be used. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Tls {
    settings: Arc<settings::Tls>,
    current: Arc<watch::Sender<Arc<Material>>>,
}

impl Tls {
    /// Reads the files, when TLS is on.
    ///
    /// # Errors
    /// When one of them cannot be used, with its key.
    pub(crate) async fn open(settings: &settings::Tls) -> Result<Option<Self>, Unusable> {
        let settings = Arc::new(settings.clone());
        let Some(material) = read(&settings, None).await? else {
            TLS_CERTIFICATE_EXPIRY.set(0, []);
            return Ok(None);
        };
        announce(&material);
        let (current, _) = watch::channel(Arc::new(material));
        Ok(Some(Self {
            settings,
            current: Arc::new(current),
        }))
    }

    /// How often the files are looked at.
    pub(crate) fn every(&self) -> Duration {
        self.settings.reload
    }

    /// Looks at the files again and again. Whatever is wrong with them, the last good ones stay in use.
    pub(crate) async fn keep_fresh(self) {
        let mut told = None;
        loop {
            tokio::time::sleep(self.every()).await;
            match self.reload().await {
                Ok(false) => told = None,
                Ok(true) => {
                    TLS_RELOADS.inc(["ok"]);
                    told = None;
                }
                Err(problem) => {
                    TLS_RELOADS.inc(["failed"]);
                    if told.as_ref() != Some(&problem) {
                        tracing::warn!(%problem, "cannot use the changed TLS files: those read before stay in use");
                    }
                    told = Some(problem);
                }
            }
        }
    }

    /// Takes the files over if they have changed; whether they had.
    pub(super) async fn reload(&self) -> Result<bool, Unusable> {
        let known = self.current.borrow().clone();
        let Some(material) = read(&self.settings, Some(known)).await? else {
            return Ok(false);
        };
        announce(&material);
        tracing::info!(expires = told(&material), "TLS files reloaded");
        self.current.send_replace(Arc::new(material));
        Ok(true)
    }

    fn server(&self) -> Arc<ServerConfig> {
        self.current.borrow().server.clone()
    }

    /// What a client shows and believes now.
    pub(super) fn client(&self) -> ClientTlsConfig {
        self.current.borrow().client.clone()
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> Changes {
        Changes(self.current.subscribe())
    }
}

/// Tells when the files were read anew.
pub(super) struct Changes(watch::Receiver<Arc<Material>>);

impl Changes {
    /// Waits for the next change.
    pub(super) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody reads the files any more: the service ends.
            std::future::pending().await
        }
    }
}

/// The files, if there are any and they are not the `known` ones. Off the runtime's threads: disks can be slow.
async fn read(
    settings: &Arc<settings::Tls>,
    known: Option<Arc<Material>>,
) -> Result<Option<Material>, Unusable> {
    let settings = settings.clone();
    let read = tokio::task::spawn_blocking(move || Material::read(&settings, known.as_deref()));
    match read.await {
        Ok(read) => read,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn announce(material: &Material) {
    if let Some(expires) = material.expires {
        TLS_CERTIFICATE_EXPIRY.set(expires.as_secs(), []);
        if DateTime::from_timestamp_secs(expires.as_secs().cast_signed()).is_some_and(|end| end < Utc::now())
        {
            tracing::warn!(
                expired = told(material),
                "the TLS certificate has expired: other services refuse it"
            );
        }
    }
}

fn told(material: &Material) -> Option<String> {
    let seconds = material.expires?.as_secs().cast_signed();
    Some(DateTime::from_timestamp_secs(seconds)?.to_rfc3339())
}
