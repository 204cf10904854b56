use crate::harness::{Fixture, after, assert_error, first, next, now, object, spec as own_tool};
use domain::{
    TenantId,
    tenant::TenantStatus,
    tool::{Tool, ToolSpec},
    upstream::{Learnt, LeftOut, Listed, Reason, RefreshError, Upstream, UpstreamSpec},
};
use rest_api::store::{
    CredentialsChange, SealedCredentials, StoreError,
    upstreams::{Answered, Settled},
};
use serde_json::json;

fn sealed(key: &str, bytes: &[u8]) -> SealedCredentials {
    SealedCredentials {
        key_id: key.into(),
        sealed: bytes.to_vec(),
    }
}

fn spec(name: &str) -> UpstreamSpec {
    UpstreamSpec {
        name: name.into(),
        url: "https://mcp.example.com/mcp".into(),
        timeout_ms: 5_000,
        max_result_bytes: Some(1_000),
        tools: vec!["*".into()],
        enabled: true,
    }
}

async fn make(f: &Fixture, tenant: TenantId, name: &str) -> Upstream {
    let credentials = sealed("k1", b"\0secret");
    f.store
        .create_upstream(tenant, &spec(name), Some(&credentials), after(60))
        .await
        .unwrap()
}

fn offered(upstream: &Upstream, tools: &[(&str, &str)]) -> Vec<ToolSpec> {
    let listed = tools.iter().map(|(name, description)| Listed {
        name: (*name).into(),
        description: Some((*description).into()),
        input_schema: Some(object(json!({"type": "object"}))),
        ..Listed::default()
    });
    upstream.spec.offer(listed.collect(), |_| true).0
}

async fn answer(f: &Fixture, upstream: &Upstream, tools: &[(&str, &str)]) -> (Upstream, Settled) {
    let tools = offered(upstream, tools);
    let learnt = Learnt {
        server: "theirs".into(),
        tools: u32::try_from(tools.len()).unwrap(),
        ..Learnt::default()
    };
    let answered = Answered {
        upstream,
        tools: &tools,
        learnt: &learnt,
        at: now(),
    };
    f.store.keep_answer(&answered).await.unwrap()
}

async fn tools(f: &Fixture) -> Vec<Tool> {
    f.store.list_tools(f.id(), &first(100)).await.unwrap().items
}

async fn names(f: &Fixture) -> Vec<String> {
    tools(f).await.into_iter().map(|tool| tool.spec.name).collect()
}

fn counts(settled: &Settled) -> (u32, u32, u32) {
    (settled.added, settled.changed, settled.removed)
}

pub(crate) async fn an_upstream_survives_the_round_trip(f: Fixture) {
    let made = make(&f, f.id(), "git").await;
    assert_eq!((&made.spec, made.version), (&spec("git"), 1));
    assert!(made.has_credentials && made.asked_at.is_none());
    assert_eq!(f.store.get_upstream(f.id(), "git").await.unwrap(), made);
    let asked = f.store.upstream_to_ask(f.id(), "git").await.unwrap();
    assert_eq!(
        (&asked.upstream, asked.tenant.as_str()),
        (&made, f.tenant.name.as_str())
    );
    assert_eq!(asked.credentials, Some(sealed("k1", b"\0secret")));
    let again = f.store.create_upstream(f.id(), &spec("git"), None, now()).await;
    assert_error!(again, StoreError::Conflict);

    let bare = UpstreamSpec {
        max_result_bytes: None,
        enabled: false,
        ..spec("a")
    };
    let bare = f.store.create_upstream(f.id(), &bare, None, now()).await.unwrap();
    assert_eq!((bare.next_refresh_at, bare.has_credentials), (None, false));
    assert_eq!(f.store.count_upstreams(f.id()).await.unwrap(), 2);
    let page = f.store.list_upstreams(f.id(), &first(1)).await.unwrap();
    assert_eq!(page.items, [bare]);
    let page = f.store.list_upstreams(f.id(), &next(&page, 1)).await.unwrap();
    assert_eq!((page.items, page.next_cursor), (vec![made.clone()], None));

    let error = RefreshError {
        code: "connect_failed".into(),
        message: "cannot connect".into(),
    };
    let failed = f.store.keep_failure(&made, &error, now()).await.unwrap();
    assert_eq!(
        (failed.error.as_ref(), failed.version, failed.answered_at),
        (Some(&error), 1, None)
    );
    let (answered, _) = answer(&f, &made, &[("x", "d")]).await;
    assert_eq!(
        (answered.error, answered.learnt.server.as_str()),
        (None, "theirs")
    );
}

