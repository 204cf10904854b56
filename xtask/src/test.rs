//! `cargo xtask test`: every test of the workspace, with PostgreSQL and Redis at hand.

use crate::{
    process::{Interrupt, Told, wait_or_forward},
    servers::{self, ForTests, REMEDY},
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Stdio},
    thread,
};

/// Builds the services and runs all tests, on SQLite and on PostgreSQL and Redis.
///
/// The servers are those of TEST_POSTGRES_URL and TEST_REDIS_URL, else private ones, started from the
/// installed programs for this run; on Debian and Ubuntu missing programs are installed by apt-get where
/// that needs no password.
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

    let mut cargo = workspace.cargo();
    cargo.args(["test", "--no-fail-fast"]);
    if !args
        .args
        .iter()
        .any(|arg| arg == "-p" || arg.starts_with("--package"))
    {
        cargo.arg("--workspace");
    }
    cargo.args(&args.args).stdout(Stdio::piped());
    for variable in ["TEST_POSTGRES_URL", "TEST_REDIS_URL", "TEST_REDIS_SERVER"] {
        cargo.env_remove(variable);
    }
    cargo.envs(backing.variables.iter().map(|(name, value)| (name, value)));
    let mut child = cargo.spawn().context("starting cargo test")?;
    let counts = relay(&mut child)?;
    let status = wait_or_forward(&mut child, &interrupt)?;
    let counts = counts.join().ok().context("reading the output of cargo test")?;

    for what in &backing.left_out {
        println!("Left out: {what}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    drop(backing);
    if status.success() {
        return Ok(());
    }
    if counts.failed == 0 {
        eprintln!("error: cargo test failed, though no counted test did (see above)");
    }
    Err(Told(1).into())
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
            (None, Some(_)) => Some(servers.postgres()?),
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    /// Adds a line like `test result: ok. 12 passed; 0 failed; 1 ignored; …`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let result = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for part in result.split("; ") {
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Prints the child's output as it comes and counts the results in it.
fn relay(child: &mut Child) -> anyhow::Result<thread::JoinHandle<Counts>> {
    let stdout = child.stdout.take().context("cargo's output is not piped")?;
    Ok(thread::spawn(move || count(stdout)))
}

fn count(output: impl Read) -> Counts {
    let mut counts = Counts::default();
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    // By bytes: a test may print what is not UTF-8.
    while output.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line);
        print!("{text}");
        counts.add(&text);
        line.clear();
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_the_results_of_all_test_binaries() {
        let output = "running 3 tests\n\
            test a ... ok\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        assert_eq!(
            count(output.as_bytes()),
            Counts {
                passed: 5,
                failed: 1,
                skipped: 1
            }
        );
    }
}
