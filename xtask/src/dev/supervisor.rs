//! Starts everything, keeps it running, stops it.

use super::{
    Args,
    background::State,
    console::{self, Console},
    monitoring::{Containers, Watch},
    plan::{self, Plan, Ports, Stores, Urls},
    secrets::Secrets,
    service::{Output, Service, log_file},
    summary::{EnvFile, Ready},
    tenant,
};
use crate::{
    process::{Interrupt, Told},
    servers::{self, Server, tail},
    workspace::Workspace,
};
use anyhow::{Context, bail};
use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// While all is well there is less to look for.
const CALM_POLL: Duration = Duration::from_millis(200);

/// A likely reason after a change of branches: the database is of another one.
const FORMER_DATA: &str = "\nIf the data of a former run is in its way: `cargo xtask dev --fresh` forgets it";

/// What runs.
struct Running {
    services: Vec<Service>,
    servers: Vec<Server>,
    /// Do without them what does not need them: their end is no reason to stop.
    watchers: Vec<Server>,
    containers: Option<Containers>,
    output: Output,
    console: Console,
}

/// Runs until an interrupt, then stops everything.
pub(super) fn run(
    args: &Args,
    workspace: &Workspace,
    state: &State,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let console = Console::new();
    state.take(workspace)?;
    let output = if args.logs_to_files() {
        Output::Files(state.logs()?)
    } else {
        Output::Terminal(console)
    };
    let mut running = Running {
        services: Vec::new(),
        servers: Vec::new(),
        watchers: Vec::new(),
        containers: None,
        output,
        console,
    };
    let result = start(args, workspace, state, interrupt, &mut running)
        .and_then(|()| keep_running(state, interrupt, &mut running));
    if interrupt.take() {
        console.say("stopping; again to kill");
    }
    running.stop(interrupt);
    state.release();
    match result {
        Ok(()) => console.say("stopped"),
        Err(_) if interrupt.came() => return Err(Told(130).into()),
        Err(_) => {}
    }
    result
}

fn start(
    args: &Args,
    workspace: &Workspace,
    state: &State,
    interrupt: &Interrupt,
    running: &mut Running,
) -> anyhow::Result<()> {
    let ports = Ports::with_offset(args.port_offset)?;
    ports.ensure_free()?;
    if args.fresh {
        forget(state.dir())?;
    }
    let mut secrets = Secrets::load(state.dir())?;
    let stores = running.stores(args, state, &secrets)?;
    if args.stack {
        let images = args.images_env.as_deref();
        let containers = Containers::start(workspace, state.dir(), args.port_offset, images, ports)?;
        running.containers = Some(containers);
    }
    let plan = Plan {
        args,
        workspace,
        ports,
        secrets: &secrets,
        stores: &stores,
        otlp: running.otlp(args),
        jaeger: running.jaeger(),
        sources: running.sources(args)?,
    };
    let units = plan.services()?;
    for unit in &units {
        running
            .services
            .push(Service::start(unit.clone(), running.output.clone())?);
    }
    state.note(&running.pids())?;
    if !running.wait_ready(interrupt)? {
        return Ok(());
    }
    let urls = Urls::from(ports);
    let (kind, database) = describe(&stores.database);
    let api_key = tenant::api_key(&units[0], &urls.rest, kind, &mut secrets)?;
    let monitoring = running.watch(args, workspace, state, ports)?;
    let ready = Ready {
        urls: &urls,
        monitoring: &monitoring,
        watchers: running.watcher_urls(),
        api_key: &api_key,
        admin_token: &secrets.admin_token,
        database,
        redis: stores.redis.clone(),
        logs: args
            .logs_to_files()
            .then(|| workspace.shown(&state.dir().join("logs"))),
    };
    let variables = ready.write_env(state.dir(), workspace)?;
    if args.traffic {
        let traffic = plan::traffic(args, workspace, variables)?;
        running
            .services
            .push(Service::start(traffic, running.output.clone())?);
        state.note(&running.pids())?;
    }
    let env_file = workspace.shown(EnvFile::at(state.dir()).path());
    let stop = if args.supervise {
        format!("`{}` stops it.", state.stop_command(workspace))
    } else {
        "Ctrl-C stops it.".to_owned()
    };
    let text = ready.text(&env_file, &stop);
    console::print(&text);
    state.announce(&text)
}

fn keep_running(state: &State, interrupt: &Interrupt, running: &mut Running) -> anyhow::Result<()> {
    while !interrupt.came() {
        let mut changed = false;
        for service in &mut running.services {
            changed |= service.tend(running.console)?;
        }
        if changed {
            state.note(&running.pids())?;
        }
        for server in &mut running.servers {
            if let Some(how) = server.ended() {
                bail!("{} {how}", server.name);
            }
        }
        let console = running.console;
        running.watchers.retain_mut(|server| {
            let how = server.ended();
            if let Some(how) = &how {
                console.say(&format!("{} {how}; going on without it", server.name));
            }
            how.is_none()
        });
        thread::sleep(CALM_POLL);
    }
    Ok(())
}

impl Running {
    /// The database and Redis: given, private, or none needed.
    fn stores(&mut self, args: &Args, state: &State, secrets: &Secrets) -> anyhow::Result<Stores> {
        let given = |name| env::var(name).ok().filter(|url| !url.is_empty());
        let mut stores = Stores {
            database: plan::sqlite(state.dir()),
            redis: None,
        };
        if args.postgres {
            stores.database = match given("DATABASE_URL") {
                Some(url) => url,
                None => {
                    self.console.say("starting a private PostgreSQL");
                    let password = &secrets.postgres_password;
                    let server = servers::postgres(&state.dir().join("postgres"), password, true);
                    self.keep(server.context("--postgres: none at DATABASE_URL, none of our own")?)
                }
            };
        }
        if args.redis {
            stores.redis = Some(match given("REDIS_URL") {
                Some(url) => url,
                None => {
                    self.console.say("starting a private Redis");
                    let server = servers::redis(&state.dir().join("redis"));
                    self.keep(server.context("--redis: none at REDIS_URL, none of our own")?)
                }
            });
        }
        Ok(stores)
    }

