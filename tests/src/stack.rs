//! The three services together.

use crate::{
    Backend, Json, Sink,
    installation::Installation,
    logs,
    mcp::{self, Era},
    process::{Process, free_port},
    raw::Raw,
    rest::Rest,
    scrape::Scrape,
    wait_for,
};
use anyhow::Context;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// The admin token of every stack.
pub const ADMIN_TOKEN: &str = "e2e-admin-token-0123456789abcdef";
const SERVICE_TOKEN: &str = "e2e-service-token-0123456789abcdef";
/// `name:base64` of 32 bytes: nothing real is ever encrypted with it.
const CREDENTIALS_KEY: &str = "e2e:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The names of the services.
pub const REST_API: &str = "rest-api";
/// The names of the services.
pub const MCP_SERVER: &str = "mcp-server";
/// The names of the services.
pub const WORKER: &str = "worker";

/// How to start a stack.
pub struct Builder {
    backend: Backend,
    services: Vec<&'static str>,
    otlp: Option<String>,
    redis: Option<String>,
    variables: Vec<(&'static str, String, String)>,
}

impl Builder {
    /// Only these services.
    #[must_use]
    pub fn services(mut self, services: &[&'static str]) -> Self {
        self.services = services.to_vec();
        self
    }

    /// Spans go to `sink`.
    #[must_use]
    pub fn sink(self, sink: &Sink) -> Self {
        self.otlp(&sink.url())
    }

    /// Spans go to the collector at `url`, be it there or not.
    #[must_use]
    pub fn otlp(mut self, url: &str) -> Self {
        self.otlp = Some(url.to_owned());
        self
    }

    /// Another Redis than the backend's.
    #[must_use]
    pub fn redis(mut self, url: &str) -> Self {
        self.redis = Some(url.to_owned());
        self
    }

    /// A setting of one service: `("worker", "OUTBOUND__ALLOW_PRIVATE", "127.0.0.0/8")`.
    #[must_use]
    pub fn set(mut self, service: &'static str, key: &str, value: &str) -> Self {
        self.variables
            .push((service, format!("DEVOPS_MCP__{key}"), value.to_owned()));
        self
    }

    /// The worker may call servers on this host.
    #[must_use]
    pub fn allow_private(self) -> Self {
        self.set(WORKER, "OUTBOUND__ALLOW_PRIVATE", "127.0.0.0/8")
    }

    /// Starts the services and waits until they see each other.
    ///
    /// # Errors
    /// When one does not start; with its log.
    pub async fn start(self) -> anyhow::Result<Stack> {
        if let Some(installation) = Installation::from_env()? {
            return self.on(installation);
        }
        let mut stack = self.prepare().await?;
        for process in &mut stack.processes {
            process.start().await?;
        }
        for name in stack.names() {
            stack.wait_connected(name, &stack.http(name)).await?;
        }
        Ok(stack)
    }

    /// The services of a running installation instead, where they are as this test wants them.
    fn on(self, installation: Installation) -> anyhow::Result<Stack> {
        let open = |(service, key, _): &(&str, String, String)| {
            *service == WORKER && key == "DEVOPS_MCP__OUTBOUND__ALLOW_PRIVATE"
        };
        anyhow::ensure!(
            self.otlp.is_none() && self.redis.is_none() && self.variables.iter().all(open),
            "this test needs services with settings of its own: it cannot run on an installation"
        );
        Ok(Stack {
            processes: Vec::new(),
            directory: Directory::create()?,
            ports: BTreeMap::new(),
            installation: Some(installation),
        })
    }

    async fn prepare(self) -> anyhow::Result<Stack> {
        let directory = Directory::create()?;
        let database = self.backend.database_url(&directory.0).await?;
        let ports: BTreeMap<&str, (u16, u16)> = [REST_API, MCP_SERVER, WORKER]
            .into_iter()
            .map(|name| (name, (free_port(), free_port())))
            .collect();
        let grpc = |name: &str| format!("http://127.0.0.1:{}", ports[name].1);
        let mut processes = Vec::new();
        for name in &self.services {
            let mut own = common(name, ports[name]);
            let mut set = |key: &str, value: &str| own.insert(format!("DEVOPS_MCP__{key}"), value.to_owned());
            match *name {
                REST_API => {
                    set("DATABASE__URL", &database);
                    // That this machine is busy must not look as if the database were away.
                    set("DATABASE__ACQUIRE_TIMEOUT", "25s");
                    set("DATABASE__STATEMENT_TIMEOUT", "25s");
                    set("CREDENTIALS__KEYS", CREDENTIALS_KEY);
                    set("WORKER__URL", &grpc(WORKER));
                }
                _ => {
                    set("REST_API__URL", &grpc(REST_API));
                }
            }
            if let Some(url) = self
                .redis
                .clone()
                .or_else(|| self.backend.redis_url())
                .filter(|_| *name != WORKER)
            {
                set("REDIS__URL", &url);
                // Stacks share a Redis, but nothing in it.
                set("REDIS__PREFIX", &format!("{}:", directory.name()));
                if self.redis.is_none() {
                    // Nor Redis.
                    set("REDIS__TIMEOUT", "10s");
                    set("REDIS__CONNECT_TIMEOUT", "10s");
                }
            }
            match &self.otlp {
                Some(url) => set("MONITORING__TRACING__ENDPOINT", url),
                None => set("MONITORING__TRACING__ENABLED", "false"),
            };
            for (_, key, value) in self.variables.iter().filter(|(service, _, _)| service == name) {
                own.insert(key.clone(), value.clone());
            }
            processes.push(Process::new(name, &directory.0, own)?);
        }
        Ok(Stack {
            processes,
            directory,
            ports: ports.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            installation: None,
        })
    }
}

fn common(name: &str, (http, grpc): (u16, u16)) -> BTreeMap<String, String> {
    let mut pairs = vec![
        ("HTTP__ADDRESS", format!("127.0.0.1:{http}")),
        ("ENVIRONMENT", "e2e".to_owned()),
        ("ADMIN_TOKEN", ADMIN_TOKEN.to_owned()),
        ("SERVICE_TOKEN", SERVICE_TOKEN.to_owned()),
        ("MONITORING__LOGGING__FORMAT", "json".to_owned()),
        ("SHUTDOWN__TIMEOUT", "30s".to_owned()),
    ];
    if name != MCP_SERVER {
        pairs.push(("GRPC__ADDRESS", format!("127.0.0.1:{grpc}")));
    }
    pairs
        .into_iter()
        .map(|(key, value)| (format!("DEVOPS_MCP__{key}"), value))
        .collect()
}

/// A directory that goes away with the stack, unless `E2E_KEEP` is set.
struct Directory(PathBuf);

impl Directory {
    fn create() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("devops-mcp-e2e-{}", Uuid::now_v7().simple()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    fn name(&self) -> String {
        self.0
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if env::var_os("E2E_KEEP").is_none() {
            // It may be gone already.
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Running services; they end when it is dropped.
pub struct Stack {
    // Before the directory, so that the processes end before it goes.
    processes: Vec<Process>,
    directory: Directory,
    ports: BTreeMap<String, (u16, u16)>,
    /// Services that were there already, instead of processes.
    installation: Option<Installation>,
}

impl Stack {
    /// All three services on `backend`, without a collector.
    pub fn builder(backend: Backend) -> Builder {
        let services = vec![REST_API, WORKER, MCP_SERVER];
        Builder {
            backend,
            services,
            otlp: None,
            redis: None,
            variables: Vec::new(),
        }
    }

    /// Where everything of this stack lies.
    pub fn directory(&self) -> &Path {
        &self.directory.0
    }

    /// Whether this service is part of it.
    pub fn has(&self, name: &str) -> bool {
        self.processes.iter().any(|process| process.name() == name)
    }

    /// The services' names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.processes.iter().map(Process::name)
    }

    /// A service's process.
    ///
    /// # Panics
    /// When it is not part of the stack.
    pub fn process(&self, name: &str) -> &Process {
        self.processes
            .iter()
            .find(|process| process.name() == name)
            .expect("a service of this stack")
    }

    /// A service's process, to kill and to start.
    ///
    /// # Panics
    /// When it is not part of the stack.
    pub fn process_mut(&mut self, name: &str) -> &mut Process {
        self.processes
            .iter_mut()
            .find(|process| process.name() == name)
            .expect("a service of this stack")
    }

    /// A service's HTTP address, `http://host:port`.
    pub fn http(&self, name: &str) -> String {
        if let Some(installation) = &self.installation {
            return installation.http(name);
        }
        format!("http://127.0.0.1:{}", self.ports[name].0)
    }

    /// A service's gRPC address, `http://host:port`.
    pub fn grpc(&self, name: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[name].1)
    }

    /// A gRPC channel to a service.
    ///
    /// # Errors
    /// Never, with the addresses that are given out here.
    pub fn channel(&self, name: &str) -> anyhow::Result<tonic::transport::Channel> {
        Ok(tonic::transport::Endpoint::from_shared(self.grpc(name))?.connect_lazy())
    }

    /// Starts another replica of a service beside the stack's; gives it and its HTTP address.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn replica(&self, name: &str) -> anyhow::Result<(Process, String)> {
        let (http, grpc) = (
            format!("127.0.0.1:{}", free_port()),
            format!("127.0.0.1:{}", free_port()),
        );
        let url = format!("http://{http}");
        let changes = [
            ("DEVOPS_MCP__HTTP__ADDRESS", http),
            ("DEVOPS_MCP__GRPC__ADDRESS", grpc),
        ];
        let mut replica = self.process(name).replica(&changes)?;
        replica.start().await?;
        self.wait_connected(name, &url).await?;
        Ok((replica, url))
    }

    /// Waits until the service `name` at `url` sees the Redis and the rest-api that it was told of.
    ///
    /// # Errors
    /// When it never does.
    pub async fn wait_connected(&self, name: &str, url: &str) -> anyhow::Result<()> {
        let redis = self.process(name).variable("DEVOPS_MCP__REDIS__URL").is_some();
        wait_for(&format!("{name} to be connected"), async || {
            let scrape = Scrape::of(url).await.ok()?;
            let rest_api = scrape.sum("dependency_up", &[("dependency", "rest-api")]) == 1.0;
            let enough = (!redis || scrape.sum("redis_up", &[]) == 1.0) && (name != MCP_SERVER || rest_api);
            enough.then_some(())
        })
        .await
    }

    /// The MCP endpoint.
    pub fn mcp_url(&self) -> String {
        format!("{}/mcp", self.http(MCP_SERVER))
    }

    /// A caller of the REST API.
    pub fn rest(&self, key: &str) -> Rest {
        Rest::new(&self.http(REST_API), Some(key))
    }

    /// A connected MCP client.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn mcp(&self, key: &str, era: Era) -> anyhow::Result<mcp::Client> {
        mcp::connect(&self.mcp_url(), key, era)
            .await
            .with_context(|| format!("connecting in the {era:?} era"))
    }

