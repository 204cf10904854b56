//! A client of the older protocol, which keeps one session for the whole run, whichever replica it meets.

use super::{
    ledger::Wrong,
    wire::Peer,
    world::{CONNECTION_AGE, World, gave_back, result, tool, word},
};
use e2e::{Era, Json};
use http::StatusCode;
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

/// How often each session calls.
const EVERY: Duration = Duration::from_millis(700);

/// One client and its session.
pub(crate) struct Session {
    world: Arc<World>,
    peer: Peer,
    pod: String,
    id: Option<String>,
}

impl Session {
    /// A client of `address`, whose Service keeps it at one replica while there is that one.
    pub(crate) fn new(world: Arc<World>, address: &str, pod: &str) -> Self {
        Self {
            world,
            peer: Peer::new(address, 1, CONNECTION_AGE),
            pod: pod.to_owned(),
            id: None,
        }
    }

    /// Calls until it is stopped; it begins with its part of the time between calls, so that clients take turns.
    pub(crate) async fn run(mut self, part: f64, stop: CancellationToken) {
        let mut due = interval_at(Instant::now() + EVERY.mul_f64(part), EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut turn = 0;
        while stop.run_until_cancelled(due.tick()).await.is_some() {
            if self.id.is_none() {
                self.open().await;
            } else {
                self.call(turn).await;
                turn += 1;
            }
        }
    }

    async fn open(&mut self) {
        let started = Instant::now();
        let opened = self.initialize().await;
        self.id = self.world.ledger.note("legacy open", started.elapsed(), opened);
        if self.id.is_some() {
            self.world.ledger.session_opened();
        }
    }

    async fn initialize(&self) -> Result<String, Wrong> {
        let client = json!({"name": "load", "version": "0"});
        let params =
            json!({"protocolVersion": Era::Legacy.version(), "capabilities": {}, "clientInfo": client});
        let answer = self.send("initialize", Some(0), &params, None).await?;
        result(&answer)?;
        let id = answer
            .headers
            .get("mcp-session-id")
            .and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Wrong::answer(answer.status.as_u16(), "no session id", &answer.text))?;
        let told = self
            .send("notifications/initialized", None, &Json::Null, Some(id))
            .await?;
        if !told.status.is_success() {
            return Err(Wrong::answer(told.status.as_u16(), "initialized", &told.text));
        }
        Ok(id.to_owned())
    }

    async fn call(&mut self, turn: u64) {
        let word = word();
        let echo = tool(&self.pod, false).1;
        let (kind, method, params, gives) = match turn % 3 {
            0 => ("legacy list", "tools/list", json!({}), "load-echo"),
            1 => {
                let arguments = json!({"limit": 2});
                let params = json!({"name": "context_list", "arguments": arguments});
                ("legacy call", "tools/call", params, "load ")
            }
            _ => {
                let params = json!({"name": echo, "arguments": {"word": word}});
                ("legacy tool", "tools/call", params, word.as_str())
            }
        };
        let started = Instant::now();
        let answer = self
            .send(method, Some(turn + 1), &params, self.id.as_deref())
            .await;
        if answer
            .as_ref()
            .is_ok_and(|answer| answer.status == StatusCode::NOT_FOUND)
        {
            self.world.ledger.session_lost();
            self.id = None;
        }
        let outcome = answer.and_then(|answer| gave_back(&result(&answer)?, gives));
        self.world.ledger.note(kind, started.elapsed(), outcome);
    }

    async fn send(
        &self,
        method: &str,
        id: Option<u64>,
        params: &Json,
        session: Option<&str>,
    ) -> Result<super::wire::Answer, Wrong> {
        let mut body = json!({"jsonrpc": "2.0", "method": method});
        if let Some(id) = id {
            body["id"] = json!(id);
            body["params"] = params.clone();
        }
        let mut request = self.world.mcp_request(&self.peer, Era::Legacy.version(), &body)?;
        if let Some(Ok(session)) = session.map(str::parse) {
            request.headers_mut().insert("mcp-session-id", session);
        }
        Ok(self.peer.send(request).await?)
    }
}
