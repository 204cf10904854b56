//! The load as the host sees it: its pods, and what their lines say.

use super::ledger::{Failure, Second, unix};
use crate::{
    inside::{Job, Running},
    kubectl::SERVICES,
    setup::Setup,
};
use anyhow::ensure;
use e2e::wait_at_most;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{task::JoinSet, time::sleep};

/// A Service's affinity keeps each of them at one replica.
const PODS: [&str; 2] = ["load-0", "load-1"];
/// Until the load has prepared itself and its first seconds are told.
const BEGINS: Duration = Duration::from_secs(90);
/// Its pods tell each second; later than this, they are in trouble.
const SILENCE: Duration = Duration::from_secs(45);

type Told = Arc<Mutex<BTreeMap<(u64, String), Second>>>;

/// A load that runs.
pub(crate) struct Load {
    jobs: Vec<Running>,
    told: Told,
    followers: JoinSet<()>,
}

/// What came of the requests within a time.
#[derive(Debug, Default)]
pub(crate) struct Sum {
    /// How many there were.
    pub(crate) requests: u64,
    /// How many of them failed.
    pub(crate) failed: u64,
    /// The slowest kind, and its greatest latency, milliseconds.
    pub(crate) slowest: (String, f64),
    /// The greatest of the seconds' medians, by kind, milliseconds.
    pub(crate) medians: BTreeMap<String, f64>,
    /// Sessions of the older protocol that were lost.
    pub(crate) lost: u64,
    /// What failed, at most twenty a second.
    pub(crate) failures: Vec<Failure>,
}

impl Load {
    /// Starts the load's pods and waits until all of them have sent something that succeeded.
    ///
    /// # Errors
    /// When they cannot begin; with their logs.
    pub(crate) async fn start(setup: &Setup) -> anyhow::Result<Self> {
        let mut load = Self {
            jobs: Vec::new(),
            told: Told::default(),
            followers: JoinSet::new(),
        };
        for pod in PODS {
            let running = Job::new(pod, ["cluster", "load", "--pod", pod])
                .start(setup)
                .await?;
            load.followers
                .spawn(follow(running.name().to_owned(), Arc::clone(&load.told)));
            load.jobs.push(running);
        }
        let begun = wait_at_most(BEGINS, "the load to begin", async || {
            let told = load.lock();
            let at_work = told
                .values()
                .filter(|second| second.kinds.len() > 8 && second.sessions[1] == 0);
            let pods: BTreeSet<_> = at_work.map(|second| &second.pod).collect();
            (pods.len() == PODS.len()).then_some(())
        });
        if let Err(error) = begun.await {
            let mut logs = String::new();
            for job in &load.jobs {
                let log = SERVICES.run(&["logs", "--tail=3", job.name()]).await;
                logs.push_str(&log.unwrap_or_else(|error| error.to_string()));
            }
            return Err(error.context(logs));
        }
        Ok(load)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When a pod cannot be removed.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.followers.abort_all();
        for job in &self.jobs {
            job.remove().await?;
        }
        Ok(())
    }

    /// What came of the requests that ended between `from` and now (seconds since 1970), once all pods have told it.
    ///
    /// # Errors
    /// When a pod tells nothing any more.
    pub(crate) async fn since(&self, from: f64) -> anyhow::Result<Sum> {
        let to = now();
        wait_at_most(SILENCE, "the load's pods to tell of this second", async || {
            let told = self.lock();
            let late = told
                .values()
                .filter(|second| second.at >= to)
                .map(|second| &second.pod);
            (late.collect::<BTreeSet<_>>().len() == PODS.len()).then_some(())
        })
        .await?;
        let mut sum = Sum::default();
        for second in self
            .lock()
            .values()
            .filter(|second| second.at > from && second.at <= to + 1.0)
        {
            sum.add(second);
        }
        ensure!(sum.requests > 0, "the load sent nothing");
        Ok(sum)
    }

    /// The least and the most contexts of each tenant that could rightly have been counted within a time.
    pub(crate) fn active(&self, tenant_id: &str, from: f64, to: f64) -> Option<[u64; 2]> {
        let told = self.lock();
        let seconds = told.values().filter(|second| second.pod == tenant_id);
        seconds
            .filter(|second| second.at >= from && second.at <= to)
            .map(|second| second.active)
            .reduce(|[least, most], [low, high]| [least.min(low), most.max(high)])
    }

    /// The tenants of its pods.
    pub(crate) fn tenants(&self) -> BTreeSet<String> {
        self.lock().values().map(|second| second.pod.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u64, String), Second>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sum {
    fn add(&mut self, second: &Second) {
        for (name, kind) in &second.kinds {
            self.requests += kind.ok + kind.failed;
            self.failed += kind.failed;
            if kind.max_ms > self.slowest.1 {
                self.slowest = (name.clone(), kind.max_ms);
            }
            let median = self.medians.entry(name.clone()).or_default();
            *median = median.max(kind.median_ms);
        }
        self.lost += second.sessions[1];
        self.failures.extend(second.failures.iter().cloned());
    }

    /// Its failures, a line for each way to fail: how many, when the first and the last came, and one in full.
    pub(crate) fn failures(&self, from: f64) -> String {
        let mut ways = BTreeMap::<_, Vec<&Failure>>::new();
        for failure in &self.failures {
            let gist: String = failure
                .error
                .chars()
                .filter(|c| !c.is_ascii_digit())
                .take(48)
                .collect();
            ways.entry((&failure.kind, failure.status, gist))
                .or_default()
                .push(failure);
        }
        let line = |((kind, status, _), all): (&(&String, Option<u16>, String), &Vec<&Failure>)| {
            let (first, last) = (all[0], all[all.len() - 1]);
            let status = status.map_or("no answer".to_owned(), |status| status.to_string());
            format!(
                "     {} × {kind}: {status}, {:.1} to {:.1} s, waited {:.0} ms: {}\n",
                all.len(),
                first.at - from,
                last.at - from,
                first.took_ms,
                first.error
            )
        };
        ways.iter().map(line).collect()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> f64 {
    unix(SystemTime::now())
}

/// Reads a pod's lines as long as it is wanted; after a broken connection from their beginning, which changes nothing.
async fn follow(job: String, told: Told) {
    loop {
        if let Ok((_child, mut lines)) = SERVICES.follow(&job) {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(second) = serde_json::from_str::<Second>(&line) {
                    let key = ((second.at * 1e3) as u64, second.pod.clone());
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.insert(key, second);
                }
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
}
