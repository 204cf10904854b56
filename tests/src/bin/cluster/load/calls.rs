//! What is sent, in turn.

use super::{
    ledger::Wrong,
    world::{World, expect, gave_back, json_of, tool, word},
};
use e2e::Json;
use http::Method;
use serde_json::json;
use std::time::Instant;

/// One of so many contexts that are made stays: their number grows, so that a count that stands still is noticed.
const STAYS: usize = 4;

impl World {
    /// Does what is due at this turn: one request, or a few of which each needs the one before.
    pub(crate) async fn turn(&self, turn: usize, pod: &str) {
        match turn % 8 {
            0 => self.write(turn / 8).await,
            1 => self.search().await,
            2 | 6 => self.read_known(turn).await,
            3 => self.call(pod, false).await,
            4 => self.append(turn).await,
            5 => self.list_tools().await,
            _ => self.call(pod, true).await,
        }
    }

    /// Makes a context, reads it, and removes the oldest one.
    async fn write(&self, round: usize) {
        let Some(made) = self.create().await else {
            return;
        };
        self.read(&made.id, |read| read["name"] == made.name.as_str())
            .await;
        if !round.is_multiple_of(STAYS) {
            self.remove_oldest().await;
        }
    }

    async fn read_known(&self, turn: usize) {
        if let Some(known) = self.any(turn) {
            self.read(&known.id, |read| read["name"] == known.name.as_str())
                .await;
        }
    }

    async fn read(&self, id: &str, is_right: impl Fn(&Json) -> bool) {
        let started = Instant::now();
        let answer = expect(
            self.rest(Method::GET, &format!("/api/v1/contexts/{id}"), None)
                .await,
            200,
        );
        let read = answer.and_then(|answer| {
            let right = is_right(&json_of(&answer));
            right
                .then_some(())
                .ok_or_else(|| Wrong::answer(200, "not what was written", &answer.text))
        });
        self.ledger.note("rest read", started.elapsed(), read);
    }

    /// Appends an item, and reads that it is there.
    async fn append(&self, turn: usize) {
        let Some(known) = self.any(turn) else {
            return;
        };
        let items = json!({"items": [{"role": "assistant", "content": word()}]});
        let started = Instant::now();
        let path = format!("/api/v1/contexts/{}/items", known.id);
        let answer = expect(self.rest(Method::POST, &path, Some(&items)).await, 201);
        let sequence = answer.and_then(|answer| {
            let sequence = json_of(&answer)["items"][0]["sequence"].as_u64();
            sequence.ok_or_else(|| Wrong::answer(201, "no sequence", &answer.text))
        });
        if let Some(sequence) = self.ledger.note("rest append", started.elapsed(), sequence) {
            self.read(&known.id, |read| read["item_count"].as_u64() >= Some(sequence))
                .await;
        }
    }

    async fn search(&self) {
        let started = Instant::now();
        let arguments = json!({"query": "haystack", "limit": 5});
        let found = self
            .modern(
                "tools/call",
                json!({"name": "context_search", "arguments": arguments}),
            )
            .await;
        let found = found.and_then(|result| gave_back(&result, "haystack"));
        self.ledger.note("mcp search", started.elapsed(), found);
    }

    async fn list_tools(&self) {
        let started = Instant::now();
        let listed = self.modern("tools/list", json!({})).await;
        let listed = listed.and_then(|result| gave_back(&result, "load-echo"));
        self.ledger.note("mcp list", started.elapsed(), listed);
    }

    async fn call(&self, pod: &str, once: bool) {
        let (kind, tool) = tool(pod, once);
        let started = Instant::now();
        let ran = self.run(&tool, &word()).await;
        self.ledger.note(kind, started.elapsed(), ran);
    }
}
