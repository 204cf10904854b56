//! What is remembered of each server while the worker runs: how it is spoken with, and whether it fared well.

use super::{
    Server,
    answer::Reply,
    breaker::{Breaker, Verdict},
    wire::About,
};
use crate::{
    metrics,
    outcome::{Code, Failure},
};
use http::{HeaderValue, StatusCode};
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// The newer revision of the protocol.
pub(super) const MODERN: &str = "2026-07-28";
/// The older one that is offered; servers may agree to one that is older still.
pub(super) const LEGACY: &str = "2025-11-25";
/// From how many on those are forgotten that nobody speaks with.
const MAX_PEERS: usize = 4096;
/// For how long it is told whether a server is left alone after anything was last asked of it: its upstream may be gone
/// by then, or another worker be asked.
const TOLD: Duration = Duration::from_secs(600);
/// For how long it is believed what a server is: it may be replaced by a newer one.
const BELIEVED: Duration = Duration::from_secs(3600);
/// The server's error for a revision of the protocol that it does not speak.
const UNSUPPORTED_VERSION: i64 = -32022;
/// The codes of JSON-RPC that servers give meanings of their own.
const SERVERS_OWN: std::ops::RangeInclusive<i64> = -32019..=-32000;
/// So much earlier than a run's time is over, one that is dropped counts as too slow and not as given up.
const ABOUT_TIME: Duration = Duration::from_millis(50);

/// How messages to a server are written.
#[derive(Clone, Debug)]
pub(super) enum Era {
    /// Without sessions; each request says all there is to say.
    Modern,
    /// With `initialize`, after which there may be a session.
    Legacy {
        /// The revision that was agreed upon; `None` before.
        version: Option<HeaderValue>,
        /// The session, where the server gave one.
        session: Option<HeaderValue>,
    },
}

impl Era {
    /// The revision's name.
    pub(super) fn version(&self) -> &str {
        match self {
            Self::Modern => MODERN,
            Self::Legacy { version, .. } => {
                let agreed = version.as_ref().and_then(|version| version.to_str().ok());
                agreed.unwrap_or(LEGACY)
            }
        }
    }
}

/// How a server is spoken with.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) era: Era,
    pub(super) about: Arc<About>,
    /// Of the address and credentials that it was learnt with.
    print: u64,
    since: Instant,
}

impl Link {
    pub(super) fn new(print: u64, era: Era, about: About) -> Self {
        Self {
            era,
            about: Arc::new(about),
            print,
            since: Instant::now(),
        }
    }

    /// Whether it is believed for a server of this address and these credentials.
    pub(super) fn is_good(&self, print: u64) -> bool {
        self.print == print && self.since.elapsed() < BELIEVED
    }

    /// Whether an answer says that the server does not know the session, or this way to speak, any more. Nothing was done
    /// then. Some servers say of a session with 400 what the protocol has 404 for.
    pub(super) fn is_lost(&self, reply: &Reply) -> bool {
        let refused = matches!(reply.status, StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST);
        let error = reply.message.as_ref().and_then(|message| message.as_ref().err());
        let code = error.map(|error| error.code);
        match &self.era {
            Era::Legacy { session, .. } => {
                // The protocol's own errors are about the request, a server's own may be about the session.
                let about_it = reply.status == StatusCode::NOT_FOUND
                    || code.is_none_or(|code| SERVERS_OWN.contains(&code));
                session.is_some() && refused && about_it
            }
            Era::Modern => {
                reply.status == StatusCode::METHOD_NOT_ALLOWED
                    || code == Some(UNSUPPORTED_VERSION)
                    || (refused && code.is_none())
            }
        }
    }
}

/// One server of one tenant.
pub(super) struct Peer {
    /// The metrics' label.
    label: String,
    breaker: Breaker,
    /// When something was last asked of it.
    asked: Mutex<Instant>,
    ids: AtomicU64,
    /// Held while it is learnt, so that only one does.
    pub(super) link: tokio::sync::Mutex<Option<Link>>,
}

impl Peer {
    /// Shows its metrics before anything has happened: a count that first appears at 1 hides that one from `rate()`.
    fn new(server: &Server<'_>) -> Self {
        let label = format!("{}/{}", server.tenant, server.name);
        for result in ["ok", "failed", "circuit_open"] {
            metrics::UPSTREAM_REQUESTS.add(0, [&label, result]);
        }
        Self {
            label,
            breaker: Breaker::default(),
            asked: Mutex::new(Instant::now()),
            ids: AtomicU64::new(1),
            link: tokio::sync::Mutex::default(),
        }
    }

    /// The next request's id; 1 is the greeting's.
    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Forgets how the server was spoken with, unless somebody has learnt it anew meanwhile.
    pub(super) async fn forget(&self, link: &Link) {
        let mut known = self.link.lock().await;
        if known.as_ref().is_some_and(|known| known.since == link.since) {
            *known = None;
        }
    }

