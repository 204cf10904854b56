//! Contexts over REST.

use crate::{Outcome, rest_api, text};
use e2e::{Backend, Json, Stack, stack::WORKER, wait_for};
use http::Method;
use serde_json::json;
use std::collections::BTreeSet;

#[tokio::test]
async fn a_context_from_its_creation_to_its_end() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let created = rest
            .post(
                "/api/v1/contexts",
                &json!({
                    "name": "Checkout is slow", "type": "incident", "agent_id": "agent-7", "session_id": "s-1",
                    "metadata": {"severity": 2, "id": 9_007_199_254_740_993_i64, "tags": ["a", null]},
                    "items": [{"role": "user", "content": "p99 is at 4 s — since 12:04 ☕"}],
                }),
            )
            .await?;
        let context = created.expect(201)?;
        let path = format!("/api/v1/contexts/{}", text(&context, "id"));
        assert_eq!(created.header("location"), path);
        assert_eq!(created.header("etag"), "\"1\"");
        assert_eq!(
            context["metadata"]["id"],
            json!(9_007_199_254_740_993_i64),
            "integers keep every digit"
        );
        assert_eq!(
            (&context["item_count"], &context["status"]),
            (&json!(1), &json!("active"))
        );
        assert_eq!(
            context["size_bytes"],
            json!("p99 is at 4 s — since 12:04 ☕".len())
        );
        assert_eq!(rest.get(&path).await?.expect(200)?, context);

        let items = json!({"items": [
            {"role": "assistant", "content": "looking", "metadata": {"n": 1}},
            {"role": "tool", "content": "done"},
        ]});
        let appended = rest.post(&format!("{path}/items"), &items).await?;
        let body = appended.expect(201)?;
        assert_eq!(appended.header("etag"), "\"2\"");
        assert_eq!(body["items"].as_array().map(Vec::len), Some(2));
        assert_eq!(
            (&body["items"][0]["sequence"], &body["items"][1]["sequence"]),
            (&json!(2), &json!(3))
        );
        let listed = rest
            .get(&format!("{path}/items?order=desc&limit=2"))
            .await?
            .expect(200)?;
        assert_eq!(
            (&listed["items"][0]["sequence"], &listed["items"][1]["metadata"]),
            (&json!(3), &json!({"n": 1}))
        );
        let cursor = text(&listed, "next_cursor");
        let rest_of = rest
            .get(&format!("{path}/items?order=desc&limit=2&cursor={cursor}"))
            .await?
            .expect(200)?;
        assert_eq!(
            (&rest_of["items"][0]["sequence"], &rest_of["next_cursor"]),
            (&json!(1), &Json::Null)
        );

        let archive = json!({"status": "archived", "metadata": {}});
        let stale = rest
            .send(Method::PATCH, &path, &[("if-match", "\"1\"")], Some(&archive))
            .await?;
        assert_eq!(
            stale.problem(412, "version_mismatch")?["current_version"],
            json!(2)
        );
        let changed = rest
            .send(Method::PATCH, &path, &[("if-match", "\"2\"")], Some(&archive))
            .await?;
        assert_eq!(changed.header("etag"), "\"3\"");
        let changed = changed.expect(200)?;
        assert_eq!(
            (&changed["status"], &changed["metadata"]),
            (&json!("archived"), &json!({}))
        );

        let stale = rest
            .send(Method::DELETE, &path, &[("if-match", "\"2\"")], None)
            .await?;
        stale.problem(412, "version_mismatch")?;
        rest.delete(&path).await?.expect(204)?;
        rest.get(&path).await?.problem(404, "not_found")?;
        rest.get(&format!("{path}/items"))
            .await?
            .problem(404, "not_found")?;
    }
    Ok(())
}

