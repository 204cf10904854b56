//! Profiles of memory and CPU, in the format of pprof.

use super::heap::problem;
use crate::{Host, Problem, extract::Query};
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{
    HeaderName, HeaderValue,
    header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use telemetry::profiles::{
    PROFILES,
    cpu::{self, Samples, StartError},
    heap::{Snapshot, View},
};
use tokio::sync::Semaphore;

/// How long a CPU profile is when nobody says.
const SECONDS: u64 = 10;

/// Samples for each second of CPU time when nobody says: 2 to 3 % of it.
const FREQUENCY: u32 = 100;
const MOST_FREQUENT: u32 = 1000;

/// A flame graph's styles stand in it; it loads and runs nothing.
const PICTURE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

/// Says that the profile is shorter than it was to be, and why.
const TRUNCATED: HeaderName = HeaderName::from_static("x-profile-truncated");

pub(super) fn routes(host: &Host) -> Router {
    let profiles = Profiles {
        host: host.clone(),
        naming: Arc::new(Semaphore::new(1)),
    };
    Router::new()
        .route("/debug/pprof/heap", get(heap))
        .route("/debug/pprof/allocs", get(allocs))
        .route("/debug/pprof/profile", get(profile))
        .with_state(profiles)
}

#[derive(Clone)]
struct Profiles {
    host: Host,
    /// Finding names is work for a processor, and for the allocator: one of them at a time.
    naming: Arc<Semaphore>,
}

/// Counts a profile whatever becomes of it: a client that hangs up ends the handler.
pub(super) struct Outcome {
    kind: &'static str,
    outcome: &'static str,
}

impl Outcome {
    pub(super) fn of(kind: &'static str) -> Self {
        Self {
            kind,
            outcome: "cancelled",
        }
    }

    pub(super) fn note<T>(mut self, result: Result<T, Problem>) -> Result<T, Problem> {
        self.outcome = match &result {
            Ok(_) => "ok",
            Err(problem) if problem.code() == "profile_running" => "busy",
            Err(_) => "error",
        };
        result
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        PROFILES.inc([self.kind, self.outcome]);
    }
}

impl Profiles {
    fn longest(&self) -> u64 {
        self.host.common.monitoring.profiling.max_seconds
    }

    fn check_seconds(&self, seconds: u64) -> Result<Duration, Problem> {
        if (1..=self.longest()).contains(&seconds) {
            return Ok(Duration::from_secs(seconds));
        }
        let detail = format!(
            "seconds: expected 1 to {} (monitoring.profiling.max_seconds)",
            self.longest()
        );
        Err(Problem::bad_request("invalid_query", detail))
    }

    /// What takes time isn't begun by a service that is about to end.
    fn check_running(&self) -> Result<(), Problem> {
        if self.host.readiness.is_ready() {
            return Ok(());
        }
        Err(Problem::unavailable(
            "stopping",
            "the service is not ready: it is starting, or about to end",
        ))
    }

    /// Waits, and says whether the service's end came first.
    async fn wait(&self, duration: Duration) -> bool {
        let pause = tokio::time::sleep(duration);
        self.host.shutdown.run_until_cancelled(pause).await.is_none()
    }

    /// Does work where it keeps no request waiting, one at a time. It holds its place until it is done, also when nobody
    /// waits for it any more.
    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        let turn = self.naming.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Problem::internal())?;
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            tracing::error!(%error, "making a profile failed");
            Problem::internal()
        })
    }
}

/// What `heap` and `allocs` are asked.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedHeap {
    seconds: Option<u64>,
}

async fn heap(
    State(profiles): State<Profiles>,
    asked: Result<Query<AskedHeap>, Problem>,
) -> Result<Response, Problem> {
    let outcome = Outcome::of("heap");
    outcome.note(profiles.memory(asked, View::InUse, "heap.pb.gz").await)
}

