//! Other MCP servers are asked by workers, behind their guard.

use super::{Runner, note};
use chassis::grpc::with_bearer;
use domain::upstream::{Learnt, Listed, RefreshError, Upstream};
use proto::v1::{ListUpstreamToolsRequest, UpstreamTool};
use secrecy::ExposeSecret as _;
use std::time::Duration;
use tonic::{Code, Request, Status};

/// How long a worker may take: somewhat longer than it gives the server.
const PATIENCE: Duration = Duration::from_secs(25);

/// A server's tools.
pub(crate) struct Listing {
    /// What it says of itself.
    pub(crate) about: Learnt,
    /// The tools.
    pub(crate) tools: Vec<Listed>,
    /// How many more it has at least.
    pub(crate) left_out: u32,
}

impl Runner {
    /// Asks an upstream's server for its tools; `credentials` in clear.
    ///
    /// # Errors
    /// The worker's reason, or that there is none.
    pub(crate) async fn list_upstream(
        &self,
        tenant: &str,
        upstream: &Upstream,
        credentials: Option<String>,
    ) -> Result<Listing, RefreshError> {
        let request = ListUpstreamToolsRequest {
            tenant: tenant.to_owned(),
            server: upstream.spec.name.clone(),
            url: upstream.spec.url.clone(),
            credentials_json: credentials,
        };
        let request = with_bearer(Request::new(request), self.token.expose_secret());
        let mut client = self.client.clone();
        let asked = client.list_upstream_tools(request.map_err(|status| reason(&status))?);
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let answer = answer.map_err(|_| reason(&Status::unavailable("late")))?;
        let answer = answer.inspect_err(|status| note(&self.worker, status));
        let listed = answer.map_err(|status| reason(&status))?.into_inner();
        Ok(Listing {
            about: Learnt {
                server: listed.server,
                server_version: listed.server_version,
                protocol_version: listed.protocol_version,
                ..Learnt::default()
            },
            tools: listed.tools.into_iter().map(tool).collect(),
            left_out: listed.left_out,
        })
    }
}

fn tool(told: UpstreamTool) -> Listed {
    Listed {
        name: told.name,
        title: told.title,
        description: told.description,
        input_schema: serde_json::from_str(&told.input_schema_json).ok(),
        read_only: told.read_only,
        destructive: told.destructive,
        idempotent: told.idempotent,
    }
}

/// The worker's reason; its words hold no secret.
fn reason(status: &Status) -> RefreshError {
    let told = status.metadata().get(proto::CODE_KEY);
    match told.and_then(|code| code.to_str().ok()) {
        Some(code) if status.code() == Code::FailedPrecondition => RefreshError {
            code: code.to_owned(),
            message: status.message().to_owned(),
        },
        _ => RefreshError {
            code: "worker_unavailable".to_owned(),
            message: "there is no worker that could ask the server".to_owned(),
        },
    }
}
