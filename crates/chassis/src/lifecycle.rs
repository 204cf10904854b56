//! A service's life: settings, telemetry, sockets, the service itself, ready; then drain, finish, flush, end.

use crate::{
    App, Args, Configuration, DECLARATIONS, Host, Readiness, Service, Tasks, readiness::Phase, settings,
};
use anyhow::{Context, anyhow, bail};
use axum::Router;
use futures_util::future::BoxFuture;
use serde::Serialize;
use std::{
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::{settings::Output, tasks::track};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tower::layer::util::Identity;

/// The whole of a service's `main`: reads the command line (`--config`, `--print-config`, `--help`, `--version`), then
/// [`serve`]s, or with the sub-command `health` asks the one that runs ([`tell_health`]).
pub fn main<S: Service>() -> ExitCode {
    let health = clap::Command::new("health").about("Ends with 0 when the service that runs here is ready");
    let command = clap::Command::new(S::INFO.name)
        .version(S::INFO.version)
        .subcommand(health);
    // Said last: the arguments bring a description of themselves.
    let command = <Args as clap::Args>::augment_args(command).about(S::ABOUT);
    let matches = command.get_matches();
    match <Args as clap::FromArgMatches>::from_arg_matches(&matches) {
        Ok(args) if matches.subcommand_name().is_some() => tell_health::<S>(&args),
        Ok(args) => serve::<S>(&args),
        Err(error) => error.exit(),
    }
}

/// Prints the readiness report of the service that runs with these settings: 0 when it is ready, 1 when not or nobody
/// answers.
pub fn tell_health<S: Service>(args: &Args) -> ExitCode {
    match crate::health::<S::Settings>(args.config.as_deref()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => fail::<S>(&causes(&error)),
    }
}

/// Loads the settings, then prints them or [`run`]s the service.
pub fn serve<S: Service>(args: &Args) -> ExitCode {
    let configuration = match settings::load::<S::Settings>(args.config.as_deref()) {
        Ok(configuration) => configuration,
        Err(error) => return fail::<S>(&error),
    };
    if !args.print_config {
        return run::<S>(configuration);
    }
    match settings::print(&configuration) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail::<S>(&error),
    }
}

/// An error with its causes, each said once: many types repeat their cause in their own text.
pub fn causes(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .fold(String::new(), |told, cause| {
            if told.ends_with(&cause) {
                told
            } else if told.is_empty() {
                cause
            } else {
                format!("{told}: {cause}")
            }
        })
}

fn fail<S: Service>(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{}: {error}", S::INFO.name);
    ExitCode::FAILURE
}

/// Runs the service to its end: 0 after a clean shutdown, 1 when it could not start or had to be cut off.
pub fn run<S: Service>(configuration: Configuration<S::Settings>) -> ExitCode {
    let begun = Instant::now();
    // Taken by whatever speaks TLS without asking which provider; a second installation changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail::<S>(&format_args!("cannot start the runtime: {error}")),
    };
    let code = runtime.block_on(observed::<S>(configuration, begun));
    // What still blocks a thread now was given its time.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

/// The service's life within telemetry's: flushed whatever happened.
async fn observed<S: Service>(configuration: Configuration<S::Settings>, begun: Instant) -> ExitCode {
    let monitoring = configuration.common.monitoring.clone();
    let declarations: Vec<_> = [DECLARATIONS].iter().chain(S::declarations()).copied().collect();
    let telemetry = match telemetry::init(
        S::INFO,
        &configuration.common.environment,
        &monitoring,
        &declarations,
    ) {
        Ok(telemetry) => telemetry,
        Err(error) => return fail::<S>(&format_args!("cannot start telemetry: {error:#}")),
    };
    let result = life::<S>(configuration, telemetry.handle(), begun).await;
    if let Err(error) = &result {
        tracing::error!(error = causes(error), "service failed");
        // Whoever stands at the terminal would not see it.
        if matches!(monitoring.logging.output, Output::File(_)) {
            fail::<S>(&causes(error));
        }
    }
    telemetry.shutdown().await;
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn life<S: Service>(
    configuration: Configuration<S::Settings>,
    telemetry: telemetry::Handle,
    begun: Instant,
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let mut running = tokio::select! {
        started = start::<S>(configuration, telemetry) => started?,
        _ = signals.next() => return Ok(()),
    };
    tracing::info!(
        http = %running.http,
        grpc = running.grpc.map(tracing::field::display),
        startup_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        "ready"
    );
    let cause = tokio::select! {
        _ = signals.next() => Ok(()),
        error = running.failed() => Err(error),
    };
    let stopped = tokio::select! {
        stopped = running.stop() => stopped,
        signal = signals.next() => Err(anyhow!("told to stop again by {signal}: ended at once")),
    };
    // What began the end says more than how it went.
    cause.and(stopped)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        let name = tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "told to stop");
        name
    }
}

/// A service that takes requests.
pub struct Running {
    /// Where it serves HTTP.
    pub http: SocketAddr,
    /// Where it serves gRPC.
    pub grpc: Option<SocketAddr>,
    /// What it was lent.
    pub host: Host,
    servers: JoinSet<anyhow::Result<()>>,
    last: Option<BoxFuture<'static, ()>>,
}