    /// Begins a call that may take `time`.
    ///
    /// # Errors
    /// [`Code::CircuitOpen`] while the server is left alone.
    pub(super) fn enter(&self, time: Duration) -> Result<Visit<'_>, Failure> {
        if let Err(wait) = self.breaker.enter(Instant::now()) {
            metrics::UPSTREAM_REQUESTS.inc([&self.label, "circuit_open"]);
            let message = format!(
                "the server failed several times in a row and is left alone for another {} s",
                wait.as_secs() + 1
            );
            return Err(Failure::new(Code::CircuitOpen, message));
        }
        Ok(self.visit(Some(time)))
    }

    /// Begins something that is tried whether or not the server is left alone.
    pub(super) fn knock(&self) -> Visit<'_> {
        self.visit(None)
    }

    fn visit(&self, time: Option<Duration>) -> Visit<'_> {
        Visit {
            peer: self,
            time,
            started: Instant::now(),
            ended: false,
        }
    }
}

/// A call on its way; counts how it ends, also when it is dropped.
#[must_use = "dropped, the call counts as given up"]
pub(super) struct Visit<'a> {
    peer: &'a Peer,
    time: Option<Duration>,
    started: Instant,
    ended: bool,
}

impl Visit<'_> {
    /// It ended so.
    pub(super) fn end(mut self, failure: Option<&Failure>) {
        self.ended = true;
        let code = failure.map(|failure| failure.code);
        let result = match code {
            None => "ok",
            Some(Code::ToolError) => "tool_error",
            Some(Code::UpstreamError) => "refused",
            Some(_) => "failed",
        };
        let status = failure
            .and_then(|f| f.result.as_ref())
            .and_then(|r| r["status"].as_u64());
        self.close(result, Verdict::of(code, status));
    }

    fn close(&self, result: &str, verdict: Verdict) {
        let label = self.peer.label.as_str();
        self.peer.breaker.settle(verdict, Instant::now());
        metrics::UPSTREAM_REQUESTS.inc([label, result]);
        metrics::UPSTREAM_REQUEST_DURATION.record(self.started.elapsed().as_secs_f64(), [label]);
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Whoever waits for a call drops it when its time is over, and when he leaves.
        let late = self
            .time
            .is_none_or(|time| self.started.elapsed() + ABOUT_TIME >= time);
        if late {
            self.close("failed", Verdict::Bad);
        } else {
            self.close("cancelled", Verdict::Unknown);
        }
    }
}

/// All servers, by tenant and name.
#[derive(Default)]
pub(super) struct Peers {
    known: Mutex<HashMap<(String, String), Arc<Peer>>>,
    hasher: RandomState,
}

impl Peers {
    /// What is remembered of this one, of which something is to be asked.
    pub(super) fn of(&self, server: &Server<'_>) -> Arc<Peer> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (server.tenant.to_owned(), server.name.to_owned());
        if known.len() >= MAX_PEERS && !known.contains_key(&key) {
            known.retain(|_, peer| Arc::strong_count(peer) > 1);
        }
        let peer = known.entry(key).or_insert_with(|| Arc::new(Peer::new(server)));
        *peer.asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Arc::clone(peer)
    }

    /// Whether servers are left alone (1) or not (0), by the metrics' label: those of which something was asked of late.
    pub(super) fn circuits(&self, now: Instant) -> Vec<([String; 1], f64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |peer: &&Arc<Peer>| {
            let asked = *peer.asked.lock().unwrap_or_else(PoisonError::into_inner);
            now.duration_since(asked) < TOLD
        };
        let circuit = |peer: &Arc<Peer>| {
            let open = f64::from(u8::from(peer.breaker.is_open(now)));
            ([peer.label.clone()], open)
        };
        known.values().filter(told).map(circuit).collect()
    }

    /// Tells apart what a link was learnt with, and keeps nothing of it.
    pub(super) fn fingerprint(&self, server: &Server<'_>) -> u64 {
        let credentials = server.credentials.and_then(|c| serde_json::to_string(c).ok());
        self.hasher.hash_one((server.url, credentials))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_told_as_it_stands_and_not_for_ever() {
        let (peers, failure) = (Peers::default(), Failure::new(Code::Timeout, "too slow"));
        let server = |name| Server {
            tenant: "acme",
            name,
            url: "https://mcp.example.com",
            credentials: None,
        };
        peers.of(&server("good")).knock().end(None);
        let bad = peers.of(&server("bad"));
        for _ in 0..5 {
            bad.knock().end(Some(&failure));
        }
        let told = |seconds| {
            let mut told = peers.circuits(Instant::now() + Duration::from_secs(seconds));
            told.sort_by(|a, b| a.0.cmp(&b.0));
            told
        };
        let (name, good) = (["acme/bad".to_owned()], (["acme/good".to_owned()], 0.0));
        assert_eq!(told(0), [(name.clone(), 1.0), good.clone()]);
        assert_eq!(told(60), [(name, 0.0), good], "the next call is let through");
        assert_eq!(told(700), [], "nothing is asked of them any more");
    }
}
