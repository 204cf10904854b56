//! The audit log: kept for other services, and shown.

use super::Api;
use crate::{
    error::Result,
    store::{AuditFilter, audit::cursor},
};
use domain::{
    Principal, Scope,
    audit::Record,
    page::{Page, PageRequest},
};
use std::cmp::Reverse;

impl Api {
    /// Keeps what another service recorded.
    pub async fn keep_audit(&self, records: &[Record]) -> Result<()> {
        Ok(self.0.store.keep_audit(records).await?)
    }

    /// The tenant's records, newest first. Needs `audit:read`; with `platform:observe` those are among them of which
    /// nobody knows whose they are.
    pub async fn list_audit(
        &self,
        caller: &Principal,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<Record>> {
        caller.require(Scope::AuditRead)?;
        let store = &self.0.store;
        let own = store.list_audit(Some(caller.tenant_id), filter, page).await?;
        if !caller.scopes.contains(Scope::PlatformObserve) {
            return Ok(own);
        }
        let nobodys = store.list_audit(None, filter, page).await?;
        Ok(merged(own, nobodys, page.limit as usize))
    }
}

/// The newest of both. Each is a whole page, so what does not fit comes again on the next.
fn merged(one: Page<Record>, other: Page<Record>, limit: usize) -> Page<Record> {
    let more = one.next_cursor.is_some() || other.next_cursor.is_some();
    let mut items = one.items;
    items.extend(other.items);
    items.sort_unstable_by_key(|record| Reverse(record.id));
    let cut = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more || cut).map(cursor);
    Page { items, next_cursor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::audit::Door;

    fn record(second: u32) -> Record {
        let at = chrono::DateTime::from_timestamp(1_800_000_000 + i64::from(second), 0).expect("a time");
        Record::new(at, Door::Rest, format!("{second}"))
    }

    fn page(seconds: &[u32], more: bool) -> Page<Record> {
        let items: Vec<_> = seconds.iter().copied().map(record).collect();
        let next_cursor = items.last().filter(|_| more).map(cursor);
        Page { items, next_cursor }
    }

    #[test]
    fn two_listings_are_one_with_the_newest_first() {
        let merge = |one, other| {
            let page = merged(one, other, 3);
            let actions = page.items.iter().map(|record| record.action.clone());
            (actions.collect::<Vec<_>>().join(" "), page.next_cursor.is_some())
        };
        assert_eq!(
            merge(page(&[9, 4], false), page(&[7], false)),
            ("9 7 4".to_owned(), false)
        );
        assert_eq!(
            merge(page(&[9, 4], false), page(&[7, 5], false)),
            ("9 7 5".to_owned(), true)
        );
        assert_eq!(
            merge(page(&[], false), page(&[3, 2, 1], true)),
            ("3 2 1".to_owned(), true)
        );
    }
}