#[tokio::test]
async fn listings_are_paged_in_a_stable_order_and_filtered() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        for i in 0..7 {
            let kind = if i % 2 == 0 { "manual" } else { "runbook" };
            let agent = format!("agent-{}", i % 3);
            let context = json!({"name": format!("context {i}"), "type": kind, "agent_id": agent});
            rest.post("/api/v1/contexts", &context).await?.expect(201)?;
        }
        let (mut seen, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let more = cursor
                .map(|cursor| format!("&cursor={cursor}"))
                .unwrap_or_default();
            let page = rest
                .get(&format!("/api/v1/contexts?limit=3{more}"))
                .await?
                .expect(200)?;
            let items = page["items"].as_array().cloned().unwrap_or_default();
            seen.extend(items.iter().map(|context| text(context, "name").to_owned()));
            pages += 1;
            if pages == 1 {
                // What is made while somebody pages neither repeats nor hides anything.
                rest.post("/api/v1/contexts", &json!({"name": "late"}))
                    .await?
                    .expect(201)?;
            }
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() {
                break;
            }
        }
        let newest_first: Vec<_> = (0..7).rev().map(|i| format!("context {i}")).collect();
        assert_eq!((seen, pages), (newest_first, 3), "{backend:?}");

        let count = async |query: &str| -> anyhow::Result<usize> {
            let page = rest
                .get(&format!("/api/v1/contexts?{query}"))
                .await?
                .expect(200)?;
            Ok(page["items"].as_array().map_or(0, Vec::len))
        };
        assert_eq!(count("type=runbook").await?, 3);
        assert_eq!(count("type=runbook&agent_id=agent-0").await?, 1);
        assert_eq!(count("status=archived").await?, 0);
        assert_eq!(count("updated_since=2999-01-01T00:00:00Z").await?, 0);
        rest.get("/api/v1/contexts?cursor=nonsense")
            .await?
            .problem(400, "invalid_argument")?;
        rest.get("/api/v1/contexts?limit=many")
            .await?
            .problem(400, "invalid_query")?;
    }
    Ok(())
}

