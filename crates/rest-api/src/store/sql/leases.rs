//! Named leases: what one replica does for all. Time is the database's, so that replicas' clocks do not matter.

use super::{SqlStore, Statement, dialect::now_micros};
use crate::store::Result;
use std::time::Duration;

const HOLD: Statement = Statement::new(
    "leases.hold",
    concat!(
        "INSERT INTO leases (name, owner, expires_at) VALUES ($1, $2, ",
        now_micros!(),
        " + $3)
         ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires_at = excluded.expires_at
         WHERE leases.owner = excluded.owner OR leases.expires_at <= ",
        now_micros!(),
        "
         RETURNING owner"
    ),
);
const RELEASE: Statement = Statement::new(
    "leases.release",
    "DELETE FROM leases WHERE name = $1 AND owner = $2",
);

pub(super) async fn hold(store: &SqlStore, name: &str, owner: &str, ttl: Duration) -> Result<bool> {
    let ttl = i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX / 2);
    let call = HOLD.bind(name.to_owned()).bind(owner.to_owned()).bind(ttl);
    Ok(call.first::<(String,)>(&store.write).await?.is_some())
}

pub(super) async fn release(store: &SqlStore, name: &str, owner: &str) -> Result<()> {
    RELEASE
        .bind(name.to_owned())
        .bind(owner.to_owned())
        .execute(&store.write)
        .await?;
    Ok(())
}
