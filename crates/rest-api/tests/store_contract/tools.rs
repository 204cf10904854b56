use crate::harness::{Fixture, assert_error, first, next, object, spec};
use domain::{
    ToolId,
    tool::{Method, Tool, ToolSpec},
};
use rest_api::store::{CredentialsChange, SealedCredentials, StoreError};
use serde_json::json;

fn sealed(key: &str, bytes: &[u8]) -> SealedCredentials {
    SealedCredentials {
        key_id: key.into(),
        sealed: bytes.to_vec(),
    }
}

pub(crate) async fn a_tool_survives_the_round_trip(f: Fixture) {
    let tool = f
        .store
        .create_tool(f.id(), &spec("restart"), Some(&sealed("k1", b"\0\xff")))
        .await
        .unwrap();
    assert_eq!(
        (&tool.spec, tool.version, tool.tenant_id),
        (&spec("restart"), 1, f.id())
    );
    assert!(tool.has_credentials);
    assert_eq!(f.store.get_tool(f.id(), "restart").await.unwrap(), tool);
    assert_eq!(
        f.store.tool_to_run(f.id(), "restart").await.unwrap(),
        (tool, Some(sealed("k1", b"\0\xff")))
    );
    assert_error!(
        f.store.create_tool(f.id(), &spec("restart"), None).await,
        StoreError::Conflict
    );
    assert_error!(f.store.get_tool(f.id(), "Restart").await, StoreError::NotFound);
    for name in ["b", "a", "c"] {
        f.tool(name).await;
    }
    let one = f.store.list_tools(f.id(), &first(2)).await.unwrap();
    f.tool("aa").await;
    let two = f.store.list_tools(f.id(), &next(&one, 2)).await.unwrap();
    assert_eq!(two.next_cursor, None);
    let names: Vec<_> = [one, two]
        .into_iter()
        .flat_map(|page| page.items)
        .map(|tool| tool.spec.name)
        .collect();
    assert_eq!(names, ["a", "b", "c", "restart"]);
}

pub(crate) async fn updates_replace_the_spec_and_keep_credentials(f: Fixture) {
    f.store
        .create_tool(f.id(), &spec("t"), Some(&sealed("k1", b"1")))
        .await
        .unwrap();
    let changed = ToolSpec {
        description: "Other".into(),
        method: Method::Get,
        url: "https://example.com/{a}".into(),
        headers: Default::default(),
        input_schema: object(json!({"type": "object", "x": "\u{0}"})),
        timeout_ms: 300_000,
        read_only: true,
        idempotent: false,
        destructive: false,
        ..spec("t")
    };
    let update = async |change: CredentialsChange, version| {
        f.store.update_tool(f.id(), &changed, &change, version).await
    };
    assert_error!(
        update(CredentialsChange::Remove, Some(2)).await,
        StoreError::VersionMismatch { current: 1 }
    );
    let kept = update(CredentialsChange::Keep, Some(1)).await.unwrap();
    assert_eq!(
        (&kept.spec, kept.version, kept.has_credentials),
        (&changed, 2, true)
    );
    let stored = f.store.tool_to_run(f.id(), "t").await.unwrap();
    assert_eq!(stored, (kept, Some(sealed("k1", b"1"))));
    update(CredentialsChange::Set(sealed("k2", b"2")), None)
        .await
        .unwrap();
    assert_eq!(
        f.store.tool_to_run(f.id(), "t").await.unwrap().1,
        Some(sealed("k2", b"2"))
    );
    let bare = update(CredentialsChange::Remove, None).await.unwrap();
    assert_eq!((bare.version, bare.has_credentials), (4, false));
    assert_eq!(f.store.tool_to_run(f.id(), "t").await.unwrap(), (bare, None));
    let missing = f
        .store
        .update_tool(f.id(), &spec("other"), &CredentialsChange::Keep, None)
        .await;
    assert_error!(missing, StoreError::NotFound);
}

