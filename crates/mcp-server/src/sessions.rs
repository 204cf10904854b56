//! Sessions of protocol versions before 2026-07-28.
//!
//! Each tenant has its own [`Sessions`], so that another tenant's session is simply not there. They are bounded: a new
//! one takes the place of the tenant's longest idle. What a client said when it initialized is kept in the shared cache,
//! so that a session can be taken up again on any replica.

use crate::{settings, tasks::legacy};
use bytes::Bytes;
use coordination::{Cache, MAX_VALUE_BYTES};
use domain::TenantId;
use futures_util::{Stream, StreamExt};
use parking_lot::Mutex;
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::streamable_http_server::session::{
        RestoreOutcome, ServerSseMessage, SessionId, SessionManager, SessionState, SessionStore,
        SessionStoreError,
        local::{LocalSessionManager, LocalSessionManagerError},
    },
};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// What the SDK's answer says when there is no room.
pub(crate) const FULL: &str = "too many sessions";
/// Ids of ours are UUIDs; nothing longer is looked up.
const MAX_ID: usize = 64;
/// For how long Redis is asked again when it does not answer: a lost connection is replaced within about a second, and a
/// client that is told that there is no such session gives it up. While Redis is away for longer, each session that is
/// opened, or looked for in vain, takes this much longer.
const PATIENCE: Duration = Duration::from_millis(2500);
/// How often.
const AGAIN: Duration = Duration::from_millis(100);

/// Why a session could not be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// This replica is full of other tenants' sessions.
    #[error("{FULL}")]
    Full,
    /// The SDK's own.
    #[error(transparent)]
    Local(#[from] LocalSessionManagerError),
}

/// One tenant's sessions in this process.
pub(crate) struct Sessions {
    local: LocalSessionManager,
    used: Mutex<HashMap<SessionId, Instant>>,
    max: usize,
    max_here: usize,
    /// All tenants' sessions.
    total: Arc<AtomicUsize>,
    /// Whether the handler behind does tasks in the form of 2025-11-25.
    tasks: bool,
    /// Ends the streams that clients hold open to be told of what they did not ask for.
    draining: CancellationToken,
}

impl Sessions {
    /// No sessions yet; `total` counts those of all tenants. `tasks`: the handler does tasks in the form of 2025-11-25.
    /// With `draining`, clients' standing streams end, so that they open them anew on another replica.
    pub(crate) fn new(
        settings: &settings::Sessions,
        total: Arc<AtomicUsize>,
        tasks: bool,
        draining: CancellationToken,
    ) -> Self {
        let mut local = LocalSessionManager::default();
        local.session_config.keep_alive = Some(settings.idle);
        Self {
            local,
            used: Mutex::default(),
            max: settings.max,
            max_here: settings.max_per_tenant,
            total,
            tasks,
            draining,
        }
    }

