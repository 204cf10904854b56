//! API keys, their scopes and their end.

use crate::{Outcome, rest_api, text};
use e2e::{
    Backend, Era, Json, Stack,
    rest::Rest,
    stack::{MCP_SERVER, REST_API},
    wait_for,
};
use http::Method;
use proto::v1::{
    GetContextRequest, WhoAmIRequest, contexts_client::ContextsClient, identity_client::IdentityClient,
};
use serde_json::json;
use std::time::{Duration, Instant};

/// How soon a revoked key must stop working anywhere.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_key_is_shown_once_and_gives_away_no_more_than_it_has() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest) = rest_api(backend).await?;
        let ask = json!({"name": "reader", "scopes": ["contexts:read", "keys:manage"]});
        let made = rest.post("/api/v1/keys", &ask).await?;
        assert_eq!(made.header("cache-control"), "no-store");
        let made = made.expect(201)?;
        let secret = text(&made, "secret").to_owned();
        assert!(secret.starts_with("dmcp_") && secret.starts_with(text(&made, "prefix")));

        let listed = rest.get("/api/v1/keys").await?;
        assert!(!listed.text.contains(&secret) && listed.text.contains(text(&made, "prefix")));
        let database = std::fs::read(stack.directory().join("devops-mcp.db")).unwrap_or_default();
        let found = database
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "the secret lies in the database");

        let reader = rest.with_key(Some(&secret));
        reader.get("/api/v1/contexts").await?.expect(200)?;
        let problem = reader
            .post("/api/v1/contexts", &json!({"name": "x"}))
            .await?
            .problem(403, "missing_scope")?;
        assert_eq!(problem["required_scope"], "contexts:write");
        let more = json!({"name": "more", "scopes": ["tools:manage"]});
        reader
            .post("/api/v1/keys", &more)
            .await?
            .problem(403, "missing_scope")?;

        let by_header = rest.with_key(None);
        let answer = by_header
            .send(Method::GET, "/api/v1/contexts", &[("x-api-key", &secret)], None)
            .await?;
        answer.expect(200)?;
        let path = format!("/api/v1/keys/{}", text(&made, "id"));
        wait_for("last_used_at", async || {
            let key = rest.get(&path).await.ok()?.json();
            key["last_used_at"].is_string().then_some(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_revoked_key_stops_everywhere_within_a_second() -> Outcome {
    for backend in Backend::available() {
        let stack = Stack::builder(backend)
            .services(&[REST_API, MCP_SERVER])
            .start()
            .await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let made = rest
            .post(
                "/api/v1/keys",
                &json!({"name": "doomed", "scopes": ["contexts:read"]}),
            )
            .await?
            .expect(201)?;
        let (id, secret) = (text(&made, "id").to_owned(), text(&made, "secret").to_owned());
        let doors = Doors::open(&stack, &secret).await?;
        // In use until the last moment, so that every cache holds it.
        for _ in 0..5 {
            assert_eq!(doors.refused().await?, [false; 4], "{backend:?}: before");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let revoked = rest.delete(&format!("/api/v1/keys/{id}")).await?.expect(200)?;
        let at = Instant::now();
        assert!(revoked["revoked_at"].is_string());
        let mut seen = Vec::new();
        loop {
            let asked = at.elapsed();
            let refused = doors.refused().await?;
            seen.push((asked, refused));
            if refused == [true; 4] {
                break;
            }
            assert!(
                asked < REVOKED_WITHIN,
                "{backend:?}: still accepted (REST, MCP modern, MCP legacy, gRPC): {seen:?}"
            );
        }
        // For good, not for the moment.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(doors.refused().await?, [true; 4], "{backend:?}: afterwards");
        for service in [REST_API, MCP_SERVER] {
            let labels = [("method", "bearer"), ("result", "revoked")];
            stack
                .wait_metric(service, "mcp_auth_attempts_total", &labels, |n| n >= 1.0)
                .await?;
        }
    }
    Ok(())
}

/// Every way in, with one key.
struct Doors {
    rest: Rest,
    raw: e2e::raw::Raw,
    legacy: e2e::mcp::Client,
    identity: IdentityClient<tonic::transport::Channel>,
    contexts: ContextsClient<tonic::transport::Channel>,
    secret: String,
}

impl Doors {
    async fn open(stack: &Stack, secret: &str) -> anyhow::Result<Self> {
        Ok(Self {
            rest: stack.rest(secret),
            raw: stack.raw(secret),
            legacy: stack.mcp(secret, Era::Legacy).await?,
            identity: IdentityClient::new(stack.channel(REST_API)?),
            contexts: ContextsClient::new(stack.channel(REST_API)?),
            secret: secret.to_owned(),
        })
    }

    /// Which doors refuse the key: REST, MCP of either era, gRPC.
    async fn refused(&self) -> anyhow::Result<[bool; 4]> {
        let rest = self.rest.get("/api/v1/contexts").await?.status == 401;
        let modern = self.raw.call("tools/list", json!({})).await?.status == 401;
        let legacy = self.legacy.call("context_list", &json!({})).await.is_err();
        let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {}", self.secret).parse()?;
        let mut ask = tonic::Request::new(WhoAmIRequest {});
        ask.metadata_mut().insert("authorization", bearer.clone());
        let who = self.identity.clone().who_am_i(ask).await;
        let mut get = tonic::Request::new(GetContextRequest {
            id: uuid::Uuid::now_v7().to_string(),
        });
        get.metadata_mut().insert("authorization", bearer);
        let get = self.contexts.clone().get(get).await;
        let unauthenticated = |code: tonic::Code| code == tonic::Code::Unauthenticated;
        let grpc =
            who.is_err_and(|s| unauthenticated(s.code())) && get.is_err_and(|s| unauthenticated(s.code()));
        Ok([rest, modern, legacy, grpc])
    }
}

#[tokio::test]
async fn rotation_overlaps_and_expiry_and_suspension_end_a_key() -> Outcome {
    for backend in Backend::available() {
        let (stack, rest) = rest_api(backend).await?;
        let works = async |secret: &str| -> anyhow::Result<bool> {
            let answer = rest.with_key(Some(secret)).get("/api/v1/contexts").await?;
            if answer.status == 401 {
                answer.problem(401, "invalid_key")?;
            }
            Ok(answer.status == 200)
        };
        let ask =
            |expires_in: Json| json!({"name": "k", "scopes": ["contexts:read"], "expires_in": expires_in});
        let old = rest.post("/api/v1/keys", &ask(Json::Null)).await?.expect(201)?;
        let rotate = format!("/api/v1/keys/{}/rotate", text(&old, "id"));
        let begun = Instant::now();
        let new = rest.post(&rotate, &json!({"overlap": "3s"})).await?.expect(201)?;
        assert_eq!((&new["name"], &new["scopes"]), (&old["name"], &old["scopes"]));
        let brief = rest.post("/api/v1/keys", &ask(json!(3))).await?.expect(201)?;
        for key in [&old, &brief] {
            // A machine that is busy for so long has seen nothing of the overlap.
            let still = works(text(key, "secret")).await?;
            assert!(still || begun.elapsed() > Duration::from_secs(3), "{backend:?}");
        }
        for key in [&old, &brief] {
            wait_for("a key to run out", async || {
                (!works(text(key, "secret")).await.ok()?).then_some(())
            })
            .await?;
        }
        assert!(begun.elapsed() > Duration::from_secs(3), "{backend:?}: too early");
        assert!(works(text(&new, "secret")).await?);

        stack.admin(&["tenants", "suspend", "acme"]).await?;
        tokio::time::sleep(REVOKED_WITHIN).await;
        assert!(!works(text(&new, "secret")).await?, "{backend:?}: suspended");
        stack.admin(&["tenants", "activate", "acme"]).await?;
        tokio::time::sleep(REVOKED_WITHIN).await;
        assert!(works(text(&new, "secret")).await?, "{backend:?}: active again");
        assert!(stack.admin(&["tenants", "list"]).await?.contains("acme"));
    }
    Ok(())
}