    /// A client that speaks MCP by hand.
    pub fn raw(&self, key: &str) -> Raw {
        Raw::new(&self.mcp_url(), Some(key))
    }

    /// Runs a sub-command of rest-api against this stack's database.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub async fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = match &self.installation {
            Some(installation) => installation.admin(arguments),
            None => {
                let mut command = tokio::process::Command::from(self.process(REST_API).command());
                command.args(arguments);
                command
            }
        };
        let output = command.output().await?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        anyhow::ensure!(
            output.status.success(),
            "rest-api {arguments:?} failed: {out}{err}"
        );
        Ok(out.into_owned())
    }

    /// Makes a tenant, and a key with these scopes (`all`: every one).
    ///
    /// # Errors
    /// When rest-api refuses.
    pub async fn tenant(&self, name: &str, scopes: &str) -> anyhow::Result<String> {
        self.admin(&["tenants", "create", &self.own(name)]).await?;
        self.key(name, scopes).await
    }

    /// A tenant's name as the services know it: other tests' tenants may be in the same installation.
    pub fn own(&self, tenant: &str) -> String {
        match &self.installation {
            Some(_) => format!(
                "{tenant}-{}",
                self.directory.name().rsplit('-').next().unwrap_or_default()
            ),
            None => tenant.to_owned(),
        }
    }

