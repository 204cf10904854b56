//! Using the facilities while the service is driven.

use crate::driver::Phase;
use anyhow::{Context, ensure};
use e2e::{rest::Answer, stack::ADMIN_TOKEN};
use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde_json::json;
use std::{convert::Infallible, future::Future, time::Duration};
use tokio::time::{interval, sleep};

/// How somebody uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Usage {
    /// A CPU profile is being taken all the time.
    CpuProfile,
    /// CPU profiles of a second, one after the other: with what makes them ready for pprof.
    CpuProfiles,
    /// A heap profile each second.
    HeapProfile,
    /// The tasks each second.
    TaskPage,
    /// Every page that is cheap enough to look at again and again, each second.
    Pages,
    /// The whole service logs at debug level.
    DebugLevel,
    /// Five requests a second are debugged.
    DebuggedRequests,
}

impl Usage {
    pub(super) const EVERY: [Self; 7] = [
        Self::CpuProfile,
        Self::CpuProfiles,
        Self::HeapProfile,
        Self::TaskPage,
        Self::Pages,
        Self::DebugLevel,
        Self::DebuggedRequests,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CpuProfile => "a CPU profile at 100 Hz",
            Self::CpuProfiles => "CPU profiles of 1 s in a row",
            Self::HeapProfile => "a heap profile each second",
            Self::TaskPage => "the tasks each second",
            Self::Pages => "six pages each second",
            Self::DebugLevel => "log level debug",
            Self::DebuggedRequests => "5 debugged requests/s",
        }
    }

    /// Uses them so until `measured` is there.
    pub(super) async fn during(
        self,
        admin: &Admin,
        turn: Duration,
        measured: impl Future<Output = anyhow::Result<Phase>>,
    ) -> anyhow::Result<Phase> {
        let phase = async {
            tokio::select! {
                phase = measured => phase,
                used = self.go_on(admin, turn) => match used? {},
            }
        };
        match self {
            Self::DebugLevel => {
                admin.log_level("debug").await?;
                let phase = phase.await;
                admin.log_level("info").await?;
                phase
            }
            Self::CpuProfile | Self::CpuProfiles => {
                let phase = phase.await;
                // Whoever asked has gone away: what comes next must not meet the rest of it.
                while !admin.cpu_profile(1).await? {}
                phase
            }
            _ => phase.await,
        }
    }

    /// Does it again and again.
    async fn go_on(self, admin: &Admin, turn: Duration) -> anyhow::Result<Infallible> {
        let mut second = interval(Duration::from_secs(1));
        let mut fifth = interval(Duration::from_millis(200));
        loop {
            match self {
                // Longer than is measured: what is measured is taking it, not making it ready for pprof.
                Self::CpuProfile => {
                    admin.cpu_profile(turn.as_secs() + 2).await?;
                }
                Self::CpuProfiles => {
                    admin.cpu_profile(1).await?;
                }
                Self::HeapProfile => {
                    second.tick().await;
                    admin.get("/debug/pprof/heap").await?;
                }
                Self::TaskPage => {
                    second.tick().await;
                    admin.get("/debug/pprof/tasks?debug=1").await?;
                }
                Self::Pages => {
                    second.tick().await;
                    for page in [
                        "/debug/",
                        "/debug/traces",
                        "/debug/heap",
                        "/debug/pprof/",
                        "/debug/database/pool",
                        "/debug/database/slow-queries",
                    ] {
                        admin.get(page).await?;
                    }
                }
                Self::DebugLevel => std::future::pending().await,
                Self::DebuggedRequests => {
                    fifth.tick().await;
                    admin.debugged_request().await?;
                }
            }
        }
    }
}

/// Who holds the admin token of a service.
pub(super) struct Admin {
    client: reqwest::Client,
    base: String,
    /// A request as those that the service is driven with.
    ordinary: RequestBuilder,
}

impl Admin {
    pub(super) fn new(base: &str, ordinary: RequestBuilder) -> Self {
        Self {
            client: e2e::http_client(),
            base: base.to_owned(),
            ordinary,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.bearer_auth(ADMIN_TOKEN)
    }

    /// Asks for a page and reads it; its size, bytes.
    pub(super) async fn get(&self, path: &str) -> anyhow::Result<usize> {
        let response = self.request(Method::GET, path).send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&body)
        );
        Ok(body.len())
    }

    /// Takes a CPU profile; `false` when another one is being taken.
    async fn cpu_profile(&self, seconds: u64) -> anyhow::Result<bool> {
        let path = format!("/debug/pprof/profile?seconds={seconds}&frequency=100");
        let response = self.request(Method::GET, &path).send().await?;
        if response.status() == StatusCode::CONFLICT {
            sleep(Duration::from_millis(20)).await;
            return Ok(false);
        }
        response.error_for_status()?.bytes().await?;
        Ok(true)
    }

    async fn log_level(&self, level: &str) -> anyhow::Result<()> {
        let request = self
            .request(Method::PUT, "/admin/log-level")
            .json(&json!({"level": level}));
        request.send().await?.error_for_status()?;
        Ok(())
    }

    async fn debugged_request(&self) -> anyhow::Result<()> {
        let request = self.ordinary.try_clone().context("a request without a body")?;
        let answer = Answer::read(request.header("x-debug-trace", "true").send().await?).await?;
        answer.expect(200)?;
        Ok(())
    }
}
