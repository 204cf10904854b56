//! `cargo xtask integration`: the whole installation in containers, proven from the images to the page at night.
//!
//! What is proven stands in `tests/src/bin/integration`, a file a step; this starts what it needs, in the order that the
//! steps want it, and leaves nothing behind.

mod programs;

use crate::{
    images,
    process::{self, Told},
    servers,
    stack::{self, Stack, docker},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

/// How long the services are driven before panels are looked at: a few scrapes.
const TRAFFIC_SECONDS: u32 = 75;
/// Where this host takes alerts, in the containers' words.
const HOST: &str = "host.docker.internal";
/// The alert sinks' port, before --port-offset.
const SINK_PORT: u16 = 9199;
/// The end-to-end tests that are content with services as they are. The others want settings of their own, or to kill
/// and start services: they run on services of their own in `cargo xtask test`.
pub(crate) const END_TO_END: [&str; 20] = [
    "contexts_rest::a_context_from_its_creation_to_its_end",
    "contexts_rest::listings_are_paged_in_a_stable_order_and_filtered",
    "contexts_rest::search_ranks_marks_and_survives_any_input",
    "contexts_rest::a_repeated_post_makes_one_thing",
    "contexts_rest::concurrent_appends_lose_nothing",
    "contexts_mcp::an_agent_keeps_finds_and_deletes_a_context",
    "contexts_mcp::tools_are_listed_with_schemas_and_hints_and_only_where_the_key_may",
    "contexts_mcp::large_answers_are_cut_and_say_so",
    "executions::the_same_idempotency_key_gives_the_same_execution",
    "executions::permissions::a_destructive_tool_waits_for_another_keys_approval",
    "executions::permissions::a_key_calls_what_its_rules_allow_and_sees_no_more",
    "executions::permissions::rules_about_arguments_hold_for_calls_of_others",
    "executions::permissions::a_replay_runs_as_who_asks_for_it",
    "mcp_resources::the_pages_of_a_result_are_the_whole_of_it",
    "mcp_resources::the_end_of_an_execution_is_told_and_its_id_is_completed",
    "mcp_resources::a_session_hears_of_its_calls_as_loud_as_it_wants",
    "rejections::another_tenant_s_things_do_not_exist",
    "selections::an_agent_is_shown_the_selection_and_the_whole_is_kept",
    "tools::a_tool_is_registered_run_changed_and_removed",
    "tools::progress_comes_and_cancelling_reaches_the_worker",
];

/// Starts the stack in containers and proves it: requests, dashboards, rules, alerts, and the loss of each part.
///
/// In order: the services' images; the stack under `docker compose`; the configurations, by the programs in the images;
/// the end-to-end tests against the containers; one request in metrics, logs and traces; traffic, and then every panel
/// and rule; the manual's commands; the loss of each backend; tail sampling; `cargo xtask doctor`, and alerts, with
/// scaled-down times, to sinks for Slack, PagerDuty and the dead man's switch, and to an agent that looks for the
/// cause. Everything is removed at the end.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// More variables over deploy/.env: image names from a mirror, for example
    #[arg(long, value_name = "FILE")]
    images_env: Option<PathBuf>,
    /// How the services are compiled
    #[arg(long, value_enum, default_value_t = images::Profile::Release)]
    profile: images::Profile,
    /// Take the services' images as they are
    #[arg(long)]
    no_build: bool,
    /// Leave the stack running, to look at it
    #[arg(long)]
    keep: bool,
    /// Only these steps
    #[arg(long, value_delimiter = ',')]
    only: Vec<Step>,
    /// The compose project's name
    #[arg(long, value_name = "NAME", default_value = "devops-mcp-test")]
    project: String,
    /// Add N to every published port, so that other stacks are not in the way
    #[arg(long, value_name = "N", default_value_t = 2000)]
    port_offset: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// The programs in the images accept their configurations and rules.
    Programs,
    /// End-to-end tests against the containers.
    EndToEnd,
    /// One request in metrics, logs and traces.
    Request,
    /// Every panel and rule has data.
    Panels,
    /// Every command of the operations manual.
    Docs,
    /// Loss of each backend.
    Outages,
    /// Tail sampling as in production.
    Sampling,
    /// `cargo xtask doctor` on the healthy stack and on one that lacks a part.
    Doctor,
    /// Faults become notifications.
    Alerts,
    /// An agent that is paged finds the cause.
    Investigation,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    docker::ensure_compose()?;
    let started = Instant::now();
    // The steps' own program, and the images' when they come from this host.
    workspace.build(false)?;
    let mut run = Run {
        args,
        dir: workspace.target.join("integration"),
        workspace,
        scaled: None,
        failed: Vec::new(),
    };
    let result = run.all();
    if args.keep {
        println!(
            "The stack goes on: `docker compose --project-name {} down --volumes` removes it.",
            args.project
        );
    } else {
        run.remove()?;
    }
    result?;
    println!("integration took {:.0} s", started.elapsed().as_secs_f32());
    if run.failed.is_empty() {
        return Ok(());
    }
    println!("Failed: {}", run.failed.join(", "));
    Err(Told(1).into())
}