async fn allocs(
    State(profiles): State<Profiles>,
    asked: Result<Query<AskedHeap>, Problem>,
) -> Result<Response, Problem> {
    let outcome = Outcome::of("allocs");
    outcome.note(profiles.memory(asked, View::Allocated, "allocs.pb.gz").await)
}

impl Profiles {
    async fn memory(
        &self,
        asked: Result<Query<AskedHeap>, Problem>,
        view: View,
        name: &'static str,
    ) -> Result<Response, Problem> {
        let Query(asked) = asked?;
        let mut earlier = None;
        let mut cut = false;
        if let Some(seconds) = asked.seconds {
            let duration = self.check_seconds(seconds)?;
            self.check_running()?;
            earlier = Some(self.snapshot().await?);
            cut = self.wait(duration).await;
        }
        let mut snapshot = self.snapshot().await?;
        let encode = move || {
            if let Some(earlier) = earlier {
                snapshot = snapshot.since(&earlier);
            }
            snapshot.profile(view).encode()
        };
        Ok(truncated(attachment(name, self.work(encode).await?), cut))
    }

    async fn snapshot(&self) -> Result<Snapshot, Problem> {
        self.work(Snapshot::take).await?.map_err(|error| problem(&error))
    }
}

/// What `profile` is asked.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AskedCpu {
    seconds: Option<u64>,
    frequency: Option<u32>,
    format: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Pprof,
    Svg,
}

async fn profile(
    State(profiles): State<Profiles>,
    asked: Result<Query<AskedCpu>, Problem>,
) -> Result<Response, Problem> {
    let outcome = Outcome::of("cpu");
    outcome.note(profiles.cpu(asked).await)
}

impl Profiles {
    async fn cpu(&self, asked: Result<Query<AskedCpu>, Problem>) -> Result<Response, Problem> {
        let Query(asked) = asked?;
        let duration = self.check_seconds(asked.seconds.unwrap_or(SECONDS))?;
        let frequency = asked.frequency.unwrap_or(FREQUENCY);
        if !(1..=MOST_FREQUENT).contains(&frequency) {
            let detail = format!("frequency: expected 1 to {MOST_FREQUENT} samples a second");
            return Err(Problem::bad_request("invalid_query", detail));
        }
        self.check_running()?;
        // Dropped with this future when the client hangs up: that ends it.
        let recording = cpu::start(frequency, duration).map_err(|error| refused(&error))?;
        let cut = self.wait(duration).await;
        let title = format!("{}: CPU, {} s", self.host.telemetry.service(), duration.as_secs());
        let encode = move || {
            let samples = recording.finish().ok_or_else(|| {
                tracing::error!("the thread that takes CPU profiles panicked");
                Problem::internal()
            })?;
            Ok(respond(&samples, asked.format, &title))
        };
        Ok(truncated(self.work(encode).await??, cut))
    }
}

fn respond(samples: &Samples, format: Format, title: &str) -> Response {
    if format == Format::Pprof {
        return attachment("profile.pb.gz", samples.profile().encode());
    }
    let headers = [
        (CONTENT_TYPE, "image/svg+xml"),
        (CONTENT_SECURITY_POLICY, PICTURE_POLICY),
    ];
    (headers, samples.flamegraph(title)).into_response()
}

fn refused(error: &StartError) -> Problem {
    match error {
        StartError::Busy(remaining) => {
            // Its names have to be found, too.
            let retry = *remaining + Duration::from_secs(1);
            Problem::conflict("profile_running", error.to_string()).retry_after(retry)
        }
        StartError::Refused(_) => Problem::unavailable("profiling_refused", error.to_string()),
        StartError::Thread(_) => {
            tracing::error!(%error, "a CPU profile cannot be taken");
            Problem::internal()
        }
    }
}

/// As Go sends it.
fn attachment(name: &'static str, gzip: Vec<u8>) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, gzip).into_response()
}

fn truncated(mut response: Response, cut: bool) -> Response {
    if cut {
        response
            .headers_mut()
            .insert(TRUNCATED, HeaderValue::from_static("shutdown"));
    }
    response
}
