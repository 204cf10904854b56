use crate::harness::{Fixture, assert_error};
use domain::tenant::TenantStatus;
use rest_api::store::StoreError;

pub(crate) async fn a_tenant_is_made_found_and_suspended(f: Fixture) {
    assert_eq!(f.store.tenant_by_name("acme").await.unwrap(), f.tenant);
    assert_eq!(
        f.store.list_tenants().await.unwrap(),
        [f.tenant.clone(), f.stranger.clone()]
    );
    assert_error!(f.store.create_tenant("acme").await, StoreError::Conflict);
    assert_error!(f.store.tenant_by_name("nobody").await, StoreError::NotFound);
    assert_error!(f.store.tenant_by_name("a\0b").await, StoreError::NotFound);
    assert_error!(
        f.store.set_tenant_status("nobody", TenantStatus::Active).await,
        StoreError::NotFound
    );
    let suspended = f
        .store
        .set_tenant_status("acme", TenantStatus::Suspended)
        .await
        .unwrap();
    assert_eq!(suspended.status, TenantStatus::Suspended);
    assert_eq!(f.store.tenant_by_name("acme").await.unwrap(), suspended);
    assert_eq!(
        f.store.tenant_by_name("stranger").await.unwrap().status,
        TenantStatus::Active
    );
}

pub(crate) async fn migrating_again_changes_nothing(f: Fixture) {
    let (first, second) = tokio::join!(f.store.migrate(), f.store.migrate());
    first.unwrap();
    second.unwrap();
    f.store.ping().await.unwrap();
    assert_eq!(f.store.list_tenants().await.unwrap().len(), 2);
    let pool = f.store.pool();
    assert!(pool.open >= 1 && pool.max >= pool.open, "{pool:?}");
    assert!(["sqlite", "postgresql"].contains(&f.store.system()));
}