struct Run<'a> {
    args: &'a Args,
    workspace: Workspace,
    /// Generated files.
    dir: PathBuf,
    /// What names the scaled-down copies, once they are written.
    scaled: Option<Vec<(String, String)>>,
    failed: Vec<&'static str>,
}

impl Run<'_> {
    fn wants(&self, step: Step) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&step)
    }

    fn all(&mut self) -> anyhow::Result<()> {
        let stack = self.timed("images and stack", |run| run.up(run.args.no_build, Vec::new()))?;
        let variables = stack.variables();
        if self.wants(Step::Programs) {
            self.step("the programs' own checks", |run| {
                programs::check(&run.workspace, &run.args.project)
            });
        }
        if self.wants(Step::EndToEnd) {
            self.step("end-to-end tests", |run| run.end_to_end(&variables));
        }
        if self.wants(Step::Request) {
            self.step("one request", |run| run.prove("request", &variables));
        }
        if self.wants(Step::Panels) {
            self.step("panels and rules", |run| {
                run.traffic(&variables)?;
                run.prove("panels", &variables)
            });
        }
        if self.wants(Step::Docs) {
            self.step("commands of the manual", |run| run.prove("docs", &variables));
        }
        if self.wants(Step::Outages) {
            self.step("outages", |run| run.prove("outages", &variables));
        }
        if self.wants(Step::Sampling) {
            self.step("tail sampling", |run| {
                let production = "--config=/etc/otelcol/production.yaml";
                run.up(
                    true,
                    vec![("COLLECTOR_CONFIG_EXTRA".to_owned(), production.to_owned())],
                )?;
                run.prove("sampling", &variables)
            });
        }
        if self.wants(Step::Doctor) {
            // With sinks, for the addresses in deploy/secrets lead nowhere, which it would tell.
            self.step("doctor", |run| {
                let scaled = run.scaled()?;
                run.up(true, scaled)?;
                run.prove("doctor", &variables)
            });
        }
        if self.wants(Step::Alerts) {
            self.step("alerts", |run| {
                let scaled = run.scaled()?;
                run.up(true, scaled)?;
                run.prove("alerts", &variables)
            });
        }
        if self.wants(Step::Investigation) {
            self.step("investigation by an agent", |run| {
                let scaled = run.scaled()?;
                run.up(true, scaled)?;
                run.prove("investigation", &variables)
            });
        }
        Ok(())
    }

    /// Runs a step, and once more when it fails: what passes then is told as flaky. The next ones run in any case.
    fn step(&mut self, name: &'static str, work: impl Fn(&mut Self) -> anyhow::Result<()>) {
        for again in [false, true] {
            match self.timed(name, &work) {
                Ok(()) if again => println!("FLAKY: {name} failed, and passed when it ran again"),
                Ok(()) => {}
                Err(error) => {
                    eprintln!("{name} FAILED: {error:#}");
                    if again {
                        self.failed.push(name);
                    }
                    continue;
                }
            }
            return;
        }
    }

    fn timed<T>(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Self) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        println!("\n== {name}");
        let started = Instant::now();
        let result = work(self);
        println!("== {name}: {:.1} s", started.elapsed().as_secs_f32());
        result
    }

    /// The stack with these variables over its own; what has not changed goes on.
    fn up(&self, no_build: bool, variables: Vec<(String, String)>) -> anyhow::Result<Stack> {
        let gateway = docker::gateway()?;
        // Whole, though nobody can be told: the program in the image is to read all of it.
        let alertmanager = self.workspace.root.join("deploy/alertmanager");
        let mut all = vec![
            ("WORKER_ALLOW_PRIVATE".to_owned(), format!("{gateway}/32")),
            ("ALERTMANAGER_DIR".to_owned(), shown(&alertmanager)),
        ];
        all.extend(variables);
        let options = stack::Options {
            project: self.project(all),
            profile: self.args.profile,
            no_build,
        };
        Stack::up(&self.workspace, &options)
    }

    /// The compose project, with these variables over its own.
    fn project(&self, variables: Vec<(String, String)>) -> stack::Project {
        stack::Project {
            name: self.args.project.clone(),
            port_offset: self.args.port_offset,
            images_env: self.args.images_env.clone(),
            monitoring_only: false,
            files: Vec::new(),
            variables,
        }
    }

    fn end_to_end(&self, variables: &[(String, String)]) -> anyhow::Result<()> {
        println!(
            "Left out, for they want services of their own: all but {}",
            END_TO_END.join(", ")
        );
        let mut cargo = self.workspace.cargo();
        cargo
            .args(["test", "--workspace", "--test", "e2e", "--"])
            .arg("--exact")
            .args(END_TO_END)
            .env("RUST_BACKTRACE", "0")
            .envs(variables.iter().cloned())
            .envs([("E2E_INSTALLATION", "1"), ("TARGET_HOST", HOST)]);
        finish(&mut cargo)
    }

    fn traffic(&self, variables: &[(String, String)]) -> anyhow::Result<()> {
        let mut traffic = self.program("traffic", variables)?;
        traffic.args(["--seconds", &TRAFFIC_SECONDS.to_string()]);
        traffic.args(["--listen", "0.0.0.0:0", "--advertise", HOST]);
        finish(&mut traffic)
    }

    /// Runs a step of the integration program.
    fn prove(&self, step: &str, variables: &[(String, String)]) -> anyhow::Result<()> {
        let mut program = self.program("integration", variables)?;
        program.args(["run", "--only", step]);
        program.envs([
            ("TARGET_HOST", HOST.to_owned()),
            ("SINK_PORT", self.sink_port()?.to_string()),
            (
                "ALERTMANAGER_SECRETS",
                shown(&self.dir.join("scaled/alertmanager/secrets")),
            ),
        ]);
        finish(&mut program)
    }

    /// Writes copies of the rules and configurations with scaled-down times; the variables that name them.
    fn scaled(&mut self) -> anyhow::Result<Vec<(String, String)>> {
        // Once: containers that have the folders mounted would keep those that were removed.
        if let Some(written) = &self.scaled {
            return Ok(written.clone());
        }
        let out = self.dir.join("scaled");
        servers::remove(&out)?;
        let mut program = self.program("integration", &[])?;
        program.args(["scale", "--out"]).arg(&out);
        program.args(["--sink", &format!("http://{HOST}:{}", self.sink_port()?)]);
        finish(&mut program)?;
        let folder = |variable: &str, name: &str| (variable.to_owned(), shown(&out.join(name)));
        let written = vec![
            folder("ALERTS_DIR", "alerts"),
            folder("PROMETHEUS_DIR", "prometheus"),
            folder("ALERTMANAGER_DIR", "alertmanager"),
            // A minute is a second there, and who waits for a database must fail as soon.
            ("DATABASE_OUTAGE_PATIENCE".to_owned(), "250ms".to_owned()),
        ];
        self.scaled = Some(written.clone());
        Ok(written)
    }

    fn sink_port(&self) -> anyhow::Result<u16> {
        let port = SINK_PORT.checked_add(self.args.port_offset);
        port.context("--port-offset leaves no port for the alert sinks")
    }

    fn program(&self, name: &str, variables: &[(String, String)]) -> anyhow::Result<Command> {
        let mut command = Command::new(self.workspace.bin(false, name)?);
        command
            .current_dir(&self.workspace.root)
            .envs(variables.iter().cloned());
        Ok(command)
    }

    /// Removes containers, networks and volumes, and makes sure that they are gone.
    fn remove(&self) -> anyhow::Result<()> {
        Stack::find(&self.workspace, &self.project(Vec::new()))?.down(true)?;
        let label = format!("label=com.docker.compose.project={}", self.args.project);
        for what in [&["ps", "--all"][..], &["volume", "ls"], &["network", "ls"]] {
            let left = docker::said(docker::docker(what).args(["--quiet", "--filter", &label]))?;
            ensure!(left.is_empty(), "left behind: docker {}: {left}", what.join(" "));
        }
        println!(
            "Nothing is left behind: no container, volume or network of {}.",
            self.args.project
        );
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command with our streams.
fn finish(command: &mut Command) -> anyhow::Result<()> {
    let status = process::run_to_end(command)?;
    ensure!(status.success(), "{}", process::ended(status));
    Ok(())
}
