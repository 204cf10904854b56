//! Full-text search. The statement is each database's own; filters, order of arguments and snippets are not.

use super::{SqlStore, dialect};
use crate::clock::now;
use crate::store::{
    Result,
    rows::{HitRow, Row as _, micros},
    text::{Query, snippet},
};
use domain::{
    TenantId,
    context::{ContextFilter, ContextStatus, SearchHit},
};

pub(super) async fn search(
    store: &SqlStore,
    tenant: TenantId,
    text: &str,
    filter: &ContextFilter,
    limit: u32,
) -> Result<Vec<SearchHit>> {
    let Some(query) = Query::parse(text) else {
        return Ok(Vec::new());
    };
    let call = dialect::SEARCH
        .bind(dialect::query_text(&query))
        .bind(tenant.0)
        .bind(micros(now()));
    let call = call
        .bind(filter.updated_since.map_or(i64::MIN, micros))
        .bind(filter.agent_id.clone());
    let call = call.bind(filter.session_id.clone()).bind(filter.kind.clone());
    let call = call
        .bind(filter.status.map(ContextStatus::as_str))
        .bind(i64::from(limit));
    // How rare the words are decides everything, and only this query knows them.
    let hits = call.unprepared().all::<HitRow>(&store.read).await?;
    hits.into_iter().map(|row| hit(row, &query)).collect()
}

fn hit(row: HitRow, query: &Query) -> Result<SearchHit> {
    let snippet = snippet(&row.matched, query);
    Ok(SearchHit {
        context: row.context.read()?,
        sequence: row.sequence,
        snippet,
        score: row.score,
    })
}
