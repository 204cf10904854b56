//! `cargo xtask test`: every test of the workspace, with PostgreSQL and Redis at hand.

mod results;

use self::results::{Failure, Results};
use crate::{
    process::{Interrupt, Told, wait_or_forward},
    servers::{self, ForTests, REMEDY},
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    env,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    thread,
};

/// Builds the services and runs all tests, on SQLite and on PostgreSQL and Redis.
///
/// The servers are those of TEST_POSTGRES_URL and TEST_REDIS_URL, else private ones, started from the
/// installed programs for this run; on Debian and Ubuntu missing programs are installed by apt-get where
/// that needs no password.
///
/// A test that failed runs once more, alone, after all others. When it passes then, it is reported as flaky and does not
/// fail the run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the tests that need PostgreSQL or Redis
    #[arg(long)]
    no_servers: bool,
    /// Passed on to `cargo test`, e.g. a test's name, or `--test e2e`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// The databases that tests are told about by environment variables, and what there is not.
struct Backing {
    variables: Vec<(&'static str, String)>,
    left_out: Vec<String>,
    // Stopped when dropped.
    _servers: ForTests,
}

/// Runs the command.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    // Noted from here on, so that the servers are stopped whatever happens.
    let interrupt = Interrupt::listen()?;
    workspace.build(false)?;
    let backing = if args.no_servers {
        Backing::none()?
    } else {
        Backing::find()?
    };

    let tests = Tests {
        workspace,
        backing,
        interrupt,
    };
    let (status, first) = tests.run(&args.args)?;
    let again = match status.code() {
        // Cargo's own: all ran, some failed.
        Some(101) if !first.failures.is_empty() => Some(tests.run_again(args, &first)?),
        _ => None,
    };
    for what in &tests.backing.left_out {
        println!("Left out: {what}");
    }
    if summarize(&first, again.as_ref()) && (status.success() || again.is_some()) {
        return Ok(());
    }
    if first.failed == 0 {
        eprintln!("error: cargo test failed, though no counted test did (see above)");
    }
    Err(Told(1).into())
}

/// What `cargo test` is run with.
struct Tests {
    workspace: Workspace,
    backing: Backing,
    interrupt: Interrupt,
}

impl Tests {
    /// Runs `cargo test` with these arguments to its end.
    fn run(&self, args: &[String]) -> anyhow::Result<(ExitStatus, Results)> {
        let mut cargo = self.workspace.cargo();
        cargo.args(["test", "--no-fail-fast"]);
        if !args.iter().any(|arg| arg == "-p" || arg.starts_with("--package")) {
            cargo.arg("--workspace");
        }
        cargo.args(args).stdout(Stdio::piped());
        for variable in [
            "TEST_POSTGRES_URL",
            "TEST_POSTGRES_PRIVATE",
            "TEST_REDIS_URL",
            "TEST_REDIS_SERVER",
        ] {
            cargo.env_remove(variable);
        }
        cargo.envs(self.backing.variables.iter().map(|(name, value)| (name, value)));
        if env::var_os("RUST_LIB_BACKTRACE").is_none() {
            // Where an error was made says less than its message, which 50 frames hide.
            cargo.env("RUST_LIB_BACKTRACE", "0");
        }
        let mut child = cargo.spawn().context("starting cargo test")?;
        let results = relay(&mut child)?;
        let status = wait_or_forward(&mut child, &self.interrupt)?;
        let results = results.join().ok().context("reading the output of cargo test")?;
        Ok((status, results))
    }

    /// Runs those that failed once more, one after the other and nothing beside them.
    fn run_again(&self, args: &Args, first: &Results) -> anyhow::Result<Results> {
        println!("\nOnce more, one at a time, what failed:");
        let mut again: Vec<String> = args.args.iter().take_while(|arg| *arg != "--").cloned().collect();
        again.extend(["--", "--exact", "--test-threads=1"].map(str::to_owned));
        again.extend(first.failures.iter().map(|failure| failure.name.clone()));
        Ok(self.run(&again)?.1)
    }
}

