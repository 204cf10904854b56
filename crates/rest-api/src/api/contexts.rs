//! Contexts and their items.

use super::Api;
use crate::{
    changes::Changes,
    clock::now,
    error::{Error, Found, Result},
    metrics,
    store::{Append, Appended, Contents, Idempotency, Made},
};
use domain::{
    ContextId, Invalid, Principal, Scope,
    context::{Context, ContextFilter, ContextPatch, MAX_ITEMS_PER_APPEND, NewContext, NewItem, SearchHit},
    page::{Page, PageRequest},
    validate,
};

/// The most hits of one search.
const MAX_HITS: u32 = 50;

/// Which items of a context are asked for.
#[derive(Clone, Debug, Default)]
pub struct ItemsPage {
    /// How many, from where.
    pub page: PageRequest,
    /// The most bytes of content; 0: the service's limit.
    pub max_bytes: usize,
    /// From the newest backwards.
    pub newest_first: bool,
}

/// What is searched for.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Words, ANDed; quotes make phrases.
    pub query: String,
    /// The most hits, 1 to 50; 0: 10.
    pub limit: u32,
    /// Type and status are honoured.
    pub filter: ContextFilter,
}

impl Api {
    /// Makes a context, with its first items. Needs `contexts:write`.
    pub async fn create_context(
        &self,
        caller: &Principal,
        new: &NewContext,
        items: &[NewItem],
        idempotency: Option<&Idempotency>,
    ) -> Result<Made<Context>> {
        caller.require(Scope::ContextsWrite)?;
        new.check()?;
        if new.expires_at.is_some_and(|at| at <= now()) {
            return Err(Invalid::new("expires_in", "a time ahead").into());
        }
        let size = self.check_items(items)?;
        self.check_context_size(size)?;
        let made = self
            .0
            .store
            .create_context(caller.tenant_id, new, items, idempotency)
            .await?;
        if let Made::New(context) = &made {
            metrics::CONTEXTS_CREATED.inc([&caller.tenant, &context.kind]);
            metrics::CONTEXT_SIZE.record(context.size_bytes as f64, []);
        }
        Ok(made)
    }

    /// One context. Needs `contexts:read`, as all that follow but the changes.
    pub async fn get_context(&self, caller: &Principal, id: ContextId) -> Result<Context> {
        caller.require(Scope::ContextsRead)?;
        self.0
            .store
            .get_context(caller.tenant_id, id)
            .await
            .or_missing("context")
    }

    /// Wakes whoever listens when a context changes.
    pub fn context_changes(&self) -> &Changes {
        &self.0.changes
    }

    /// Contexts, last changed first.
    pub async fn list_contexts(
        &self,
        caller: &Principal,
        filter: &ContextFilter,
        page: &PageRequest,
    ) -> Result<Page<Context>> {
        caller.require(Scope::ContextsRead)?;
        if self.0.slow_listing {
            self.0.store.run_slow_statement().await?;
        }
        Ok(self.0.store.list_contexts(caller.tenant_id, filter, page).await?)
    }

    /// Changes a context. Needs `contexts:write`.
    pub async fn update_context(
        &self,
        caller: &Principal,
        id: ContextId,
        patch: &ContextPatch,
        if_version: Option<i64>,
    ) -> Result<Context> {
        caller.require(Scope::ContextsWrite)?;
        patch.check()?;
        let updated = self
            .0
            .store
            .update_context(caller.tenant_id, id, patch, if_version)
            .await
            .or_missing("context")?;
        self.0.changes.tell(id);
        Ok(updated)
    }

    /// Deletes a context and its items. Needs `contexts:write`.
    pub async fn delete_context(
        &self,
        caller: &Principal,
        id: ContextId,
        if_version: Option<i64>,
    ) -> Result<()> {
        caller.require(Scope::ContextsWrite)?;
        self.0
            .store
            .delete_context(caller.tenant_id, id, if_version)
            .await
            .or_missing("context")?;
        self.0.changes.tell(id);
        Ok(())
    }

    /// Appends items. Needs `contexts:write`.
    pub async fn append_items(
        &self,
        caller: &Principal,
        id: ContextId,
        items: &[NewItem],
        if_version: Option<i64>,
        idempotency: Option<&Idempotency>,
    ) -> Result<Made<Appended>> {
        caller.require(Scope::ContextsWrite)?;
        if items.is_empty() {
            return Err(Invalid::new("items", "at least one item").into());
        }
        self.check_items(items)?;
        let max_bytes = self.0.limits.context_bytes;
        let append = Append {
            items,
            max_bytes,
            if_version,
            idempotency,
        };
        let made = self
            .0
            .store
            .append_items(caller.tenant_id, id, append)
            .await
            .or_missing("context")?;
        if let Made::New(appended) = &made {
            metrics::CONTEXT_SIZE.record(appended.context.size_bytes as f64, []);
            self.0.changes.tell(id);
        }
        Ok(made)
    }

    /// A context and its items.
    pub async fn list_items(&self, caller: &Principal, id: ContextId, asked: &ItemsPage) -> Result<Contents> {
        caller.require(Scope::ContextsRead)?;
        let limit = self.0.limits.page_bytes;
        let max_bytes = if asked.max_bytes == 0 {
            limit
        } else {
            asked.max_bytes.min(limit)
        };
        let found = self
            .0
            .store
            .list_items(caller.tenant_id, id, &asked.page, max_bytes, asked.newest_first)
            .await;
        found.or_missing("context")
    }

    /// Searches contexts. The flag tells whether there were more hits than asked for.
    pub async fn search_contexts(
        &self,
        caller: &Principal,
        search: &Search,
    ) -> Result<(Vec<SearchHit>, bool)> {
        caller.require(Scope::ContextsRead)?;
        validate::text("query", &search.query, 1000)?;
        let limit = if search.limit == 0 {
            10
        } else {
            search.limit.min(MAX_HITS)
        };
        let store = &self.0.store;
        let mut hits = store
            .search_contexts(caller.tenant_id, &search.query, &search.filter, limit + 1)
            .await?;
        let more = hits.len() > limit as usize;
        hits.truncate(limit as usize);
        Ok((hits, more))
    }

    /// Holds items to the rules and to their size limit; answers their size, bytes.
    fn check_items(&self, items: &[NewItem]) -> Result<u64> {
        if items.len() > MAX_ITEMS_PER_APPEND {
            return Err(Invalid::new("items", format!("at most {MAX_ITEMS_PER_APPEND} items")).into());
        }
        let mut size = 0;
        for (index, item) in items.iter().enumerate() {
            item.check(index)?;
            if item.content.len() > self.0.limits.item_bytes {
                return Err(Error::TooLarge {
                    what: "an item's content",
                    limit: self.0.limits.item_bytes as u64,
                });
            }
            size += item.content.len() as u64;
        }
        Ok(size)
    }

    fn check_context_size(&self, size: u64) -> Result<()> {
        let limit = self.0.limits.context_bytes;
        if size > limit {
            Err(Error::TooLarge {
                what: "the context",
                limit,
            })
        } else {
            Ok(())
        }
    }
}
