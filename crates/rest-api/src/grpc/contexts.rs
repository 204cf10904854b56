//! Contexts and their items.

use super::{Door, empty_is_none, from_now, parse};
use crate::{
    api::{ItemsPage, Search},
    error::{Error, Result as Answer},
    store::Contents,
};
use domain::{
    ContextId,
    context::{ContextFilter, ContextPatch, NewContext, NewItem},
};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use proto::{
    convert::{PageOf, object, time},
    v1::{self, contexts_server::Contexts},
};
use std::time::Duration;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tonic::{Request, Response, Status, metadata::MetadataMap};

/// How often a watched context is looked at when nothing is heard of it: hints may be lost.
const SWEEP: Duration = Duration::from_secs(5);
/// The least time between two states that a watcher is told.
const PAUSE: Duration = Duration::from_millis(100);

fn items(items: Vec<v1::NewItem>) -> Answer<Vec<NewItem>> {
    items
        .into_iter()
        .map(|item| NewItem::try_from(item).map_err(Error::from))
        .collect()
}

fn filter(
    kind: Option<String>,
    status: Option<String>,
    agent_id: Option<String>,
    session_id: Option<String>,
) -> Answer<ContextFilter> {
    let status = empty_is_none(status).map(|s| s.parse()).transpose()?;
    let kind = empty_is_none(kind);
    Ok(ContextFilter {
        kind,
        status,
        agent_id,
        session_id,
        updated_since: None,
    })
}

fn new_context(r: &v1::CreateContextRequest) -> Answer<NewContext> {
    let kind = if r.r#type.is_empty() { "manual" } else { &r.r#type };
    Ok(NewContext {
        name: r.name.clone(),
        kind: kind.to_owned(),
        agent_id: r.agent_id.clone(),
        session_id: r.session_id.clone(),
        metadata: object("metadata", &r.metadata_json)?,
        expires_at: r.expires_in_seconds.map(from_now),
    })
}

fn patch(r: &v1::UpdateContextRequest) -> Answer<ContextPatch> {
    let cleared = r.clear_expiry.then_some(None);
    Ok(ContextPatch {
        name: r.name.clone(),
        status: empty_is_none(r.status.clone()).map(|s| s.parse()).transpose()?,
        metadata: r
            .metadata_json
            .as_deref()
            .map(|text| object("metadata", text))
            .transpose()?,
        expires_at: r
            .expires_in_seconds
            .map(|seconds| Some(from_now(seconds)))
            .or(cleared),
    })
}

/// A context as it stands, then as often as it changes. The caller is verified anew each time: a revoked key sees no more.
fn states(door: Door, caller: MetadataMap, id: ContextId) -> impl Stream<Item = Result<v1::Context, Status>> {
    async_stream::try_stream! {
        let mut changes = door.api.context_changes().of(id);
        let mut shown = None;
        loop {
            let context = door.api.get_context(&*door.caller(&caller).await?, id).await?;
            if shown.replace(context.version) != Some(context.version) {
                yield context.into();
                tokio::time::sleep(PAUSE).await;
                // What came in the meantime is seen by the next look.
                while !matches!(changes.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
                continue;
            }
            if let Ok(Err(RecvError::Closed)) = tokio::time::timeout(SWEEP, changes.recv()).await {
                tokio::time::sleep(SWEEP).await;
            }
        }
    }
}

#[tonic::async_trait]
impl Contexts for Door {
    async fn create(
        &self,
        request: Request<v1::CreateContextRequest>,
    ) -> Result<Response<v1::Context>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let request = request.into_inner();
        let new = new_context(&request)?;
        let made = self
            .api
            .create_context(&caller, &new, &items(request.items)?, None)
            .await?;
        Ok(Response::new(made.into_inner().into()))
    }

    async fn get(&self, request: Request<v1::GetContextRequest>) -> Result<Response<v1::Context>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id: ContextId = parse("id", &request.get_ref().id)?;
        Ok(Response::new(self.api.get_context(&caller, id).await?.into()))
    }

    async fn list(
        &self,
        request: Request<v1::ListContextsRequest>,
    ) -> Result<Response<v1::ListContextsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.into_inner();
        let since = r
            .updated_since
            .as_ref()
            .map(|t| time("updated_since", t))
            .transpose()
            .map_err(Error::from)?;
        let filter = ContextFilter {
            updated_since: since,
            ..filter(r.r#type, r.status, r.agent_id, r.session_id)?
        };
        let page = self
            .api
            .list_contexts(&caller, &filter, &PageOf::from(r.page).0)
            .await?;
        let contexts = page.items.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListContextsResponse {
            contexts,
            next_cursor: page.next_cursor.unwrap_or_default(),
        }))
    }

    async fn update(
        &self,
        request: Request<v1::UpdateContextRequest>,
    ) -> Result<Response<v1::Context>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.get_ref();
        let updated = self
            .api
            .update_context(&caller, parse("id", &r.id)?, &patch(r)?, r.if_version)
            .await?;
        Ok(Response::new(updated.into()))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteContextRequest>,
    ) -> Result<Response<v1::DeleteContextResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.get_ref();
        self.api
            .delete_context(&caller, parse("id", &r.id)?, r.if_version)
            .await?;
        Ok(Response::new(v1::DeleteContextResponse {}))
    }

    async fn append(
        &self,
        request: Request<v1::AppendItemsRequest>,
    ) -> Result<Response<v1::AppendItemsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.into_inner();
        let made = self
            .api
            .append_items(&caller, parse("id", &r.id)?, &items(r.items)?, r.if_version, None)
            .await?;
        let appended = made.into_inner();
        let items = appended.items.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::AppendItemsResponse {
            context: Some(appended.context.into()),
            items,
        }))
    }

    async fn list_items(
        &self,
        request: Request<v1::ListItemsRequest>,
    ) -> Result<Response<v1::ListItemsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.into_inner();
        let (page, max_bytes) = (PageOf::from(r.page).0, r.max_bytes as usize);
        let asked = ItemsPage {
            page,
            max_bytes,
            newest_first: r.newest_first,
        };
        let Contents { context, items } = self.api.list_items(&caller, parse("id", &r.id)?, &asked).await?;
        Ok(Response::new(v1::ListItemsResponse {
            context: r.with_context.then(|| context.into()),
            items: items.items.into_iter().map(Into::into).collect(),
            next_cursor: items.next_cursor.unwrap_or_default(),
        }))
    }

    type WatchStream = BoxStream<'static, Result<v1::Context, Status>>;

    async fn watch(
        &self,
        request: Request<v1::GetContextRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let id: ContextId = parse("id", &request.get_ref().id)?;
        telemetry::recent::waits();
        // Whoever may not see it is told at once, and makes no listener.
        self.api.get_context(&caller, id).await?;
        let states = states(self.clone(), request.into_parts().0, id);
        let until = self.shutdown.clone().cancelled_owned();
        Ok(Response::new(states.take_until(until).boxed()))
    }

    async fn search(
        &self,
        request: Request<v1::SearchContextsRequest>,
    ) -> Result<Response<v1::SearchContextsResponse>, Status> {
        let caller = self.caller(request.metadata()).await?;
        let r = request.into_inner();
        let search = Search {
            query: r.query,
            limit: r.limit,
            filter: filter(r.r#type, r.status, None, None)?,
        };
        let (hits, truncated) = self.api.search_contexts(&caller, &search).await?;
        let hits = hits.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::SearchContextsResponse { hits, truncated }))
    }
}