/// Tells at the very end what failed and why; whether every failed test passed when it ran again. One that did is no
/// less of a fault, in the test or in what it tests, but one that an unlucky machine must not stop everybody for.
fn summarize(first: &Results, again: Option<&Results>) -> bool {
    let passed_again = |failure: &&Failure| again.is_some_and(|again| again.has_passed(&failure.name));
    let (flaky, failed): (Vec<_>, Vec<_>) = first.failures.iter().partition(passed_again);
    for failure in &flaky {
        println!(
            "\nFLAKY: {} failed, and passed when it ran again alone:",
            failure.name
        );
        print!("{}", failure.message());
    }
    for failure in &failed {
        println!("\nFAILED: {}", failure.name);
        print!("{}", failure.message());
    }
    let failed = first.failed - flaky.len().min(first.failed);
    println!(
        "\n{} passed, {failed} failed, {} flaky, {} skipped",
        first.passed,
        flaky.len(),
        first.skipped
    );
    let complete = first.is_complete();
    if !complete {
        println!("error: a test program ended without giving its results (see above)");
    }
    failed == 0 && complete
}

impl Backing {
    fn none() -> anyhow::Result<Self> {
        let left_out = vec!["everything that needs PostgreSQL or Redis (--no-servers)".to_owned()];
        Ok(Self {
            variables: Vec::new(),
            left_out,
            _servers: ForTests::new()?,
        })
    }

    /// The given servers, else private ones.
    fn find() -> anyhow::Result<Self> {
        let mut servers = ForTests::new()?;
        let (mut variables, mut left_out) = (Vec::new(), Vec::new());
        let given = |name| env::var(name).ok().filter(|url| !url.is_empty());
        let (postgres_url, redis_url) = (given("TEST_POSTGRES_URL"), given("TEST_REDIS_URL"));
        let mut why = String::new();
        if (postgres_url.is_none() && servers::postgres_programs().is_none())
            || (redis_url.is_none() && servers::redis_program().is_none())
        {
            why = servers::install().err().unwrap_or_default();
        }

        let postgres = match (postgres_url, servers::postgres_programs()) {
            (Some(url), _) => Some(url),
            (None, Some(_)) => {
                // Nobody else's: a test may make it crash.
                variables.push(("TEST_POSTGRES_PRIVATE", "1".to_owned()));
                Some(servers.postgres()?)
            }
            (None, None) => None,
        };
        let redis_program = servers::redis_program();
        let redis = match (redis_url, &redis_program) {
            (Some(url), _) => Some(url),
            (None, Some(_)) => Some(servers.redis()?),
            (None, None) => None,
        };
        for (variable, url, name) in [
            ("TEST_POSTGRES_URL", postgres, "PostgreSQL"),
            ("TEST_REDIS_URL", redis, "Redis"),
        ] {
            match url {
                Some(url) => variables.push((variable, url)),
                None => left_out.push(format!(
                    "the tests on {name}: not installed, {why} ({REMEDY}; or set {variable})"
                )),
            }
        }
        // For the tests that kill a Redis and start it again.
        let program = env::var_os("TEST_REDIS_SERVER")
            .map(PathBuf::from)
            .or(redis_program);
        variables.extend(program.map(|path| ("TEST_REDIS_SERVER", path.display().to_string())));
        Ok(Self {
            variables,
            left_out,
            _servers: servers,
        })
    }
}

/// Prints what the child prints as it comes, and gives what it says.
fn relay(child: &mut Child) -> anyhow::Result<thread::JoinHandle<Results>> {
    let stdout = child.stdout.take().context("cargo's output is not piped")?;
    Ok(thread::spawn(move || {
        let mut results = Results::default();
        let mut output = BufReader::new(stdout);
        let mut line = Vec::new();
        // By bytes: a test may print what is not UTF-8.
        while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            results.add(&text);
            line.clear();
        }
        results
    }))
}
