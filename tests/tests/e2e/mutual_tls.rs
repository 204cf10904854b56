//! The services show each other certificates: calls through all three, new certificates under load, a stranger.

#[path = "../../../crates/chassis/tests/authority/mod.rs"]
#[expect(dead_code, reason = "the chassis's own tests use all of it")]
mod authority;

use crate::Outcome;
use anyhow::ensure;
use authority::{Authority, Pair, Secret};
use e2e::{
    Backend, Era, Stack, Target,
    process::free_port,
    stack::{MCP_SERVER, REST_API, WORKER},
    wait_for,
};
use proto::v1::{PingRequest, tool_runner_client::ToolRunnerClient};
use serde_json::json;
use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use uuid::Uuid;

const SERVICES: [&str; 3] = [REST_API, MCP_SERVER, WORKER];

/// What the services mount.
struct Certificates {
    directory: PathBuf,
    authority: Authority,
    mounted: BTreeMap<&'static str, Secret>,
}

impl Certificates {
    fn new() -> anyhow::Result<Self> {
        let directory = env::temp_dir().join(format!("devops-mcp-e2e-tls-{}", Uuid::now_v7().simple()));
        fs::create_dir_all(&directory)?;
        let authority = Authority::new(&directory, "ca");
        let mount = |name| {
            let pair = authority.issue(&[name, "localhost"]);
            let secret = Secret::mount(directory.join(name), &pair, authority.certificate());
            (name, secret)
        };
        Ok(Self {
            mounted: SERVICES.map(mount).into(),
            directory,
            authority,
        })
    }

    /// New ones for all services, in the places of the old ones.
    fn rotate(&self) {
        for (name, secret) in &self.mounted {
            let pair = self.authority.issue(&[name, "localhost"]);
            secret.swap(&pair, self.authority.certificate());
        }
    }

    /// All services, which call each other at `https` addresses.
    async fn stack(&self, backend: Backend) -> anyhow::Result<(Stack, BTreeMap<&'static str, String>)> {
        let ports = [REST_API, WORKER].map(|name| (name, free_port()));
        let mut builder = Stack::builder(backend).allow_private();
        for (name, secret) in &self.mounted {
            for (key, file) in [("CERTIFICATE", "tls.crt"), ("KEY", "tls.key"), ("CA", "ca.crt")] {
                let file = secret.path(file).display().to_string();
                builder = builder.set(name, &format!("GRPC__TLS__{key}"), &file);
            }
            builder = builder.set(name, "GRPC__TLS__RELOAD", "100ms");
        }
        for (name, port) in ports {
            builder = builder.set(name, "GRPC__ADDRESS", &format!("127.0.0.1:{port}"));
        }
        let urls: BTreeMap<_, _> = ports
            .map(|(name, port)| (name, format!("https://localhost:{port}")))
            .into();
        let stack = builder
            .set(REST_API, "GRPC__TLS__ALLOWED_CLIENTS", "mcp-server,worker")
            .set(WORKER, "GRPC__TLS__ALLOWED_CLIENTS", "rest-api")
            .set(MCP_SERVER, "REST_API__URL", &urls[REST_API])
            .set(WORKER, "REST_API__URL", &urls[REST_API])
            .set(REST_API, "WORKER__URL", &urls[WORKER])
            .start()
            .await?;
        Ok((stack, urls))
    }

    /// What the worker answers to whoever shows this.
    async fn ping(&self, url: &str, shown: Option<&Pair>) -> Result<(), tonic::Status> {
        let ca = Certificate::from_pem(self.authority.certificate());
        let mut config = ClientTlsConfig::new().ca_certificate(ca);
        if let Some(pair) = shown {
            config = config.identity(Identity::from_pem(&pair.certificate, &pair.key));
        }
        let endpoint = Endpoint::from_shared(url.to_owned()).and_then(|endpoint| endpoint.tls_config(config));
        let channel = endpoint.expect("a good address").connect_lazy();
        ToolRunnerClient::new(channel)
            .ping(PingRequest {})
            .await
            .map(drop)
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[tokio::test]
async fn tools_run_through_all_services_while_certificates_change_and_strangers_stay_outside() -> Outcome {
    for backend in Backend::available() {
        let (certificates, target) = (Certificates::new()?, Target::start().await?);
        let (stack, urls) = certificates.stack(backend).await?;
        stack
            .wait_metric(REST_API, "dependency_up", &[("dependency", "worker")], |up| {
                up == 1.0
            })
            .await?;
        let key = stack.tenant("acme", "all").await?;
        let tool = json!({"name": "probe", "description": "d", "url": target.url("/probe")});
        stack.rest(&key).post("/api/v1/tools", &tool).await?.expect(201)?;
        let client = Arc::new(stack.mcp(&key, Era::Modern).await?);
        client.wait_for_tool("probe").await?;
        client.structured("probe", &json!({})).await?;

        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let callers: Vec<_> = (0..4)
            .map(|_| {
                let (client, stop, calls) = (client.clone(), stop.clone(), calls.clone());
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        client.structured("probe", &json!({})).await?;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    Outcome::Ok(())
                })
            })
            .collect();
        for round in 1..=3_u32 {
            certificates.rotate();
            for name in SERVICES {
                let reloaded = |count| count >= f64::from(round);
                stack
                    .wait_metric(name, "tls_reloads_total", &[("result", "ok")], reloaded)
                    .await?;
            }
            let enough = calls.load(Ordering::Relaxed) + 20;
            wait_for("calls to go on", async || {
                (calls.load(Ordering::Relaxed) >= enough).then_some(())
            })
            .await?;
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await??;
        }
        for name in SERVICES {
            let expires = stack
                .metrics(name)
                .await?
                .sum("tls_certificate_expiry_timestamp_seconds", &[]);
            ensure!(expires > 1.7e9, "{name}: {expires}");
        }

        // mcp-server has a good certificate, and still nothing to ask of a worker.
        let stranger = certificates.authority.issue(&[MCP_SERVER, "localhost"]);
        for (shown, reason) in [(Some(&stranger), "not_allowed"), (None, "no_certificate")] {
            ensure!(certificates.ping(&urls[WORKER], shown).await.is_err(), "{reason}");
            stack
                .wait_metric(
                    WORKER,
                    "tls_handshakes_failed_total",
                    &[("reason", reason)],
                    |count| count >= 1.0,
                )
                .await?;
        }
        // Who may connect is still asked for the service token.
        let friend = certificates.authority.issue(&[REST_API]);
        let refused = certificates.ping(&urls[WORKER], Some(&friend)).await;
        ensure!(
            refused.is_err_and(|status| status.code() == tonic::Code::Unauthenticated),
            "the token is asked for"
        );
    }
    Ok(())
}
