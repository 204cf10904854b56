//! The catalogue, watched by mcp-server.

use super::Door;
use crate::{api::Api, metrics, store::CatalogueChanges};
use futures_util::{Stream, StreamExt as _, stream::BoxStream};
use proto::v1::{
    BuiltIns, CatalogueEvent, Synced, ToolRemoved, WatchCatalogueRequest, catalogue_event::Event,
    catalogue_server::Catalogue,
};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Catalogue for Door {
    type WatchStream = BoxStream<'static, Result<CatalogueEvent, Status>>;

    async fn watch(
        &self,
        request: Request<WatchCatalogueRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.service(request.metadata())?;
        telemetry::recent::waits();
        let (api, shutdown) = (self.api.clone(), self.shutdown.clone());
        let events = events(api).take_until(shutdown.cancelled_owned());
        Ok(Response::new(events.boxed()))
    }
}

/// One open watch, counted.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::CATALOGUE_WATCHES.add(1.0, []);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::CATALOGUE_WATCHES.sub(1.0, []);
    }
}

fn events(api: Api) -> impl Stream<Item = Result<CatalogueEvent, Status>> + Send {
    async_stream::try_stream! {
        let _open = Open::new();
        let mut revision = api.catalogue().revision();
        let mut built_ins = api.built_ins().changes();
        built_ins.mark_changed();
        let mut seen = 0;
        let mut synced = false;
        loop {
            // Marks the revision as seen before it is read: a change in between wakes the next turn.
            revision.borrow_and_update();
            // What no worker has told yet says nothing of what there is.
            let manifest = match built_ins.has_changed() {
                Ok(true) => built_ins.borrow_and_update().clone(),
                _ => None,
            };
            if let Some(manifest) = manifest {
                let tools = manifest.listed().to_vec();
                yield CatalogueEvent { event: Some(Event::BuiltIns(BuiltIns { tools })) };
            }
            let changes = api.tools_since(seen).await?;
            seen = changes.revision;
            for event in list(changes) {
                yield CatalogueEvent { event: Some(event) };
            }
            if !synced {
                synced = true;
                yield CatalogueEvent { event: Some(Event::Synced(Synced {})) };
            }
            let changed = tokio::select! {
                changed = revision.changed() => changed,
                changed = built_ins.changed() => {
                    // It is read at the next turn.
                    built_ins.mark_changed();
                    changed
                }
            };
            if changed.is_err() {
                break;
            }
        }
    }
}

fn list(changes: CatalogueChanges) -> impl Iterator<Item = Event> {
    let removed = changes.removed.into_iter().map(|(tenant_id, id)| {
        Event::Removed(ToolRemoved {
            id: id.to_string(),
            tenant_id: tenant_id.to_string(),
        })
    });
    removed.chain(
        changes
            .upserted
            .into_iter()
            .map(|tool| Event::Upserted(tool.into())),
    )
}
