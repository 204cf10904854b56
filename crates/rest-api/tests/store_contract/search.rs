use crate::harness::{Fixture, first, items, new_context};
use domain::{
    context::{Context, ContextFilter, ContextPatch, ContextStatus, NewContext, SearchHit},
    page::MAX_LIMIT,
};

async fn search(f: &Fixture, query: &str) -> Vec<SearchHit> {
    f.store
        .search_contexts(f.id(), query, &ContextFilter::default(), MAX_LIMIT)
        .await
        .unwrap()
}

async fn names(f: &Fixture, query: &str) -> Vec<String> {
    search(f, query)
        .await
        .into_iter()
        .map(|hit| hit.context.name)
        .collect()
}

pub(crate) async fn words_phrases_and_names_are_found(f: Fixture) {
    let text = "GET https://api.example.com/v1/checkout?id=42 timed out after 30s in payments-api_v2";
    f.context(
        "outage",
        &["irrelevant", text, "東京のサーバーが停止した", "ÜBERLAST im Café"],
    )
    .await;
    for query in [
        "checkout",
        "CHECKOUT",
        "example",
        "api.example.com",
        "timed out",
        "\"timed out\"",
        "out timed",
        "payments-api",
        "v1/checkout",
        "id=42",
        "30s",
        "東京",
        "サーバー",
        "überlast",
        "café",
        "CAFÉ",
        "outage",
        "\"after 30s in\"",
        "payments\u{a0}api",
        "\"timed out",
        "checkout \"\" !!",
    ] {
        assert_eq!(names(&f, query).await, ["outage"], "{query}");
    }
    for query in [
        "check",
        "\"out timed\"",
        "京東",
        "api-payments",
        "checkout missing",
        "irrelevant checkout",
        "\"outage irrelevant\"",
    ] {
        assert!(names(&f, query).await.is_empty(), "{query}");
    }
    let hits = search(&f, "checkout").await;
    assert_eq!((hits[0].sequence, hits[0].context.item_count), (2, 4));
    assert!(hits[0].score > 0.0);
    assert_eq!(
        search(&f, "outage").await[0].sequence,
        0,
        "a name stands before the items"
    );
}

pub(crate) async fn hostile_queries_find_nothing_and_break_nothing(f: Fixture) {
    f.context("c", &["plain text"]).await;
    let long = "word ".repeat(10_000);
    for query in [
        "",
        " ",
        "\"",
        "\"\"",
        "*",
        "te*",
        "^plain^x",
        "NEAR(a b)",
        "plain AND NOT text",
        "words:plain",
        "plain OR x",
        "-plain y",
        "'; DROP TABLE contexts; --",
        "a:*",
        "plain | zzz",
        "<->",
        "\\",
        "\\'plain\\' q",
        "🙂",
        "\u{0}",
        "plain\u{0}zzz",
        "<script>alert(1)</script>",
        "{plain zzz}",
        "plain + zzz",
        "t:x",
        "\u{202e}\u{feff}",
        "%",
        "_",
        "((((",
        &long,
    ] {
        assert!(names(&f, query).await.is_empty(), "{query}");
    }
    for query in [
        "plain\u{0}text",
        "!plain & (",
        "'plain'",
        "*text*",
        "<text>",
        "plain:text",
        "text \"",
        "🙂plain🙂",
    ] {
        assert_eq!(names(&f, query).await, ["c"], "{query}");
    }
    let or = f.context("or", &["and or not near"]).await;
    assert_eq!(search(&f, "NOT NEAR OR AND").await[0].context, or);
}

pub(crate) async fn snippets_are_marked_and_escaped(f: Fixture) {
    f.context(
        "<b>name</b> & Co",
        &["<script>alert(\"Disk full\")</script> disk's FULL"],
    )
    .await;
    let hits = search(&f, "\"disk full\"").await;
    let expected =
        "&lt;script&gt;alert(&quot;<mark>Disk</mark> <mark>full</mark>&quot;)&lt;/script&gt; disk&#39;s FULL";
    assert_eq!(hits[0].snippet, expected);
    let hits = search(&f, "name").await;
    assert_eq!(hits[0].snippet, "&lt;b&gt;<mark>name</mark>&lt;/b&gt; &amp; Co");
    f.context(
        "long",
        &[&format!(
            "{}needle{}",
            "hay 🙂 ".repeat(20_000),
            " straw 語".repeat(1000)
        )],
    )
    .await;
    let snippet = search(&f, "needle").await.remove(0).snippet;
    assert!(
        snippet.contains("<mark>needle</mark> straw") && snippet.len() < 800,
        "{snippet}"
    );
    assert!(snippet.starts_with('…') && snippet.ends_with('…'), "{snippet}");
}

