//! The gRPC door: for mcp-server, in its callers' names, and for the worker. Translates; the use cases stand in
//! [`crate::api`].

mod audit;
mod catalogue;
mod contexts;
mod executions;
mod identity;
mod incidents;
mod maintenance;
mod queue;

use crate::{
    api::Api,
    error::{Error, Result},
};
use chassis::grpc::bearer;
use domain::{Principal, Scope, Time};
use proto::v1::{
    audit_server::AuditServer, catalogue_server::CatalogueServer, contexts_server::ContextsServer,
    executions_server::ExecutionsServer, identity_server::IdentityServer, incidents_server::IncidentsServer,
    maintenance_server::MaintenanceServer, queue_server::QueueServer,
};
use secrecy::SecretString;
use std::{sync::Arc, time::Duration};
use tonic::{Status, metadata::MetadataMap, service::Routes};

/// The door's state.
#[derive(Clone)]
struct Door {
    api: Api,
    service_token: Option<SecretString>,
    shutdown: tokio_util::sync::CancellationToken,
}

/// Every RPC.
pub fn routes(api: Api, host: &chassis::Host) -> Routes {
    let service_token = host.common.service_token.clone();
    let door = Door {
        api,
        service_token,
        shutdown: host.shutdown.clone(),
    };
    Routes::new(IdentityServer::new(door.clone()))
        .add_service(ContextsServer::new(door.clone()))
        .add_service(CatalogueServer::new(door.clone()))
        .add_service(AuditServer::new(door.clone()))
        .add_service(ExecutionsServer::new(door.clone()))
        .add_service(IncidentsServer::new(door.clone()))
        .add_service(MaintenanceServer::new(door.clone()))
        .add_service(QueueServer::new(door))
}

impl Door {
    /// The caller in whose name the RPC is made. Not counted as an attempt: the door it entered by did.
    async fn caller(&self, metadata: &MetadataMap) -> std::result::Result<Arc<Principal>, Status> {
        let verified = self.api.verifier().verify(bearer(metadata)).await;
        // Whoever gets to this port without going through a door that checks it.
        if !verified
            .as_ref()
            .is_ok_and(|caller| caller.principal.scopes.contains(Scope::Debug))
        {
            telemetry::context::withdraw_debug();
        }
        let principal = verified?.principal;
        telemetry::context::set_tenant(principal.tenant.as_str());
        telemetry::context::set_key_id(&principal.key_id.to_string());
        Ok(principal)
    }

    /// Holds an RPC between services to the service token.
    fn service(&self, metadata: &MetadataMap) -> std::result::Result<(), Status> {
        chassis::grpc::require_service_token(metadata, self.service_token.as_ref())
            .inspect_err(|_| telemetry::context::withdraw_debug())
    }
}

/// When something that lives for so many seconds ends.
fn from_now(seconds: u64) -> Time {
    crate::clock::ahead(Duration::from_secs(seconds))
}

fn empty_is_none(text: Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty())
}

fn parse<T: std::str::FromStr>(field: &str, text: &str) -> Result<T> {
    proto::convert::parse(field, text).map_err(Error::from)
}