/// Binds the sockets, builds the service and serves it. For programs this is [`run`]'s work; tests start the real
/// service with it, on port 0.
///
/// # Errors
/// When an address cannot be bound, or the service cannot be built.
pub async fn start<S: Service>(
    configuration: Configuration<S::Settings>,
    telemetry: telemetry::Handle,
) -> anyhow::Result<Running> {
    let Configuration { common, service } = configuration;
    crate::faults::warn(&common.test_faults);
    // Before any socket opens, as whatever else the settings say.
    let tls = crate::grpc::Tls::open(&common.grpc.tls).await?;
    let http = bind("http.address", common.http.address).await?;
    let grpc = match common.grpc.address {
        Some(address) => Some(bind("grpc.address", address).await?),
        None => None,
    };
    let host = Host {
        common: Arc::new(common),
        telemetry,
        readiness: Readiness::default(),
        tasks: Tasks::default(),
        draining: CancellationToken::new(),
        shutdown: CancellationToken::new(),
        tls: tls.clone(),
    };
    if let Some(tls) = tls.clone() {
        host.tasks
            .spawn_every("reload TLS files", tls.every(), tls.keep_fresh());
    }
    let App {
        http: mut api,
        grpc: routes,
        admin,
        pages,
        last,
    } = S::build(service, &host).await?;
    if !api.has_routes() {
        // Whoever knocks at a service without an API is told so as everywhere else.
        api = crate::http::stack(Router::new(), Identity::new(), &host.common);
    }

    let http_address = http.local_addr().context("the HTTP socket has no address")?;
    let mut servers = JoinSet::new();
    let router = crate::ops::router(&host, admin, pages, api);
    let common = host.common.clone();
    let ending = crate::http::Ending {
        draining: host.draining.clone(),
        stop: host.shutdown.clone(),
    };
    servers.spawn(track("http server", async move {
        crate::http::serve(http, router, &common.http, ending).await;
        Ok(())
    }));
    let mut grpc_address = None;
    if let Some(routes) = routes {
        let listener = grpc.context("grpc.address: expected an address, because this service serves gRPC")?;
        grpc_address = Some(listener.local_addr().context("the gRPC socket has no address")?);
        let common = host.common.clone();
        let stop = host.shutdown.clone();
        servers.spawn(track("grpc server", async move {
            crate::grpc::serve(listener, routes, &common.grpc, tls, stop)
                .await
                .context("the gRPC server failed")
        }));
    }
    host.readiness.enter(Phase::Ready);
    let running = Running {
        http: http_address,
        grpc: grpc_address,
        host,
        servers,
        last,
    };
    running.write_ready_file()?;
    Ok(running)
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: cannot listen on {address}"))
}

impl Running {
    /// Why a server ended, which none should by itself. Waits until one does.
    async fn failed(&mut self) -> anyhow::Error {
        match self.servers.join_next().await {
            Some(Ok(Ok(()))) => anyhow!("a server ended by itself"),
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow!(error).context("a server panicked"),
            None => std::future::pending().await,
        }
    }

    /// Says that it is not ready and ends what clients just open anew, waits for load balancers to notice while each
    /// answer closes its connection, stops accepting, finishes what is in flight, then ends the background tasks.
    ///
    /// # Errors
    /// When something still ran at `shutdown.timeout`.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let settings = self.host.common.shutdown.clone();
        self.host.readiness.enter(Phase::Draining);
        self.remove_ready_file();
        self.host.draining.cancel();
        tokio::time::sleep(settings.drain).await;
        self.host.shutdown.cancel();
        let finish = async {
            let mut result = Ok(());
            while let Some(ended) = self.servers.join_next().await {
                result = ended.context("a server panicked").flatten().and(result);
            }
            // After the requests, which may need them.
            self.host.tasks.stop().await;
            if let Some(last) = self.last.take() {
                last.await;
            }
            result
        };
        match tokio::time::timeout(settings.timeout, finish).await {
            Ok(result) => {
                tracing::info!("stopped");
                result
            }
            Err(_) => bail!(
                "not everything had ended after {} and was cut off; background tasks: {:?}",
                humantime::format_duration(settings.timeout),
                self.host.tasks.names()
            ),
        }
    }

    /// Beside it first, then moved: whoever waits for the file never reads half of it.
    fn write_ready_file(&self) -> anyhow::Result<()> {
        #[derive(Serialize)]
        struct Addresses {
            http: SocketAddr,
            grpc: Option<SocketAddr>,
        }
        let Some(path) = &self.host.common.ready_file else {
            return Ok(());
        };
        let text = serde_json::to_string(&Addresses {
            http: self.http,
            grpc: self.grpc,
        })?;
        let beside = path.with_extension("partial");
        std::fs::write(&beside, text)
            .and_then(|()| std::fs::rename(&beside, path))
            .with_context(|| format!("ready_file: cannot write {}", path.display()))
    }

    /// So that nobody takes a stopped service for a running one.
    fn remove_ready_file(&self) {
        let remove = |path: &Path| std::fs::remove_file(path);
        if let Some(Err(error)) = self.host.common.ready_file.as_deref().map(remove) {
            tracing::debug!(%error, "cannot remove the ready file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_an_error_already_told_is_not_told_again() {
        #[derive(Debug, thiserror::Error)]
        #[error("the database is unavailable: {0}")]
        struct Away(#[source] std::io::Error);

        let error = anyhow::Error::new(Away(std::io::Error::other("refused"))).context("tenant 'acme'");
        assert_eq!(
            causes(&error),
            "tenant 'acme': the database is unavailable: refused"
        );
    }
}
