//! The runs that are held: how long their leases last, what is to be told of them, and who stops them.

use crate::metrics;
use proto::v1;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

/// A lease is renewed when a third of it is over: two heartbeats may fail.
const RENEW_AT: u32 = 3;
/// How long news of a run wait for its end: most runs are over by then and need no heartbeat.
const NEWS_WAIT: Duration = Duration::from_millis(50);
/// How often news are told at most.
const NEWS_EVERY: Duration = Duration::from_secs(1);
/// The shortest lease that is believed; less would be a storm of heartbeats.
const SHORTEST_LEASE: Duration = Duration::from_millis(300);

/// All runs that are held. Cheap to clone.
#[derive(Clone)]
pub(super) struct Held(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is more room.
    freed: Notify,
    /// A heartbeat is due earlier than was thought, or none is.
    due_changed: Notify,
}

#[derive(Default)]
struct State {
    runs: HashMap<String, Entry>,
    beaten: Option<Instant>,
    /// Whether something is to be told before leases need it.
    news: Option<Instant>,
    /// When whoever beats will look again by itself.
    looks_at: Option<Instant>,
}

struct Entry {
    token: i64,
    lease: Duration,
    renewed: Instant,
    progress: String,
    cancelled: CancellationToken,
    lost: CancellationToken,
}

impl Entry {
    fn due(&self) -> Instant {
        self.renewed + self.lease / RENEW_AT
    }
}

impl State {
    fn due(&self) -> Option<Instant> {
        self.runs.values().map(Entry::due).chain(self.news).min()
    }
}