    /// Makes a key for a tenant that there is.
    ///
    /// # Errors
    /// When rest-api refuses.
    pub async fn key(&self, tenant: &str, scopes: &str) -> anyhow::Result<String> {
        let out = self
            .admin(&[
                "keys",
                "create",
                "--json",
                "--tenant",
                &self.own(tenant),
                "--name",
                "e2e",
                "--scopes",
                scopes,
            ])
            .await?;
        let key: Json = serde_json::from_str(&out)?;
        Ok(key["secret"]
            .as_str()
            .context("a key without a secret")?
            .to_owned())
    }

    /// What a service exposes at `/metrics`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, name: &str) -> anyhow::Result<Scrape> {
        Scrape::of(&self.http(name)).await
    }

    /// Waits until a metric of `name` satisfies `enough`.
    ///
    /// # Errors
    /// When it never does.
    pub async fn wait_metric(
        &self,
        name: &str,
        metric: &str,
        labels: &[(&str, &str)],
        enough: impl Fn(f64) -> bool,
    ) -> anyhow::Result<f64> {
        wait_for(&format!("{metric}{labels:?} of {name}"), async || {
            let value = self.metrics(name).await.ok()?.sum(metric, labels);
            enough(value).then_some(value)
        })
        .await
    }

    /// What a service says of itself at `/readyz`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn readyz(&self, name: &str) -> anyhow::Result<Json> {
        let answer = crate::http_client()
            .get(format!("{}/readyz", self.http(name)))
            .send()
            .await?;
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    /// A service's log lines so far.
    pub fn logs(&self, name: &str) -> Vec<Json> {
        logs::parse(&self.process(name).log()).0
    }

    /// Waits for a log line.
    ///
    /// # Errors
    /// When it never comes.
    pub async fn wait_log(&self, name: &str, matches: impl Fn(&Json) -> bool) -> anyhow::Result<Json> {
        wait_for(&format!("a log line of {name}"), async || {
            self.logs(name).into_iter().find(|line| matches(line))
        })
        .await
    }
}
