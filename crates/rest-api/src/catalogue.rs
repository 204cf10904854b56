//! Tells the watchers that the catalogue of tools changed: at once where it changed here, within a second where it
//! changed on another replica.

use crate::store::SharedStore;
use chassis::{Host, readiness::Dependency};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Notify, watch};

const SWEEP: Duration = Duration::from_secs(1);
/// When the database is taken to be away. A connection whose other end vanished without a word never says so.
const PATIENCE: Duration = Duration::from_secs(5);

/// The catalogue's revision, followed. Cheap to clone.
#[derive(Clone)]
pub struct Catalogue {
    here: Arc<Notify>,
    revision: watch::Receiver<i64>,
}

impl Catalogue {
    /// Follows the catalogue in `store` until the service stops; what it learns of the database's state goes to
    /// `database`.
    pub fn follow(store: SharedStore, database: Dependency, host: &Host) -> Self {
        let here = Arc::new(Notify::new());
        let (sender, revision) = watch::channel(0);
        let woken = Arc::clone(&here);
        host.tasks
            .spawn_every("catalogue", SWEEP.max(PATIENCE), async move {
                loop {
                    match tokio::time::timeout(PATIENCE, store.catalogue_revision()).await {
                        Ok(Ok(revision)) => {
                            database.up();
                            sender.send_if_modified(|known| std::mem::replace(known, revision) != revision);
                        }
                        Ok(Err(error)) => database.down(error),
                        Err(_) => database.down("it does not answer"),
                    }
                    let _ = tokio::time::timeout(SWEEP, woken.notified()).await;
                }
            });
        Self { here, revision }
    }

    /// Something changed here.
    pub fn changed(&self) {
        self.here.notify_one();
    }

    /// The revision, as it changes.
    pub fn revision(&self) -> watch::Receiver<i64> {
        self.revision.clone()
    }
}