pub(crate) async fn the_catalogue_counts_every_change(f: Fixture) {
    let start = f.store.tools_since(0).await.unwrap();
    assert_eq!(
        (start.revision, start.upserted.len(), start.removed.len()),
        (0, 0, 0)
    );
    let (a, b) = (f.tool("a").await, f.tool("b").await);
    let theirs = f
        .store
        .create_tool(f.stranger.id, &spec("a"), None)
        .await
        .unwrap();
    let made = f.store.tools_since(0).await.unwrap();
    assert_eq!((made.revision, made.upserted), (3, vec![a.clone(), b, theirs]));
    assert_eq!(f.store.catalogue_revision().await.unwrap(), 3);

    let changed = f
        .store
        .update_tool(f.id(), &spec("b"), &CredentialsChange::Keep, None)
        .await
        .unwrap();
    f.store.delete_tool(f.id(), "a").await.unwrap();
    let refused = f
        .store
        .update_tool(f.id(), &spec("b"), &CredentialsChange::Keep, Some(1))
        .await;
    assert_error!(refused, StoreError::VersionMismatch { current: 2 });
    assert_error!(f.store.delete_tool(f.id(), "a").await, StoreError::NotFound);
    assert_error!(
        f.store.create_tool(f.id(), &spec("b"), None).await,
        StoreError::Conflict
    );
    let changes = f.store.tools_since(made.revision).await.unwrap();
    assert_eq!(
        (changes.revision, changes.upserted),
        (5, vec![changed]),
        "what was refused does not count"
    );
    assert_eq!(changes.removed, [(f.id(), a.id)]);
    let again = f.tool("a").await;
    let changes = f.store.tools_since(5).await.unwrap();
    assert_eq!((changes.upserted, changes.removed), (vec![again.clone()], vec![]));
    assert_ne!(again.id, a.id);
    let quiet = f.store.tools_since(6).await.unwrap();
    assert_eq!(
        (quiet.revision, quiet.upserted.len(), quiet.removed.len()),
        (6, 0, 0)
    );
}

pub(crate) async fn credentials_are_rekeyed_only_where_unchanged(f: Fixture) {
    f.tool("none").await;
    f.store
        .create_tool(f.id(), &spec("new"), Some(&sealed("k2", b"n")))
        .await
        .unwrap();
    let old = f
        .store
        .create_tool(f.id(), &spec("old"), Some(&sealed("k1", b"o")))
        .await
        .unwrap();
    let theirs = f
        .store
        .create_tool(f.stranger.id, &spec("old"), Some(&sealed("k1", b"t")))
        .await
        .unwrap();
    let todo = f.store.credentials_to_rekey("k2", 10).await.unwrap();
    assert_eq!(
        todo,
        [(old.id, sealed("k1", b"o")), (theirs.id, sealed("k1", b"t"))]
    );
    assert_eq!(f.store.credentials_to_rekey("k2", 1).await.unwrap().len(), 1);
    let rekey = async |id, from: &[u8]| {
        f.store
            .rekey_credentials(id, &sealed("k1", from), &sealed("k2", b"re"))
            .await
    };
    assert!(rekey(old.id, b"o").await.unwrap());
    assert!(!rekey(old.id, b"o").await.unwrap());
    assert!(!rekey(theirs.id, b"changed").await.unwrap());
    assert!(!rekey(ToolId::new(), b"o").await.unwrap());
    let (tool, credentials) = f.store.tool_to_run(f.id(), "old").await.unwrap();
    assert_eq!((tool.version, credentials), (1, Some(sealed("k2", b"re"))));
    assert_eq!(f.store.credentials_to_rekey("k2", 10).await.unwrap().len(), 1);
}

pub(crate) async fn another_tenants_tools_do_not_exist(f: Fixture) {
    let tool = f
        .store
        .create_tool(f.id(), &spec("t"), Some(&sealed("k", b"x")))
        .await
        .unwrap();
    let stranger = f.stranger.id;
    assert_error!(f.store.get_tool(stranger, "t").await, StoreError::NotFound);
    assert_error!(f.store.tool_to_run(stranger, "t").await, StoreError::NotFound);
    let update = f
        .store
        .update_tool(stranger, &spec("t"), &CredentialsChange::Remove, None)
        .await;
    assert_error!(update, StoreError::NotFound);
    assert_error!(f.store.delete_tool(stranger, "t").await, StoreError::NotFound);
    assert!(
        f.store
            .list_tools(stranger, &first(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    f.store.create_tool(stranger, &spec("t"), None).await.unwrap();
    f.store.delete_tool(stranger, "t").await.unwrap();
    assert_eq!(f.store.get_tool(f.id(), "t").await.unwrap(), tool);
}

pub(crate) async fn a_tool_that_cannot_be_read_hides_no_other(f: Fixture) {
    for name in ["a", "b", "c", "d"] {
        f.tool(name).await;
    }
    let newer = r#"UPDATE tools SET options = '{"newer": 1}' WHERE name = 'b' RETURNING name"#;
    assert_eq!(f.sql::<(String,)>(newer).await.len(), 1);
    let one = f.store.list_tools(f.id(), &first(2)).await.unwrap();
    let two = f.store.list_tools(f.id(), &next(&one, 2)).await.unwrap();
    let names = |tools: Vec<Tool>| tools.into_iter().map(|tool| tool.spec.name).collect::<Vec<_>>();
    assert_eq!((names(one.items), two.next_cursor), (vec!["a".to_owned()], None));
    assert_eq!(names(two.items), ["c", "d"]);
    let changes = f.store.tools_since(0).await.unwrap();
    assert_eq!(
        (changes.revision, names(changes.upserted)),
        (4, ["a", "c", "d"].map(str::to_owned).to_vec())
    );
    assert_error!(f.store.get_tool(f.id(), "b").await, StoreError::Internal(_));
}