#[tokio::test]
async fn search_ranks_marks_and_survives_any_input() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let make = async |name: &str, content: &str| -> anyhow::Result<String> {
            let items = json!([{"role": "user", "content": content}]);
            let made = rest
                .post("/api/v1/contexts", &json!({"name": name, "items": items}))
                .await?
                .expect(201)?;
            Ok(text(&made, "id").to_owned())
        };
        let much = make(
            "database",
            "deadlock, and a deadlock again: the deadlock detector found it",
        )
        .await?;
        let little = make(
            "notes",
            &format!(
                "{} a deadlock <script>alert(1)</script>",
                "nothing to see ".repeat(40)
            ),
        )
        .await?;
        make("other", "the weather is fine").await?;
        let hits = async |query: &str| -> anyhow::Result<Json> {
            let path = format!("/api/v1/contexts/search?q={}", encode(query));
            rest.get(&path).await?.expect(200)
        };
        let found = hits("deadlock").await?;
        let ids: Vec<_> = found["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|hit| text(&hit["context"], "id"))
            .collect();
        assert_eq!(ids, [much.as_str(), little.as_str()], "{backend:?}: {found}");
        let snippet = text(&found["items"][1], "snippet");
        assert!(
            snippet.contains("<mark>deadlock</mark>"),
            "{backend:?}: {snippet}"
        );
        assert!(!snippet.contains("<script>"), "{backend:?}: {snippet}");
        assert_eq!(
            hits("deadlock weather").await?["items"],
            json!([]),
            "all words must occur"
        );
        assert_eq!(
            hits("\"the weather is\"").await?["items"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        // A name is found as well, and what is deleted is not.
        assert_eq!(hits("notes").await?["items"][0]["context"]["id"], json!(little));
        rest.delete(&format!("/api/v1/contexts/{much}"))
            .await?
            .expect(204)?;
        assert_eq!(hits("deadlock").await?["items"].as_array().map(Vec::len), Some(1));
        for odd in [
            "\"unbalanced",
            "AND OR NOT",
            "(",
            "a*b:c^2",
            "'; DROP TABLE contexts; --",
            "NEAR(",
            "ü☕",
            "-",
            "%",
        ] {
            let answer = rest
                .get(&format!("/api/v1/contexts/search?q={}", encode(odd)))
                .await?;
            assert!(
                [200, 400].contains(&answer.status.as_u16()),
                "{backend:?}: {odd}: {answer:?}"
            );
        }
        rest.get("/api/v1/contexts/search?q=")
            .await?
            .problem(400, "invalid_argument")?;
    }
    Ok(())
}

/// Percent-encodes all but letters and digits.
fn encode(text: &str) -> String {
    let one = |b: u8| {
        if b.is_ascii_alphanumeric() {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    };
    text.bytes().map(one).collect()
}

#[tokio::test]
async fn a_repeated_post_makes_one_thing() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let body = json!({"name": "once"});
        let post = async |key: &str, body: &Json| {
            rest.send(
                Method::POST,
                "/api/v1/contexts",
                &[("idempotency-key", key)],
                Some(body),
            )
            .await
        };
        let first = post("k-1", &body).await?;
        let again = post("k-1", &body).await?;
        assert_eq!(first.expect(201)?, again.expect(201)?);
        assert_eq!(
            (
                first.header("idempotency-replayed"),
                again.header("idempotency-replayed")
            ),
            ("", "true")
        );
        post("k-1", &json!({"name": "twice"}))
            .await?
            .problem(422, "idempotency_key_reused")?;
        let both = futures_util::future::join_all((0..8).map(|_| post("k-2", &body))).await;
        let ids: BTreeSet<_> = both
            .into_iter()
            .map(|a| Ok(text(&a?.expect(201)?, "id").to_owned()))
            .collect::<anyhow::Result<_>>()?;
        assert_eq!(ids.len(), 1, "{backend:?}: at the same time");

        let path = format!("/api/v1/contexts/{}/items", text(&first.json(), "id"));
        let items = json!({"items": [{"role": "user", "content": "hello"}]});
        for _ in 0..2 {
            rest.send(Method::POST, &path, &[("idempotency-key", "k-3")], Some(&items))
                .await?
                .expect(201)?;
        }
        assert_eq!(
            rest.get(&path).await?.expect(200)?["items"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    }
    Ok(())
}

#[tokio::test]
async fn concurrent_appends_lose_nothing() -> Outcome {
    for backend in Backend::available() {
        let (_stack, rest) = rest_api(backend).await?;
        let made = rest
            .post("/api/v1/contexts", &json!({"name": "busy"}))
            .await?
            .expect(201)?;
        let path = format!("/api/v1/contexts/{}", text(&made, "id"));
        let items = format!("{path}/items");
        let append = |i: usize| {
            let (rest, items) = (rest.clone(), items.clone());
            async move {
                rest.post(
                    &items,
                    &json!({"items": [{"role": "user", "content": format!("{i}")}]}),
                )
                .await
            }
        };
        for answer in futures_util::future::join_all((0..20).map(append)).await {
            answer?.expect(201)?;
        }
        let listed = rest.get(&format!("{items}?limit=200")).await?.expect(200)?;
        let listed = listed["items"].as_array().cloned().unwrap_or_default();
        let sequences: Vec<_> = listed
            .iter()
            .filter_map(|item| item["sequence"].as_i64())
            .collect();
        assert_eq!(sequences, (1..=20).collect::<Vec<_>>(), "{backend:?}");
        let contents: BTreeSet<_> = listed
            .iter()
            .map(|item| text(item, "content").to_owned())
            .collect();
        assert_eq!(contents.len(), 20, "{backend:?}");
        assert_eq!(rest.get(&path).await?.expect(200)?["item_count"], json!(20));
    }
    Ok(())
}

#[tokio::test]
async fn what_expires_goes_by_itself() -> Outcome {
    for backend in Backend::available() {
        let services = [e2e::stack::REST_API, WORKER];
        let builder =
            Stack::builder(backend)
                .services(&services)
                .set(WORKER, "JOBS__EXPIRE_CONTEXTS", "200ms");
        let stack = builder.start().await?;
        let rest = stack.rest(&stack.tenant("acme", "all").await?);
        let make = async |expires_in: Json| -> anyhow::Result<Json> {
            rest.post(
                "/api/v1/contexts",
                &json!({"name": "short", "expires_in": expires_in}),
            )
            .await?
            .expect(201)
        };
        let (short, kept) = (make(json!(1)).await?, make(json!("1s")).await?);
        let kept_path = format!("/api/v1/contexts/{}", text(&kept, "id"));
        rest.patch(&kept_path, &json!({"expires_in": null}))
            .await?
            .expect(200)?;
        let path = format!("/api/v1/contexts/{}", text(&short, "id"));
        rest.get(&path).await?.expect(200)?;
        wait_for("the context to expire", async || {
            let answer = rest.get(&path).await.ok()?;
            (answer.status == 404).then_some(())
        })
        .await?;
        stack
            .wait_metric(
                WORKER,
                "worker_job_rows_total",
                &[("job", "expire_contexts")],
                |rows| rows >= 1.0,
            )
            .await?;
        rest.get(&kept_path).await?.expect(200)?;
    }
    Ok(())
}

#[tokio::test]
async fn the_api_describes_itself_to_anyone() -> Outcome {
    let (_stack, rest) = rest_api(Backend::Sqlite).await?;
    let anyone = rest.with_key(None);
    let described = anyone.get("/api/v1/openapi.json").await?.expect(200)?;
    assert!(
        text(&described, "openapi").starts_with("3.1"),
        "{}",
        described["openapi"]
    );
    for path in [
        "/api/v1/contexts/{id}/items",
        "/api/v1/tools/{name}/execute",
        "/api/v1/keys/{id}/rotate",
    ] {
        assert!(described["paths"][path].is_object(), "{path} is not described");
    }
    let page = anyone.get("/api/v1/docs").await?;
    assert!(page.status == 200 && page.header("content-type").starts_with("text/html"));
    Ok(())
}
