use crate::harness::{Fixture, after, assert_error, first, next, now};
use domain::{ApiKeyId, api_key::ApiKey, tenant::TenantStatus};
use rest_api::store::StoreError;

pub(crate) async fn a_key_is_found_by_its_hash_alone(f: Fixture) {
    let (key, hash) = f.key(f.id(), now()).await;
    let owner = f.store.key_owner(&hash).await.unwrap().unwrap();
    assert_eq!(owner.key, key);
    assert_eq!(owner.tenant_status, TenantStatus::Active);
    assert_eq!(
        (owner.principal.tenant_id, owner.principal.tenant.as_str()),
        (f.id(), "acme")
    );
    assert_eq!(
        (owner.principal.key_id, owner.principal.scopes),
        (key.id, key.scopes.clone())
    );
    let (_, other) = f.key(f.stranger.id, now()).await;
    assert_eq!(
        f.store.key_owner(&other).await.unwrap().unwrap().principal.tenant,
        "stranger"
    );

    let mut wrong = hash;
    wrong.0[31] ^= 1;
    assert!(f.store.key_owner(&wrong).await.unwrap().is_none());
    assert_error!(
        f.store
            .create_key(
                &ApiKey {
                    id: ApiKeyId::new(),
                    ..key
                },
                &hash
            )
            .await,
        StoreError::Conflict
    );
    let homeless = ApiKey {
        id: ApiKeyId::new(),
        tenant_id: domain::TenantId::new(),
        ..owner.key
    };
    assert_error!(f.store.create_key(&homeless, &wrong).await, StoreError::NotFound);

    f.store
        .set_tenant_status("acme", TenantStatus::Suspended)
        .await
        .unwrap();
    assert_eq!(
        f.store.key_owner(&hash).await.unwrap().unwrap().tenant_status,
        TenantStatus::Suspended
    );
    let used = now();
    f.store.touch_key(homeless.id, used).await.unwrap();
    f.store.touch_key(owner.principal.key_id, used).await.unwrap();
    f.store
        .touch_key(owner.principal.key_id, after(-60))
        .await
        .unwrap();
    let key = f.store.get_key(f.id(), owner.principal.key_id).await.unwrap();
    assert_eq!(key.last_used_at, Some(used));
}

pub(crate) async fn keys_are_listed_newest_first(f: Fixture) {
    let mut made = Vec::new();
    for age in [50, 40, 30, 20, 10] {
        made.insert(0, f.key(f.id(), after(-age)).await.0.id);
    }
    let one = f.store.list_keys(f.id(), &first(2)).await.unwrap();
    f.key(f.id(), now()).await;
    let two = f.store.list_keys(f.id(), &next(&one, 2)).await.unwrap();
    let three = f.store.list_keys(f.id(), &next(&two, 2)).await.unwrap();
    assert_eq!(three.next_cursor, None);
    let seen: Vec<_> = [one, two, three]
        .into_iter()
        .flat_map(|page| page.items)
        .map(|key| key.id)
        .collect();
    assert_eq!(seen, made);
}

pub(crate) async fn revoking_again_never_postpones(f: Fixture) {
    let (key, hash) = f.key(f.id(), now()).await;
    let (soon, later) = (after(60), after(3600));
    assert_eq!(
        f.store
            .revoke_key(f.id(), key.id, later)
            .await
            .unwrap()
            .revoked_at,
        Some(later)
    );
    assert_eq!(
        f.store.revoke_key(f.id(), key.id, soon).await.unwrap().revoked_at,
        Some(soon)
    );
    assert_eq!(
        f.store
            .revoke_key(f.id(), key.id, later)
            .await
            .unwrap()
            .revoked_at,
        Some(soon)
    );
    assert!(
        f.store
            .key_owner(&hash)
            .await
            .unwrap()
            .unwrap()
            .key
            .is_active(now())
    );
    assert_error!(
        f.store.revoke_key(f.id(), ApiKeyId::new(), soon).await,
        StoreError::NotFound
    );
}

pub(crate) async fn active_keys_are_counted_by_tenant(f: Fixture) {
    let (gone, _) = f.key(f.id(), now()).await;
    let (going, _) = f.key(f.id(), now()).await;
    f.key(f.id(), now()).await;
    f.store.revoke_key(f.id(), gone.id, after(-1)).await.unwrap();
    f.store.revoke_key(f.id(), going.id, after(60)).await.unwrap();
    let count = f.store.count_active_keys(now()).await.unwrap();
    assert_eq!(count, [("acme".to_owned(), 2), ("stranger".to_owned(), 0)]);
    assert_eq!(f.store.count_active_keys(after(90)).await.unwrap()[0].1, 1);
}

pub(crate) async fn another_tenants_keys_do_not_exist(f: Fixture) {
    let (key, _) = f.key(f.id(), now()).await;
    let stranger = f.stranger.id;
    assert_error!(f.store.get_key(stranger, key.id).await, StoreError::NotFound);
    assert_error!(
        f.store.revoke_key(stranger, key.id, now()).await,
        StoreError::NotFound
    );
    assert!(
        f.store
            .list_keys(stranger, &first(10))
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(f.store.get_key(f.id(), key.id).await.unwrap(), key);
}

pub(crate) async fn many_are_read_at_once(f: Fixture) {
    let (one, _) = f.key(f.id(), now()).await;
    let (two, _) = f.key(f.id(), now()).await;
    f.key(f.id(), now()).await;
    let (foreign, _) = f.key(f.stranger.id, now()).await;
    let asked = [two.id, ApiKeyId::new(), foreign.id, one.id];
    let mut found = f.store.get_keys(f.id(), &asked).await.unwrap();
    found.sort_by_key(|key| key.id);
    let mut expected = vec![one, two];
    expected.sort_by_key(|key| key.id);
    assert_eq!(found, expected);
    assert!(f.store.get_keys(f.id(), &[]).await.unwrap().is_empty());
    assert_eq!(f.store.get_keys(f.stranger.id, &asked).await.unwrap(), [foreign]);
}
