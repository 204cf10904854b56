//! Follows rest-api's catalogue: one stream for as long as it lasts, then the next.

use crate::{
    caller::{authorized, bearer},
    catalogue::{Catalogue, Ledger},
    metrics::CATALOGUE_RECONNECTS,
};
use chassis::{Host, grpc::GrpcChannel, readiness::Dependency};
use proto::v1::{
    BuiltIns, CatalogueEvent, WatchCatalogueRequest, catalogue_client::CatalogueClient,
    catalogue_event::Event,
};
use secrecy::ExposeSecret;
use std::time::Duration;
use tonic::{
    Status, Streaming,
    metadata::{Ascii, MetadataValue},
};

/// The first and the longest pause between two streams.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What follows the catalogue.
pub(crate) struct Watch {
    client: CatalogueClient<GrpcChannel>,
    token: Option<MetadataValue<Ascii>>,
    catalogue: Catalogue,
    rest_api: Dependency,
}

/// Follows the catalogue until the service stops.
///
/// # Errors
/// When the SERVICE_TOKEN is none that metadata could carry.
pub(crate) fn start(host: &Host, channel: &GrpcChannel, catalogue: &Catalogue) -> anyhow::Result<()> {
    let token = host
        .common
        .service_token
        .as_ref()
        .map(|token| bearer(token.expose_secret()))
        .transpose()?;
    if token.is_none() {
        tracing::warn!("no SERVICE_TOKEN is set: rest-api will not show its catalogue");
    }
    let client =
        CatalogueClient::new(channel.clone()).max_decoding_message_size(chassis::grpc::MAX_MESSAGE_BYTES);
    let rest_api = host.readiness.dependency("rest-api");
    let watch = Watch {
        client,
        token,
        catalogue: catalogue.clone(),
        rest_api,
    };
    host.tasks.spawn("catalogue-watch", watch.run());
    Ok(())
}

impl Watch {
    async fn run(self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut was_synced = false;
            let ended = self.follow(&mut was_synced).await;
            self.catalogue.set_followed(false);
            if was_synced {
                pause = FIRST_PAUSE;
            }
            match ended {
                // rest-api asks its clients now and then to connect anew: nothing is wrong with it.
                Ok(()) if was_synced => tracing::debug!("the catalogue's stream ended"),
                Ok(()) => self.rest_api.down("the catalogue's stream ended at once"),
                Err(status) => self.rest_api.down(format_args!(
                    "{:?}: the catalogue cannot be followed",
                    status.code()
                )),
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
            CATALOGUE_RECONNECTS.inc([]);
        }
    }

    async fn follow(&self, was_synced: &mut bool) -> Result<(), Status> {
        let mut request = tonic::Request::new(WatchCatalogueRequest {});
        if let Some(token) = &self.token {
            request = authorized(WatchCatalogueRequest {}, token.clone());
        }
        let mut stream = self.client.clone().watch(request).await?.into_inner();
        // Nothing of the new stream shows before all of it is there: until then the old lists stand.
        let (mut ledger, built_ins) = snapshot(&mut stream).await?;
        ledger.publish_all(&self.catalogue);
        // While no worker has told rest-api, what was known stands.
        if let Some(told) = built_ins {
            self.catalogue.set_built_ins(told.tools);
        }
        self.catalogue.set_followed(true);
        self.rest_api.up();
        *was_synced = true;
        while let Some(CatalogueEvent { event }) = stream.message().await? {
            let tenant = match event {
                Some(Event::Upserted(tool)) => ledger.upsert(tool),
                Some(Event::Removed(removed)) => ledger.remove(&removed),
                Some(Event::BuiltIns(told)) => {
                    self.catalogue.set_built_ins(told.tools);
                    None
                }
                Some(Event::Synced(_)) | None => None,
            };
            if let Some(tenant) = tenant {
                ledger.publish(tenant, &self.catalogue);
            }
        }
        Ok(())
    }
}

async fn snapshot(stream: &mut Streaming<CatalogueEvent>) -> Result<(Ledger, Option<BuiltIns>), Status> {
    let mut ledger = Ledger::default();
    let mut built_ins = None;
    loop {
        match stream.message().await? {
            Some(CatalogueEvent {
                event: Some(Event::Upserted(tool)),
            }) => _ = ledger.upsert(tool),
            Some(CatalogueEvent {
                event: Some(Event::Removed(removed)),
            }) => _ = ledger.remove(&removed),
            Some(CatalogueEvent {
                event: Some(Event::Synced(_)),
            }) => return Ok((ledger, built_ins)),
            Some(CatalogueEvent {
                event: Some(Event::BuiltIns(told)),
            }) => built_ins = Some(told),
            Some(CatalogueEvent { event: None }) => {}
            None => {
                return Err(Status::unavailable(
                    "the stream ended before the catalogue was complete",
                ));
            }
        }
    }
}
