//! Tenants.

use super::{SqlStore, Statement};
use crate::clock::now;
use crate::store::{
    Result,
    rows::{TenantRow, micros, read_all, read_found},
};
use domain::{
    TenantId,
    tenant::{Tenant, TenantStatus},
};

const INSERT: Statement = Statement::new(
    "tenants.insert",
    "INSERT INTO tenants (id, name, status, created_at) VALUES ($1, $2, $3, $4)",
);
const LIST: Statement = Statement::new(
    "tenants.list",
    "SELECT id, name, status, created_at FROM tenants ORDER BY name",
);
const GET: Statement = Statement::new(
    "tenants.get",
    "SELECT id, name, status, created_at FROM tenants WHERE name = $1",
);
const SET_STATUS: Statement = Statement::new(
    "tenants.set_status",
    "UPDATE tenants SET status = $2 WHERE name = $1 RETURNING id, name, status, created_at",
);

pub(super) async fn create(store: &SqlStore, name: &str) -> Result<Tenant> {
    let tenant = Tenant {
        id: TenantId::new(),
        name: name.to_owned(),
        status: TenantStatus::Active,
        created_at: now(),
    };
    let call = INSERT
        .bind(tenant.id.0)
        .bind(tenant.name.clone())
        .bind(tenant.status.as_str());
    call.bind(micros(tenant.created_at)).execute(&store.write).await?;
    Ok(tenant)
}

pub(super) async fn list(store: &SqlStore) -> Result<Vec<Tenant>> {
    read_all(LIST.call().all::<TenantRow>(&store.read).await?)
}

pub(super) async fn get(store: &SqlStore, name: &str) -> Result<Tenant> {
    read_found(GET.bind(name.to_owned()).first::<TenantRow>(&store.read).await?)
}

pub(super) async fn set_status(store: &SqlStore, name: &str, status: TenantStatus) -> Result<Tenant> {
    let call = SET_STATUS.bind(name.to_owned()).bind(status.as_str());
    read_found(call.first::<TenantRow>(&store.write).await?)
}