pub(crate) async fn each_context_is_found_once_best_first(f: Fixture) {
    let filler = "nothing to see here ".repeat(40);
    f.context("weak", &[&format!("{filler} latency {filler}")]).await;
    f.context("none", &[&filler]).await;
    f.context(
        "strong",
        &[
            &format!("{filler} latency"),
            "latency latency latency",
            "latency and more words",
        ],
    )
    .await;
    let hits = search(&f, "latency").await;
    assert_eq!(
        hits.iter()
            .map(|hit| hit.context.name.as_str())
            .collect::<Vec<_>>(),
        ["strong", "weak"]
    );
    assert_eq!(hits[0].sequence, 2);
    assert!(hits[0].score > hits[1].score);
    let one = f
        .store
        .search_contexts(f.id(), "latency", &ContextFilter::default(), 1)
        .await
        .unwrap();
    assert_eq!(one, hits[..1]);
}

pub(crate) async fn changes_reach_the_index(f: Fixture) {
    let context = f.context("alpha", &["first"]).await;
    let rename = ContextPatch {
        name: Some("beta".into()),
        ..Default::default()
    };
    f.store
        .update_context(f.id(), context.id, &rename, None)
        .await
        .unwrap();
    f.append(&context, &["second"]).await.unwrap();
    assert!(names(&f, "alpha").await.is_empty());
    for query in ["beta", "first", "second"] {
        assert_eq!(names(&f, query).await, ["beta"], "{query}");
    }
    f.store.delete_context(f.id(), context.id, None).await.unwrap();
    for query in ["beta", "first", "second"] {
        assert!(names(&f, query).await.is_empty(), "{query}");
    }
    // What was deleted leaves nothing behind that a new row could inherit.
    f.context("gamma", &["third"]).await;
    assert!(names(&f, "first").await.is_empty());
    assert_eq!(names(&f, "third").await, ["gamma"]);
}

pub(crate) async fn filters_and_tenants_narrow_the_search(f: Fixture) {
    let make = async |tenant, name: &str, new: NewContext| -> Context {
        let new = NewContext {
            name: name.into(),
            ..new
        };
        f.store
            .create_context(tenant, &new, &items(&["shared word"]), None)
            .await
            .unwrap()
            .into_inner()
    };
    make(f.stranger.id, "theirs", new_context("")).await;
    make(f.id(), "plain", new_context("")).await;
    let incident = NewContext {
        kind: "incident".into(),
        agent_id: Some("a".into()),
        ..new_context("")
    };
    let archived = make(f.id(), "incident", incident).await;
    let archive = ContextPatch {
        status: Some(ContextStatus::Archived),
        ..Default::default()
    };
    f.store
        .update_context(f.id(), archived.id, &archive, None)
        .await
        .unwrap();

    let theirs = f
        .store
        .search_contexts(f.stranger.id, "word", &ContextFilter::default(), 10)
        .await
        .unwrap();
    assert_eq!(
        theirs
            .iter()
            .map(|hit| hit.context.name.as_str())
            .collect::<Vec<_>>(),
        ["theirs"]
    );
    assert!(
        f.store
            .search_contexts(f.stranger.id, "incident", &ContextFilter::default(), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let mine = format!("'t:{}'", f.id());
    assert!(
        f.store
            .search_contexts(f.stranger.id, &mine, &ContextFilter::default(), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let any = ContextFilter::default;
    for (filter, expected) in [
        (any(), 2),
        (
            ContextFilter {
                kind: Some("incident".into()),
                ..any()
            },
            1,
        ),
        (
            ContextFilter {
                kind: Some("conversation".into()),
                ..any()
            },
            0,
        ),
        (
            ContextFilter {
                status: Some(ContextStatus::Archived),
                ..any()
            },
            1,
        ),
        (
            ContextFilter {
                agent_id: Some("a".into()),
                status: Some(ContextStatus::Active),
                ..any()
            },
            0,
        ),
        (
            ContextFilter {
                session_id: Some("s".into()),
                ..any()
            },
            0,
        ),
    ] {
        let hits = f
            .store
            .search_contexts(f.id(), "shared word", &filter, 10)
            .await
            .unwrap();
        assert_eq!(hits.len(), expected, "{filter:?}");
    }
}

/// Texts that a `tsvector` would refuse when it is built from them without care.
pub(crate) async fn long_and_dense_texts_can_be_indexed(f: Fixture) {
    let numbers: String = (0..90_000).map(|i| format!("{i:x} ")).collect();
    let ideographs: String = (0..100_000)
        .filter_map(|i| char::from_u32(0x4e00 + i % 0x5000))
        .collect();
    let beyond = format!("early {}late", "x ".repeat(130_000 + 2000));
    let word = "b".repeat(300_000);
    let context = f
        .context(
            "dense",
            &[&numbers, &ideographs, &beyond, &word, "\u{301}\u{200d}"],
        )
        .await;
    assert_eq!(names(&f, "a000").await, ["dense"]);
    assert_eq!(names(&f, "\u{4e00}\u{4e01}").await, ["dense"]);
    assert_eq!(names(&f, "early").await, ["dense"]);
    assert!(names(&f, "late").await.is_empty(), "beyond what is indexed");
    assert_eq!(search(&f, &word).await[0].sequence, 4);
    let page = f
        .store
        .list_items(f.id(), context.id, &first(10), usize::MAX, false)
        .await
        .unwrap()
        .items;
    assert_eq!(page.items[3].content, word);
}
