//! What the traffic needs in its tenant: tools, keys and a schedule. What an earlier run left behind is taken away first.

use crate::{Work, endpoint::Endpoint, server};
use anyhow::{Context, ensure};
use e2e::{Json, rest::Rest};
use serde_json::{Value, json};

/// What everything is called that the traffic makes.
const PREFIX: &str = "traffic";
/// Where no tool may call: a cloud's metadata service.
const FORBIDDEN: &str = "http://169.254.169.254/latest/meta-data/";

/// Callers with keys of their own.
pub(crate) struct Callers {
    /// May run tools, and not those that want approval.
    pub(crate) asker: Rest,
    /// Approves.
    pub(crate) approver: Rest,
    /// Calls far too often.
    pub(crate) hasty: Rest,
    /// Was revoked.
    pub(crate) former: Rest,
}

impl Work {
    /// Tools that work, fail, are slow, and all else that tools do.
    pub(crate) async fn register(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let retry = |attempts: u32| json!({"max_attempts": attempts, "initial_backoff_ms": 100, "max_backoff_ms": 500});
        let tools = [
            ("works", endpoint.url("/work"), json!({})),
            ("fails", endpoint.url("/status/500"), json!({})),
            (
                "times-out",
                endpoint.url("/slow/1000"),
                json!({"timeout_ms": 200}),
            ),
            ("slow", endpoint.url("/slow/3000"), json!({})),
            ("big", endpoint.url("/big/300000"), json!({})),
            ("flaky", endpoint.url("/flaky"), json!({"retry": retry(4)})),
            ("dies", endpoint.url("/status/503"), json!({"retry": retry(2)})),
            (
                "breaks-off",
                endpoint.url("/breaks-off"),
                json!({"method": "POST"}),
            ),
            ("forbidden", FORBIDDEN.to_owned(), json!({})),
            (
                "destroys",
                endpoint.url("/work/{name}"),
                json!({"method": "DELETE", "destructive": true}),
            ),
            ("reports", endpoint.url("/work"), json!({})),
        ];
        for (name, url, more) in tools {
            let name = format!("{PREFIX}-{name}");
            let mut tool = json!({"name": name, "description": "Part of the generated traffic", "timeout_ms": 5000, "url": url});
            for (field, value) in more.as_object().into_iter().flatten() {
                tool[field] = value.clone();
            }
            self.rest.delete(&format!("/api/v1/tools/{name}")).await?;
            self.rest.post("/api/v1/tools", &tool).await?.expect(201)?;
        }
        Ok(())
    }

    /// Another MCP server, whose tools are `traffic_server_says` and `traffic_server_fails`.
    pub(crate) async fn join(&self, endpoint: &Endpoint) -> anyhow::Result<()> {
        let name = format!("{PREFIX}_server");
        let path = format!("/api/v1/upstreams/{name}");
        self.rest.delete(&path).await?;
        let upstream = json!({"name": name, "url": endpoint.url(server::PATH)});
        self.rest
            .post("/api/v1/upstreams", &upstream)
            .await?
            .expect(201)?;
        // Its first answer may not have come in time.
        let asked = self.rest.post(&format!("{path}/refresh"), &json!({})).await?;
        let state = asked.expect(200)?;
        ensure!(state["state"]["error"].is_null(), "it does not answer: {state}");
        Ok(())
    }

    /// A run every minute, which is as often as there can be one.
    pub(crate) async fn schedule(&self) -> anyhow::Result<()> {
        self.sweep("schedules").await?;
        let schedule = json!({"name": format!("{PREFIX} report"), "tool": format!("{PREFIX}-reports"), "cron": "* * * * *"});
        self.rest
            .post("/api/v1/schedules", &schedule)
            .await?
            .expect(201)?;
        Ok(())
    }

    /// Makes the keys.
    pub(crate) async fn callers(&self) -> anyhow::Result<Callers> {
        self.sweep("keys").await?;
        let runs = ["tools:read", "tools:execute", "contexts:read"];
        let callers = Callers {
            asker: self.caller("asker", &runs).await?.0,
            approver: self
                .caller("approver", &["tools:read", "executions:approve"])
                .await?
                .0,
            hasty: self.caller("hasty", &["contexts:read"]).await?.0,
            former: {
                let (former, id) = self.caller("former", &["contexts:read"]).await?;
                self.rest
                    .delete(&format!("/api/v1/keys/{id}"))
                    .await?
                    .expect(200)?;
                former
            },
        };
        Ok(callers)
    }

    async fn caller(&self, name: &str, scopes: &[&str]) -> anyhow::Result<(Rest, String)> {
        let ask = json!({"name": format!("{PREFIX} {name}"), "scopes": scopes, "expires_in": "90d"});
        let made = self.rest.post("/api/v1/keys", &ask).await?.expect(201)?;
        let (secret, id) = (made["secret"].as_str(), made["id"].as_str());
        let secret = secret.context("a key without a secret")?;
        Ok((
            self.rest.with_key(Some(secret)),
            id.unwrap_or_default().to_owned(),
        ))
    }

    /// Removes what this driver makes, if it is there from before or is no longer needed.
    pub(crate) async fn sweep(&self, what: &str) -> anyhow::Result<()> {
        let mut cursor = String::new();
        loop {
            let page = self
                .rest
                .get(&format!("/api/v1/{what}?limit=100{cursor}"))
                .await?
                .expect(200)?;
            let listed = page["items"].as_array();
            for one in listed.into_iter().flatten().filter(|one| is_ours(one)) {
                let id = one["id"].as_str().unwrap_or_default();
                self.rest.delete(&format!("/api/v1/{what}/{id}")).await?;
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(()),
            }
        }
    }
}

/// Made here, and not revoked yet.
fn is_ours(one: &Json) -> bool {
    let name = one["name"].as_str().unwrap_or_default();
    name.starts_with(&format!("{PREFIX} ")) && matches!(one["revoked_at"], Value::Null)
}
