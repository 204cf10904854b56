use crate::harness::{Fixture, after, assert_error, first, items, next, object};
use domain::{
    context::{Context, ContextItem, NewItem},
    page::{Page, PageRequest},
};
use rest_api::store::{Append, Idempotency, Made, StoreError};
use serde_json::json;

async fn list(
    f: &Fixture,
    context: &Context,
    request: &PageRequest,
    bytes: usize,
    back: bool,
) -> Page<ContextItem> {
    f.store
        .list_items(f.id(), context.id, request, bytes, back)
        .await
        .unwrap()
        .items
}

fn sequences(page: &Page<ContextItem>) -> Vec<i64> {
    page.items.iter().map(|item| item.sequence).collect()
}

pub(crate) async fn items_are_numbered_and_counted(f: Fixture) {
    let context = f.context("c", &["one"]).await;
    let item = NewItem {
        role: "tool".into(),
        content: "zwei €\n\t'\";--".into(),
        metadata: object(json!({"nul": "\u{0}", "n": 1.5})),
    };
    let append = Append {
        items: std::slice::from_ref(&item),
        max_bytes: 100,
        if_version: Some(1),
        idempotency: None,
    };
    let Made::New(appended) = f.store.append_items(f.id(), context.id, append).await.unwrap() else {
        panic!("not new")
    };
    assert_eq!((appended.context.version, appended.context.item_count), (2, 2));
    assert_eq!(appended.context.size_bytes, (3 + item.content.len()) as i64);
    assert!(appended.context.updated_at >= context.updated_at);
    assert_eq!(
        f.store.get_context(f.id(), context.id).await.unwrap(),
        appended.context
    );
    let page = list(&f, &context, &first(10), 1000, false).await;
    assert_eq!(page.items[1..], appended.items[..]);
    let kept = &page.items[1];
    assert_eq!(
        (kept.sequence, &kept.role, &kept.content, &kept.metadata),
        (2, &item.role, &item.content, &item.metadata)
    );
    assert_error!(
        f.store.append_items(f.id(), context.id, append).await,
        StoreError::VersionMismatch { current: 2 }
    );
    assert_eq!(
        f.store.get_context(f.id(), context.id).await.unwrap(),
        appended.context
    );
}

pub(crate) async fn a_page_is_cut_by_count_and_by_bytes(f: Fixture) {
    let context = f.context("c", &["11111", "22222", "33333"]).await;
    f.append(&context, &[&"4".repeat(50), "55555"]).await.unwrap();

    let one = list(&f, &context, &first(2), 1000, false).await;
    let two = list(&f, &context, &next(&one, 2), 1000, false).await;
    f.append(&context, &["66666"]).await.unwrap();
    let three = list(&f, &context, &next(&two, 2), 1000, false).await;
    assert_eq!(
        [&one, &two, &three].map(sequences),
        [vec![1, 2], vec![3, 4], vec![5, 6]]
    );
    assert_eq!(three.next_cursor, None);

    let one = list(&f, &context, &first(10), 14, false).await;
    let two = list(&f, &context, &next(&one, 10), 14, false).await;
    let three = list(&f, &context, &next(&two, 10), 14, false).await;
    let four = list(&f, &context, &next(&three, 10), 14, false).await;
    assert_eq!(
        [&one, &two, &three, &four].map(sequences),
        [vec![1, 2], vec![3], vec![4], vec![5, 6]]
    );
    assert_eq!(four.next_cursor, None);

    let one = list(&f, &context, &first(2), 1000, true).await;
    let two = list(&f, &context, &next(&one, 10), 20, true).await;
    let three = list(&f, &context, &next(&two, 10), 20, true).await;
    assert_eq!(
        [&one, &two, &three].map(sequences),
        [vec![6, 5], vec![4], vec![3, 2, 1]]
    );
    assert_eq!(three.next_cursor, None);

    let empty = f.context("empty", &[]).await;
    let page = list(&f, &empty, &first(10), 10, false).await;
    assert!(page.items.is_empty() && page.next_cursor.is_none());
    let forwards = f
        .store
        .list_items(f.id(), context.id, &next(&one, 2), 10, false)
        .await;
    assert_error!(forwards, StoreError::BadCursor);
    let elsewhere = f
        .store
        .list_items(f.id(), empty.id, &next(&one, 2), 10, true)
        .await;
    assert_error!(elsewhere, StoreError::BadCursor);
}