pub(crate) async fn an_answer_touches_only_what_changed(f: Fixture) {
    let upstream = make(&f, f.id(), "git").await;
    let (_, settled) = answer(&f, &upstream, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    assert_eq!(counts(&settled), (3, 0, 0));
    assert_eq!(names(&f).await, ["git_a", "git_b", "git_c"]);
    let (tool, credentials) = f.store.tool_to_run(f.id(), "git_a").await.unwrap();
    assert_eq!(credentials, Some(sealed("k1", b"\0secret")));
    assert_eq!(tool.spec.options.upstream.unwrap().tool, "a");
    let before = f.store.catalogue_revision().await.unwrap();
    assert_eq!(before, 1, "all of them at one revision");

    let (_, settled) = answer(&f, &upstream, &[("a", "1"), ("b", "1"), ("c", "1")]).await;
    assert_eq!(counts(&settled), (0, 0, 0));
    assert_eq!(f.store.catalogue_revision().await.unwrap(), before);

    let (_, settled) = answer(&f, &upstream, &[("b", "2"), ("c", "1"), ("d", "1")]).await;
    assert_eq!(counts(&settled), (1, 1, 1));
    let changes = f.store.tools_since(before).await.unwrap();
    assert_eq!((changes.revision, changes.removed), (2, vec![(f.id(), tool.id)]));
    let mut changed: Vec<_> = changes
        .upserted
        .into_iter()
        .map(|t| (t.spec.name, t.version))
        .collect();
    changed.sort();
    assert_eq!(changed, [("git_b".to_owned(), 2), ("git_d".to_owned(), 1)]);
}

pub(crate) async fn earlier_versions_find_nothing_to_call_in_an_upstreams_tools(f: Fixture) {
    // What they read of each tool, of which they understand no options but those that they know.
    type Seen = (String, String, String, String, Option<String>, Option<Vec<u8>>);
    let seen = async || {
        f.sql::<Seen>(
            "SELECT name, method, url, options, credentials_key_id, credentials FROM tools WHERE revision > 0",
        )
        .await
    };
    let nowhere = |name: &str| {
        let text = |text: &str| text.to_owned();
        [(
            text(name),
            text("POST"),
            text("https://upstream.invalid/"),
            text("{}"),
            None,
            None,
        )]
    };
    let upstream = make(&f, f.id(), "git").await;
    answer(&f, &upstream, &[("a", "1")]).await;
    assert_eq!(seen().await, nowhere("git_a"));
    let set = CredentialsChange::Set(sealed("k2", b"2"));
    let changed = f
        .store
        .update_upstream(f.id(), &spec("git"), &set, 1, now())
        .await
        .unwrap();
    assert_eq!(seen().await, nowhere("git_a"));

    // One of them was asked to change it: what it wrote goes nowhere, and the next answer puts it right.
    let mine = "UPDATE tools SET description = 'mine', url = 'https://mine.example.com', options = '{}',
         credentials_key_id = 'k1', version = version + 1 RETURNING name";
    assert_eq!(f.sql::<(String,)>(mine).await.len(), 1);
    let (tool, credentials) = f.store.tool_to_run(f.id(), "git_a").await.unwrap();
    assert_eq!(tool.spec.url, spec("git").url);
    assert_eq!(tool.spec.options.max_result_bytes, Some(1_000));
    assert_eq!(
        (tool.has_credentials, credentials),
        (true, Some(sealed("k2", b"2")))
    );
    let (_, settled) = answer(&f, &changed, &[("a", "1")]).await;
    assert_eq!(counts(&settled), (0, 1, 0));
    assert_eq!(seen().await, nowhere("git_a"));
}

pub(crate) async fn names_that_others_have_are_left_to_them(f: Fixture) {
    f.store
        .create_tool(f.id(), &own_tool("git_a"), None)
        .await
        .unwrap();
    let (git, git_hub) = (make(&f, f.id(), "git").await, make(&f, f.id(), "git_hub").await);
    answer(&f, &git_hub, &[("x", "theirs")]).await;
    let (kept, settled) = answer(&f, &git, &[("a", "1"), ("hub_x", "1"), ("b", "1")]).await;
    assert_eq!(counts(&settled), (1, 0, 0));
    let taken = [
        LeftOut::new("a", Reason::NameTaken),
        LeftOut::new("hub_x", Reason::NameTaken),
    ];
    assert_eq!(kept.learnt.left_out, taken);
    assert_eq!((kept.learnt.left_out_count, kept.learnt.tools), (2, 1));
    let own = f.store.get_tool(f.id(), "git_a").await.unwrap();
    assert_eq!(own.spec, own_tool("git_a"), "it is not touched");

    // Whoever changes the tenant's own tools does not reach those of an upstream.
    let keep = CredentialsChange::Keep;
    let changed = f.store.update_tool(f.id(), &own_tool("git_b"), &keep, None).await;
    assert_error!(changed, StoreError::NotFound);
    assert_error!(f.store.delete_tool(f.id(), "git_b").await, StoreError::NotFound);
    let again = f.store.create_tool(f.id(), &own_tool("git_b"), None).await;
    assert_error!(again, StoreError::Conflict);
}

pub(crate) async fn a_change_reaches_the_tools_and_ends_what_was_asked_before(f: Fixture) {
    let old = make(&f, f.id(), "git").await;
    answer(&f, &old, &[("a", "1"), ("b", "1")]).await;
    let changed = UpstreamSpec {
        url: "https://other.example.com/mcp".into(),
        tools: vec!["b".into()],
        ..spec("git")
    };
    let set = CredentialsChange::Set(sealed("k2", b"2"));
    let late = f.store.update_upstream(f.id(), &changed, &set, 7, now()).await;
    assert_error!(late, StoreError::VersionMismatch { current: 1 });
    let updated = f
        .store
        .update_upstream(f.id(), &changed, &set, 1, now())
        .await
        .unwrap();
    assert_eq!(
        (&updated.spec, updated.version, updated.learnt.tools),
        (&changed, 2, 1)
    );
    assert_eq!(names(&f).await, ["git_b"]);
    let (tool, credentials) = f.store.tool_to_run(f.id(), "git_b").await.unwrap();
    assert_eq!(
        (tool.spec.url.as_str(), credentials),
        (changed.url.as_str(), Some(sealed("k2", b"2")))
    );

    // What the server said that was asked before comes too late.
    let tools = offered(&old, &[("a", "1")]);
    let answered = Answered {
        upstream: &old,
        tools: &tools,
        learnt: &Learnt::default(),
        at: now(),
    };
    assert_error!(f.store.keep_answer(&answered).await, StoreError::NotFound);

    let off = UpstreamSpec {
        enabled: false,
        ..changed
    };
    let keep = CredentialsChange::Keep;
    let off = f
        .store
        .update_upstream(f.id(), &off, &keep, 2, now())
        .await
        .unwrap();
    assert_eq!((off.next_refresh_at, off.has_credentials), (None, true));
    assert!(names(&f).await.is_empty());
}

pub(crate) async fn with_an_upstream_its_tools_go(f: Fixture) {
    let git = make(&f, f.id(), "git").await;
    let own = f.store.create_tool(f.id(), &own_tool("own"), None).await.unwrap();
    answer(&f, &git, &[("a", "1"), ("b", "1")]).await;
    let revision = f.store.catalogue_revision().await.unwrap();
    let late = f.store.delete_upstream(f.id(), "git", Some(2)).await;
    assert_error!(late, StoreError::VersionMismatch { current: 1 });
    f.store.delete_upstream(f.id(), "git", Some(1)).await.unwrap();
    assert_eq!(tools(&f).await, [own]);
    let changes = f.store.tools_since(revision).await.unwrap();
    assert_eq!((changes.upserted.len(), changes.removed.len()), (0, 2));
    let gone = f.store.delete_upstream(f.id(), "git", None).await;
    assert_error!(gone, StoreError::NotFound);
}

pub(crate) async fn an_upstream_that_is_due_is_claimed_once(f: Fixture) {
    make(&f, f.id(), "later").await;
    let due = spec("due");
    f.store
        .create_upstream(f.id(), &due, None, after(-10))
        .await
        .unwrap();
    f.store
        .create_upstream(f.stranger.id, &due, None, after(-5))
        .await
        .unwrap();
    let claim = async || f.store.claim_due_upstreams(now(), after(300), 10).await.unwrap();
    f.store
        .set_tenant_status(&f.stranger.name, TenantStatus::Suspended)
        .await
        .unwrap();
    let claimed = claim().await;
    assert_eq!(claimed.len(), 1);
    assert_eq!(
        (claimed[0].upstream.tenant_id, claimed[0].tenant.as_str()),
        (f.id(), f.tenant.name.as_str())
    );
    assert!(claim().await.is_empty(), "its next turn is later");
    f.store
        .set_tenant_status(&f.stranger.name, TenantStatus::Active)
        .await
        .unwrap();
    assert_eq!(claim().await.len(), 1, "a suspended tenant's waits");
}

pub(crate) async fn an_upstreams_credentials_are_rekeyed_with_its_tools(f: Fixture) {
    let git = make(&f, f.id(), "git").await;
    answer(&f, &git, &[("a", "1")]).await;
    let before = f.store.get_tool(f.id(), "git_a").await.unwrap();
    let (old, new) = (sealed("k1", b"\0secret"), sealed("k2", b"new"));
    let due = f.store.upstream_credentials_to_rekey("k2", 10).await.unwrap();
    assert_eq!(due, [(git.id, old.clone())]);
    let rekey = async |from: &SealedCredentials| {
        f.store
            .rekey_upstream_credentials(git.id, from, &new)
            .await
            .unwrap()
    };
    assert!(!rekey(&sealed("k1", b"other")).await);
    assert!(rekey(&old).await);
    assert!(f.store.credentials_to_rekey("k2", 10).await.unwrap().is_empty());
    let (tool, credentials) = f.store.tool_to_run(f.id(), "git_a").await.unwrap();
    assert_eq!((tool, credentials), (before, Some(new)), "nothing else changes");
    let (_, settled) = answer(&f, &git, &[("a", "1")]).await;
    assert_eq!(settled.count(), 0);
}

pub(crate) async fn another_tenants_upstreams_do_not_exist(f: Fixture) {
    let theirs = make(&f, f.stranger.id, "git").await;
    assert_error!(f.store.get_upstream(f.id(), "git").await, StoreError::NotFound);
    assert_error!(f.store.upstream_to_ask(f.id(), "git").await, StoreError::NotFound);
    let keep = CredentialsChange::Keep;
    let changed = f
        .store
        .update_upstream(f.id(), &spec("git"), &keep, 1, now())
        .await;
    assert_error!(changed, StoreError::NotFound);
    let gone = f.store.delete_upstream(f.id(), "git", None).await;
    assert_error!(gone, StoreError::NotFound);
    assert_eq!(f.store.count_upstreams(f.id()).await.unwrap(), 0);
    assert!(
        f.store
            .list_upstreams(f.id(), &first(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let claimed = Upstream {
        tenant_id: f.id(),
        ..theirs.clone()
    };
    let error = RefreshError {
        code: "x".into(),
        message: "x".into(),
    };
    assert_error!(
        f.store.keep_failure(&claimed, &error, now()).await,
        StoreError::NotFound
    );
    let answered = Answered {
        upstream: &claimed,
        tools: &[],
        learnt: &Learnt::default(),
        at: now(),
    };
    assert_error!(f.store.keep_answer(&answered).await, StoreError::NotFound);
    assert_eq!(f.store.get_upstream(f.stranger.id, "git").await.unwrap(), theirs);
}
