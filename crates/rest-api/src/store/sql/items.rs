//! A context's items.

use super::{SqlStore, Statement, contexts, dialect};
use crate::store::{
    Contents, Result,
    cursor::Listing,
    rows::{ItemRow, Row as _, json, micros, read_all},
};
use domain::{
    ContextId, TenantId, Time,
    context::{ContextItem, NewItem},
    page::{Page, PageRequest},
};
use sqlx::Transaction;

/// A page. The inner part looks at sizes alone, so that content beyond the page is never read.
macro_rules! list {
    ($beyond:literal, $order:literal) => {
        Statement::new(
            "context_items.list",
            concat!(
                "SELECT i.sequence, i.role, i.content, i.metadata, i.created_at
                 FROM (SELECT sequence, size_bytes, SUM(size_bytes) OVER (ORDER BY sequence ",
                $order,
                ") AS total
                       FROM (SELECT sequence, size_bytes FROM context_items
                             WHERE context_id = $1 AND sequence ",
                $beyond,
                " $2
                             ORDER BY sequence ",
                $order,
                " LIMIT $3) AS sizes) AS page
                 JOIN context_items i ON i.context_id = $1 AND i.sequence = page.sequence
                 WHERE page.total <= $4 OR page.total = page.size_bytes
                 ORDER BY i.sequence ",
                $order
            ),
        )
    };
}
const LIST: Statement = list!(">", "ASC");
const LIST_BACKWARDS: Statement = list!("<", "DESC");
const BETWEEN: Statement = Statement::new(
    "context_items.between",
    "SELECT sequence, role, content, metadata, created_at FROM context_items
     WHERE context_id = $1 AND sequence >= $2 AND sequence <= $3 ORDER BY sequence",
);

/// Inserts items, numbered from `first`, and indexes them.
pub(super) async fn insert(
    tx: &mut Transaction<'static, dialect::Db>,
    tenant: TenantId,
    context: ContextId,
    first: i64,
    items: &[NewItem],
    now: Time,
) -> Result<Vec<ContextItem>> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let numbered = || (first..).zip(items);
    let row = |(sequence, item): (i64, &NewItem)| -> Result<ItemRow> {
        Ok(ItemRow {
            sequence,
            role: item.role.clone(),
            content: item.content.clone(),
            metadata: json(&item.metadata)?,
            created_at: micros(now),
        })
    };
    dialect::insert_items(tx, context, numbered().map(row).collect::<Result<_>>()?).await?;
    let documents: Vec<_> = numbered()
        .map(|(sequence, item)| (sequence, item.content.as_str()))
        .collect();
    dialect::index(tx, tenant, context, &documents).await?;
    let kept = |(sequence, item): (i64, &NewItem)| ContextItem {
        sequence,
        role: item.role.clone(),
        content: item.content.clone(),
        metadata: item.metadata.clone(),
        created_at: now,
    };
    Ok(numbered().map(kept).collect())
}

/// Items by their sequence, both ends included.
pub(super) async fn between(
    tx: &mut Transaction<'static, dialect::Db>,
    context: ContextId,
    first: i64,
    last: i64,
) -> Result<Vec<ContextItem>> {
    read_all(
        BETWEEN
            .bind(context.0)
            .bind(first)
            .bind(last)
            .all::<ItemRow>(&mut **tx)
            .await?,
    )
}

pub(super) async fn list(
    store: &SqlStore,
    tenant: TenantId,
    id: ContextId,
    request: &PageRequest,
    max_bytes: usize,
    newest_first: bool,
) -> Result<Contents> {
    let (listing, statement, start) = match newest_first {
        false => (Listing::Items, LIST, 0),
        true => (Listing::ItemsBackwards, LIST_BACKWARDS, i64::MAX),
    };
    let (after, of) = listing.place(request.cursor.as_deref(), (start, id.0))?;
    if of != id.0 {
        return Err(crate::store::StoreError::BadCursor);
    }
    // One connection for both statements: to change hands costs it as much as to run one.
    let mut connection = store.read.acquire().await?;
    let context = contexts::get_on(&mut connection, tenant, id).await?;
    let call = statement.bind(id.0).bind(after).bind(i64::from(request.limit));
    let call = call.bind(i64::try_from(max_bytes).unwrap_or(i64::MAX));
    let rows = call.all::<ItemRow>(&mut *connection).await?;
    let items = rows.into_iter().map(ItemRow::read).collect::<Result<Vec<_>>>()?;
    // Numbered without gaps, so the last one tells whether there are more.
    let more = |last: &&ContextItem| {
        if newest_first {
            last.sequence > 1
        } else {
            last.sequence < context.item_count
        }
    };
    let next_cursor = items
        .last()
        .filter(more)
        .map(|last| listing.after((last.sequence, id.0)));
    let items = Page { items, next_cursor };
    Ok(Contents { context, items })
}