    /// Makes room for one more.
    async fn make_room(&self) -> Result<(), SessionError> {
        let oldest = {
            let used = self.used.lock();
            if used.len() < self.max_here && self.total.load(Ordering::Relaxed) < self.max {
                return Ok(());
            }
            used.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())
        };
        let oldest = oldest.ok_or(SessionError::Full)?;
        tracing::debug!(session = %oldest, "a session gives way to a new one");
        self.close_session(&oldest).await
    }

    fn admit(&self, id: &SessionId) {
        if self.used.lock().insert(id.clone(), Instant::now()).is_none() {
            self.total.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn forget(&self, id: &SessionId) {
        if self.used.lock().remove(id).is_some() {
            self.total.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl SessionManager for Sessions {
    type Error = SessionError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), SessionError> {
        self.make_room().await?;
        let (id, transport) = self.local.create_session().await?;
        self.admit(&id);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, SessionError> {
        let answer = self.local.initialize_session(id, message).await?;
        let with_tasks = self.tasks.then(|| legacy::outbound(&answer)).flatten();
        Ok(with_tasks.unwrap_or(answer))
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, SessionError> {
        if let Some(at) = self.used.lock().get_mut(id) {
            *at = Instant::now();
        }
        Ok(self.local.has_session(id).await?)
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), SessionError> {
        self.forget(id);
        Ok(self.local.close_session(id).await?)
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        let (message, translated) = if self.tasks {
            legacy::inbound(message)
        } else {
            (message, false)
        };
        let stream = self.local.create_stream(id, message).await?;
        Ok(stream.map(move |mut event: ServerSseMessage| {
            let answer = event.message.as_deref().filter(|_| translated);
            if let Some(answer) = answer.and_then(legacy::outbound) {
                event.message = Some(Arc::new(answer));
            }
            event
        }))
    }

    async fn accept_message(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<(), SessionError> {
        Ok(self.local.accept_message(id, message).await?)
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        let stream = self.local.create_standalone_stream(id).await?;
        Ok(stream.take_until(self.draining.clone().cancelled_owned()))
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, SessionError> {
        // A call's stream goes on until its answer; its events are numbered `index/call`, a standing stream's `index`.
        let standing = !last_event_id.contains('/');
        let stream = self.local.resume(id, last_event_id).await?;
        let draining = self.draining.clone();
        Ok(stream.take_until(async move {
            if standing {
                draining.cancelled().await;
            } else {
                std::future::pending().await
            }
        }))
    }

    async fn restore_session(&self, id: SessionId) -> Result<RestoreOutcome<Self::Transport>, SessionError> {
        self.make_room().await?;
        let outcome = self.local.restore_session(id.clone()).await?;
        self.admit(&id);
        Ok(outcome)
    }
}

/// What one tenant's clients said when they initialized, where all replicas see it.
pub(crate) struct Initializations {
    cache: Arc<dyn Cache>,
    tenant: TenantId,
    ttl: Duration,
}

impl Initializations {
    /// Those of `tenant`, each kept for `ttl` after it was last needed.
    pub(crate) fn new(cache: Arc<dyn Cache>, tenant: TenantId, ttl: Duration) -> Self {
        Self { cache, tenant, ttl }
    }

    fn key(&self, id: &str) -> String {
        format!("mcp-session:{}:{id}", self.tenant)
    }

    /// What was kept; none as well when nobody could be asked for all of [`PATIENCE`].
    async fn find(&self, id: &str) -> Option<Bytes> {
        let (key, begun) = (self.key(id), Instant::now());
        loop {
            match self.cache.find(&key).await {
                Ok(found) => return found,
                Err(_) if again(begun).await => {}
                Err(_) => return None,
            }
        }
    }
}

/// Waits a little and says whether to try once more; not when [`PATIENCE`] is over.
async fn again(begun: Instant) -> bool {
    let patient = begun.elapsed() < PATIENCE;
    if patient {
        tokio::time::sleep(AGAIN).await;
    }
    patient
}

#[async_trait::async_trait]
impl SessionStore for Initializations {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        if id.len() > MAX_ID {
            return Ok(None);
        }
        let Some(bytes) = self.find(id).await else {
            return Ok(None);
        };
        let state = serde_json::from_slice(&bytes)?;
        self.cache.put(&self.key(id), &bytes, self.ttl).await;
        Ok(Some(state))
    }

    async fn store(&self, id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        let (key, state, begun) = (self.key(id), serde_json::to_vec(state)?, Instant::now());
        // Kept in this replica alone, the session ends with it.
        while !self.cache.put(&key, &state, self.ttl).await
            && state.len() <= MAX_VALUE_BYTES
            && again(begun).await
        {}
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        self.cache.remove(&self.key(id)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(max: usize, max_per_tenant: usize, total: &Arc<AtomicUsize>) -> Sessions {
        let settings = settings::Sessions {
            max,
            max_per_tenant,
            ..Default::default()
        };
        Sessions::new(&settings, total.clone(), false, CancellationToken::new())
    }

    #[tokio::test]
    async fn the_longest_idle_session_gives_way() {
        let total = Arc::new(AtomicUsize::new(0));
        let sessions = sessions(10, 2, &total);
        let (first, _t1) = sessions.create_session().await.expect("room");
        let (second, _t2) = sessions.create_session().await.expect("room");
        assert!(sessions.has_session(&first).await.expect("an answer"));
        let (third, _t3) = sessions.create_session().await.expect("room");
        for (id, there) in [(&first, true), (&second, false), (&third, true)] {
            assert_eq!(sessions.has_session(id).await.expect("an answer"), there);
        }
        assert_eq!(total.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_full_server_refuses_a_tenant_without_sessions() {
        let total = Arc::new(AtomicUsize::new(0));
        let (ours, theirs) = (sessions(1, 5, &total), sessions(1, 5, &total));
        let (id, _transport) = ours.create_session().await.expect("room");
        assert!(matches!(theirs.create_session().await, Err(SessionError::Full)));
        ours.close_session(&id).await.expect("closed");
        assert!(theirs.create_session().await.is_ok());
    }

    #[tokio::test]
    async fn an_initialization_is_found_by_its_tenant_only() {
        let cache = coordination::Coordination::in_process().cache;
        let ttl = Duration::from_secs(60);
        let (ours, theirs) = (TenantId::new(), TenantId::new());
        let store = Initializations::new(cache.clone(), ours, ttl);
        store
            .store("s1", &SessionState::new(Default::default()))
            .await
            .expect("kept");
        assert!(store.load("s1").await.expect("an answer").is_some());
        assert!(
            Initializations::new(cache, theirs, ttl)
                .load("s1")
                .await
                .expect("an answer")
                .is_none()
        );
        store.delete("s1").await.expect("gone");
        assert!(store.load("s1").await.expect("an answer").is_none());
    }
}
