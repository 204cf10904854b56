//! Who calls, and rest-api as that caller sees it.

use crate::error::{Error, Result};
use chassis::grpc::GrpcChannel;
use domain::{Principal, Scope, api_key::Secret};
use proto::v1::{
    contexts_client::ContextsClient, executions_client::ExecutionsClient, incidents_client::IncidentsClient,
};
use std::{sync::Arc, time::Duration};
use telemetry::context::Context;
use tonic::metadata::{Ascii, MetadataValue};

/// A verified key, and what is needed to call rest-api in its name.
#[derive(Debug)]
pub(crate) struct Caller {
    /// Whose key it is and what it may do.
    pub(crate) principal: Principal,
    /// The tenant's name, for logs and metrics.
    pub(crate) tenant: Arc<str>,
    /// What its requests are counted under.
    pub(crate) rate_key: String,
    /// `Bearer …`, marked as sensitive.
    bearer: MetadataValue<Ascii>,
}

impl Caller {
    /// The caller that `principal` says the secret's holder is.
    pub(crate) fn new(principal: Principal, secret: &Secret) -> Result<Self> {
        Ok(Self {
            tenant: Arc::from(principal.tenant.as_str()),
            rate_key: format!("mcp:{}", principal.key_id),
            bearer: bearer(secret.expose())?,
            principal,
        })
    }

    /// Holds the caller to `scope`.
    pub(crate) fn require(&self, scope: Scope) -> Result<()> {
        Ok(self.principal.require(scope)?)
    }

    /// The key, to be verified again.
    pub(crate) fn secret(&self) -> Option<&str> {
        self.bearer.to_str().ok()?.strip_prefix("Bearer ")
    }

    /// A call to rest-api in the caller's name.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        authorized(message, self.bearer.clone())
    }
}

/// `Bearer token` as metadata.
pub(crate) fn bearer(token: &str) -> Result<MetadataValue<Ascii>> {
    let text = format!("Bearer {token}");
    let mut value: MetadataValue<Ascii> = text
        .parse()
        .map_err(|_| Error::internal("a token holds what metadata cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request with that credential.
pub(crate) fn authorized<T>(message: T, bearer: MetadataValue<Ascii>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("authorization", bearer);
    request
}

/// rest-api's services. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Upstream {
    /// Contexts and their items.
    pub(crate) contexts: ContextsClient<GrpcChannel>,
    /// Runs of registered tools.
    pub(crate) executions: ExecutionsClient<GrpcChannel>,
    /// What alerts are about.
    pub(crate) incidents: IncidentsClient<GrpcChannel>,
}

impl Upstream {
    /// rest-api behind `channel`.
    pub(crate) fn new(channel: &GrpcChannel) -> Self {
        let limit = chassis::grpc::MAX_MESSAGE_BYTES;
        Self {
            contexts: ContextsClient::new(channel.clone()).max_decoding_message_size(limit),
            executions: ExecutionsClient::new(channel.clone()).max_decoding_message_size(limit),
            incidents: IncidentsClient::new(channel.clone()).max_decoding_message_size(limit),
        }
    }
}

/// How long rest-api may take to answer what is no run of a tool.
const DEADLINE: Duration = Duration::from_secs(20);

/// Gives up on `work` after a while: its caller cannot be kept waiting for ever.
pub(crate) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::Unavailable("rest-api did not answer in time; try again".to_owned());
    tokio::time::timeout(DEADLINE, work).await.map_err(late)?
}

/// The HTTP request's telemetry, for handlers that run in a session's task or in one of their own.
#[derive(Clone)]
pub(crate) struct Ambient(pub(crate) Context);