impl Held {
    pub(super) fn new() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            freed: Notify::new(),
            due_changed: Notify::new(),
        }))
    }

    /// Holds a run from now on. Whoever held it under an older token has lost it; `None` when this token is no newer.
    pub(super) fn take(&self, id: String, token: i64, lease: Duration) -> Option<Holding> {
        let mut state = self.lock();
        if state.runs.get(&id).is_some_and(|before| before.token >= token) {
            return None;
        }
        let (cancelled, lost) = (CancellationToken::new(), CancellationToken::new());
        let entry = Entry {
            token,
            lease: lease.max(SHORTEST_LEASE),
            renewed: Instant::now(),
            progress: String::new(),
            cancelled: cancelled.clone(),
            lost: lost.clone(),
        };
        if let Some(before) = state.runs.insert(id.clone(), entry) {
            before.lost.cancel();
        }
        self.changed(&state);
        Some(Holding {
            id,
            token,
            cancelled,
            lost,
            held: self.clone(),
        })
    }

    /// How many runs are held.
    pub(super) fn count(&self) -> usize {
        self.lock().runs.len()
    }

    /// Waits until a run has ended. What ends while nobody waits is not missed.
    pub(super) async fn freed(&self) {
        self.0.freed.notified().await;
    }

    /// When the next heartbeat is due; `None` while nothing is held. If that changes before, [`Held::due_changed`] tells.
    pub(super) fn due(&self) -> Option<Instant> {
        let mut state = self.lock();
        state.looks_at = state.due();
        state.looks_at
    }

    /// See [`Held::due`].
    pub(super) async fn due_changed(&self) {
        self.0.due_changed.notified().await;
    }

    /// What a heartbeat says, and the shortest lease in it.
    pub(super) fn beat(&self) -> (Vec<v1::HeldRun>, Duration) {
        let mut state = self.lock();
        state.news = None;
        state.beaten = Some(Instant::now());
        let shortest = state.runs.values().map(|entry| entry.lease).min();
        let runs = state.runs.iter().map(|(id, entry)| v1::HeldRun {
            held: Some(v1::Held {
                execution_id: id.clone(),
                token: entry.token,
            }),
            progress: entry.progress.clone(),
        });
        (runs.collect(), shortest.unwrap_or(SHORTEST_LEASE))
    }

    /// A heartbeat that was sent at `sent` has been answered. Only what it spoke of is touched: the same execution may be
    /// held under a newer token by now.
    pub(super) fn answered(&self, sent: Instant, runs: &[v1::HeldRun], answer: &v1::HeartbeatResponse) {
        let mut state = self.lock();
        for held in runs.iter().filter_map(|run| run.held.as_ref()) {
            let Some(entry) = state.runs.get_mut(&held.execution_id) else {
                continue;
            };
            if entry.token != held.token {
                continue;
            }
            if answer.lost.contains(&held.execution_id) {
                entry.lost.cancel();
                // It asks for no more heartbeats while it ends.
                entry.renewed = sent + entry.lease;
                continue;
            }
            entry.renewed = sent;
            if answer.cancel.contains(&held.execution_id) {
                entry.cancelled.cancel();
            }
        }
    }

    /// The caller of a run wants it to end.
    pub(super) fn cancel(&self, held: &v1::Held) {
        let state = self.lock();
        let entry = state.runs.get(&held.execution_id);
        if let Some(entry) = entry.filter(|entry| entry.token == held.token) {
            entry.cancelled.cancel();
        }
    }

    fn changed(&self, state: &State) {
        metrics::LEASED_RUNS.set(state.runs.len(), []);
        let due = state.due();
        let earlier = match (due, state.looks_at) {
            (Some(due), Some(looks_at)) => due < looks_at,
            (due, looks_at) => due.is_some() != looks_at.is_some(),
        };
        if earlier {
            self.0.due_changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One run that is held, until this is dropped.
pub(super) struct Holding {
    id: String,
    token: i64,
    cancelled: CancellationToken,
    lost: CancellationToken,
    held: Held,
}

impl Holding {
    /// As messages name it.
    pub(super) fn message(&self) -> v1::Held {
        v1::Held {
            execution_id: self.id.clone(),
            token: self.token,
        }
    }

    /// The execution's id, as it came.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Waits until the caller wants it to end.
    pub(super) async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Waits until it is another's.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Whether it is another's.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Whether its lease surely holds still: the other side counts from before it was sent here. What has not begun by
    /// then must not begin, for somebody else may have.
    pub(super) fn is_sure(&self) -> bool {
        let state = self.held.lock();
        let entry = state.runs.get(&self.id).filter(|entry| entry.token == self.token);
        entry.is_some_and(|entry| !entry.lost.is_cancelled() && entry.renewed.elapsed() < entry.lease * 3 / 4)
    }

    /// Says how far it has come, with the next heartbeat, which is not far.
    pub(super) fn progress(&self, words: String) {
        let mut state = self.held.lock();
        let last = state.beaten;
        let Some(entry) = state
            .runs
            .get_mut(&self.id)
            .filter(|entry| entry.token == self.token)
        else {
            return;
        };
        if entry.progress == words {
            return;
        }
        entry.progress = words;
        if state.news.is_none() {
            let soon = Instant::now() + NEWS_WAIT;
            state.news = Some(last.map_or(soon, |last| soon.max(last + NEWS_EVERY)));
            self.held.changed(&state);
        }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut state = self.held.lock();
        if state
            .runs
            .get(&self.id)
            .is_some_and(|entry| entry.token == self.token)
        {
            state.runs.remove(&self.id);
            if state.runs.is_empty() {
                state.news = None;
            }
            self.held.changed(&state);
            self.held.0.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn answer(lost: &[&str], cancel: &[&str]) -> v1::HeartbeatResponse {
        let owned = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        v1::HeartbeatResponse {
            lost: owned(lost),
            cancel: owned(cancel),
        }
    }

    #[test]
    fn leases_are_renewed_in_their_first_third_and_news_told_soon_but_seldom() {
        let held = Held::new();
        assert_eq!(held.due(), None);
        let run = held.take("a".into(), 1, LEASE).unwrap();
        let renewal = held.due().unwrap();
        assert!(renewal <= Instant::now() + LEASE / 3);
        run.progress("one".into());
        assert!(held.due().unwrap() <= Instant::now() + NEWS_WAIT);
        let (runs, shortest) = held.beat();
        assert_eq!((runs[0].progress.as_str(), shortest), ("one", LEASE));
        let beaten = Instant::now();
        held.answered(beaten, &runs, &answer(&[], &[]));
        run.progress("one".into());
        assert_eq!(held.due(), Some(beaten + LEASE / 3), "that is no news");
        run.progress("two".into());
        let told = held.due().unwrap();
        assert!(
            told > beaten + NEWS_EVERY - NEWS_WAIT && told < beaten + LEASE / 3,
            "news, but not at once"
        );
        assert!(run.is_sure());
        held.answered(beaten - LEASE * 3 / 4, &runs, &answer(&[], &[]));
        assert!(!run.is_sure(), "the lease may be over");
        drop(run);
        assert_eq!((held.due(), held.count()), (None, 0));
    }

    #[test]
    fn an_answer_counts_for_the_token_it_was_asked_with() {
        let held = Held::new();
        let first = held.take("a".into(), 1, LEASE).unwrap();
        let (asked, _) = held.beat();
        assert!(held.take("a".into(), 1, LEASE).is_none(), "the same run twice");
        let second = held.take("a".into(), 2, LEASE).unwrap();
        assert!(first.is_lost());
        held.answered(Instant::now(), &asked, &answer(&["a"], &[]));
        assert!(!second.is_lost());
        drop(first);
        assert_eq!(held.count(), 1, "the newer one is held still");
        held.cancel(&v1::Held {
            execution_id: "a".into(),
            token: 1,
        });
        assert!(!second.cancelled.is_cancelled());
        let (asked, _) = held.beat();
        held.answered(Instant::now(), &asked, &answer(&[], &["a"]));
        assert!(second.cancelled.is_cancelled());
        held.answered(Instant::now(), &asked, &answer(&["a"], &[]));
        assert!(second.is_lost() && !second.is_sure());
    }
}