pub(crate) async fn the_same_append_adds_once(f: Fixture) {
    let context = f.context("c", &["0"]).await;
    let key = Idempotency {
        key: "k".into(),
        fingerprint: [1; 32],
        expires_at: after(60),
    };
    let items = items(&["1", "2"]);
    let append = Append {
        items: &items,
        max_bytes: 100,
        if_version: Some(1),
        idempotency: Some(&key),
    };
    let Made::New(first) = f.store.append_items(f.id(), context.id, append).await.unwrap() else {
        panic!("not new")
    };
    f.append(&context, &["3"]).await.unwrap();
    let Made::Before(again) = f.store.append_items(f.id(), context.id, append).await.unwrap() else {
        panic!("new")
    };
    assert_eq!(again.items, first.items);
    assert_eq!((again.context.item_count, again.context.version), (4, 3));
    let other = Idempotency {
        fingerprint: [2; 32],
        ..key.clone()
    };
    let mismatch = f
        .store
        .append_items(
            f.id(),
            context.id,
            Append {
                idempotency: Some(&other),
                ..append
            },
        )
        .await;
    assert_error!(mismatch, StoreError::IdempotencyMismatch);

    // What was refused is not remembered.
    let fresh = Idempotency {
        key: "fresh".into(),
        ..key.clone()
    };
    let append = Append {
        idempotency: Some(&fresh),
        ..append
    };
    let refused = f.store.append_items(f.id(), context.id, append).await;
    assert_error!(refused, StoreError::VersionMismatch { current: 3 });
    let append = Append {
        if_version: Some(3),
        ..append
    };
    assert!(matches!(
        f.store.append_items(f.id(), context.id, append).await,
        Ok(Made::New(_))
    ));
}

pub(crate) async fn a_context_grows_no_further_than_its_limit(f: Fixture) {
    let context = f.context("c", &["12345"]).await;
    let items = items(&["678", "90"]);
    let append = Append {
        items: &items,
        max_bytes: 9,
        if_version: None,
        idempotency: None,
    };
    assert_error!(
        f.store.append_items(f.id(), context.id, append).await,
        StoreError::TooLarge { limit: 9 }
    );
    assert_eq!(f.store.get_context(f.id(), context.id).await.unwrap(), context);
    let append = Append {
        max_bytes: 10,
        ..append
    };
    let appended = f
        .store
        .append_items(f.id(), context.id, append)
        .await
        .unwrap()
        .into_inner();
    assert_eq!((appended.context.size_bytes, appended.context.version), (10, 2));
}

pub(crate) async fn another_tenants_items_do_not_exist(f: Fixture) {
    let context = f.context("c", &["secret"]).await;
    let stranger = f.stranger.id;
    let key = Idempotency {
        key: "k".into(),
        fingerprint: [1; 32],
        expires_at: after(60),
    };
    let items = items(&["x"]);
    let append = Append {
        items: &items,
        max_bytes: 100,
        if_version: None,
        idempotency: Some(&key),
    };
    assert_error!(
        f.store.append_items(stranger, context.id, append).await,
        StoreError::NotFound
    );
    assert_error!(
        f.store
            .list_items(stranger, context.id, &first(5), 100, false)
            .await,
        StoreError::NotFound
    );
    let page = list(&f, &context, &first(1), 100, false).await;
    let request = PageRequest {
        limit: 1,
        cursor: page.next_cursor,
    };
    assert_error!(
        f.store
            .list_items(stranger, context.id, &request, 100, true)
            .await,
        StoreError::NotFound
    );
    f.store.append_items(f.id(), context.id, append).await.unwrap();
    assert_error!(
        f.store.append_items(stranger, context.id, append).await,
        StoreError::NotFound
    );
    assert_eq!(
        f.store.get_context(f.id(), context.id).await.unwrap().item_count,
        2
    );
}