    /// Starts what watches the services, unless that runs in containers already; a line about each part.
    fn watch(
        &mut self,
        args: &Args,
        workspace: &Workspace,
        state: &State,
        ports: Ports,
    ) -> anyhow::Result<Vec<String>> {
        if let Some(containers) = &self.containers {
            return Ok(containers.lines());
        }
        if args.no_monitoring {
            return Ok(Vec::new());
        }
        let watch = Watch::programs(workspace, state.dir(), args.port_offset, ports)?;
        self.watchers = watch.servers;
        state.note(&self.pids())?;
        Ok(watch.lines)
    }

    /// Where spans go.
    fn otlp(&self, args: &Args) -> Option<String> {
        let own = || self.containers.as_ref().map(Containers::otlp);
        args.otlp.clone().or_else(own)
    }

    /// Where people look at traces.
    fn jaeger(&self) -> Option<String> {
        let own = self.containers.as_ref().map(Containers::jaeger);
        own.or_else(|| env::var("JAEGER_URL").ok().filter(|url| !url.is_empty()))
    }

    /// What will watch the services, for the tools that ask it.
    fn sources(&self, args: &Args) -> anyhow::Result<Vec<(&'static str, String)>> {
        match &self.containers {
            Some(containers) => Ok(containers.sources()),
            None if args.no_monitoring => Ok(Vec::new()),
            None => Watch::sources(args.port_offset),
        }
    }

    /// Where the parts of what watches are, by the variables' names in `target/stack/stack.env`.
    fn watcher_urls(&self) -> Vec<(String, String)> {
        let programs = self.watchers.iter().map(|server| {
            let variable = format!("{}_URL", server.program.to_ascii_uppercase());
            (variable, server.url.clone())
        });
        let containers = self.containers.iter().flat_map(Containers::variables);
        programs.chain(containers).collect()
    }

    fn keep(&mut self, server: Server) -> String {
        let url = server.url.clone();
        self.servers.push(server);
        url
    }

    /// Waits until all services are ready; false when an interrupt came first.
    fn wait_ready(&mut self, interrupt: &Interrupt) -> anyhow::Result<bool> {
        let started = Instant::now();
        loop {
            if interrupt.came() {
                return Ok(false);
            }
            // Before it was ever ready there is nothing to hope for from a restart.
            for service in &mut self.services {
                if let Some(how) = service.ended()? {
                    let name = service.name();
                    let words = self.output.last_words(name);
                    let hint = if name == "rest-api" { FORMER_DATA } else { "" };
                    bail!("{name} {how} before it was ready{words}{hint}");
                }
            }
            let waiting: Vec<&str> = self
                .services
                .iter()
                .filter(|service| !service.is_ready())
                .map(Service::name)
                .collect();
            if waiting.is_empty() {
                let took = started.elapsed().as_secs_f32();
                self.console
                    .say(&format!("all services are ready after {took:.1} s"));
                return Ok(true);
            }
            if started.elapsed() > READY {
                let seconds = READY.as_secs();
                let words = self.output.last_words(waiting[0]);
                bail!("not ready within {seconds} s: {}{words}", waiting.join(", "));
            }
            thread::sleep(POLL);
        }
    }

    fn pids(&self) -> Vec<(&'static str, u32)> {
        let servers = self.servers.iter().chain(&self.watchers);
        let servers = servers.map(|server| (server.program, server.pid()));
        self.services
            .iter()
            .filter_map(Service::pid)
            .chain(servers)
            .collect()
    }

    /// All services at once, then what they stand on.
    fn stop(&mut self, interrupt: &Interrupt) {
        for service in &self.services {
            service.ask_to_stop();
        }
        for service in &mut self.services {
            service.reap(STOP, interrupt, self.console);
        }
        for server in self.servers.iter_mut().chain(&mut self.watchers) {
            server.stop();
        }
        if let Some(containers) = &self.containers {
            containers.stop();
        }
    }
}

impl Output {
    fn last_words(&self, name: &str) -> String {
        match self {
            // The reader has them above; they may still be on their way there.
            Self::Terminal(_) => {
                thread::sleep(Duration::from_millis(200));
                " (its log is above)".to_owned()
            }
            Self::Files(dir) => {
                let path = log_file(dir, name);
                format!("; {} ends:\n{}", path.display(), tail(&path, 10))
            }
        }
    }
}

/// Removes what former runs stored. Tokens and keys stay: they are no one's data, and scripts may hold them.
fn forget(data: &Path) -> anyhow::Result<()> {
    for name in ["dev.db", "dev.db-wal", "dev.db-shm"] {
        servers::remove(&data.join(name))?;
    }
    servers::forget_postgres(&data.join("postgres"))
}

/// The kind of a database and its address without a password.
fn describe(url: &str) -> (&'static str, String) {
    if let Some(rest) = url.strip_prefix("sqlite://") {
        let path = rest.split('?').next().unwrap_or(rest);
        return ("sqlite", format!("SQLite, {path}"));
    }
    let host = url.rsplit('@').next().unwrap_or(url);
    ("postgres", format!("PostgreSQL, {host}"))
}

/// Makes sure that a directory is there and belongs to its owner alone.
pub(super) fn private_dir(dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("creating {}", dir.display()))
}
