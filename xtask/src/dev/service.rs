//! A service that is kept running.

use super::{console::Console, plan::Unit};
use crate::{http, process};
use anyhow::Context;
use rustix::process::Signal;
use signal_hook::consts::SIGTERM;
use std::{
    fs::OpenOptions,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Having run this long, a service is thought well again.
const STEADY: Duration = Duration::from_secs(30);

/// Where a service's output goes.
#[derive(Clone)]
pub(super) enum Output {
    /// To the terminal, line by line with its name.
    Terminal(Console),
    /// To `<name>.log` in this directory.
    Files(PathBuf),
}

/// A service and its process, if it has one just now.
pub(super) struct Service {
    unit: Unit,
    output: Output,
    child: Option<Child>,
    started: Instant,
    restart_at: Option<Instant>,
    pause: Duration,
    restarts: u32,
    announce: bool,
}

impl Service {
    /// Starts it.
    pub(super) fn start(unit: Unit, output: Output) -> anyhow::Result<Self> {
        let child = Some(spawn(&unit, &output)?);
        let (started, pause) = (Instant::now(), FIRST_PAUSE);
        Ok(Self {
            unit,
            output,
            child,
            started,
            restart_at: None,
            pause,
            restarts: 0,
            announce: false,
        })
    }

    /// The service's name and, while it runs, its process id.
    pub(super) fn pid(&self) -> Option<(&'static str, u32)> {
        Some((self.unit.name, self.child.as_ref()?.id()))
    }

    /// Its name.
    pub(super) const fn name(&self) -> &'static str {
        self.unit.name
    }

    /// Whether it says that it is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.unit
            .ready
            .as_ref()
            .is_none_or(|url| http::status(url, None) == Some(200))
    }

    /// How it ended, when it has since the last call.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<String>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = child
            .try_wait()
            .with_context(|| format!("waiting for {}", self.unit.name))?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status.map(process::ended))
    }

    /// Restarts it when it ended, waiting longer each time. True when its process changed.
    pub(super) fn tend(&mut self, console: Console) -> anyhow::Result<bool> {
        let name = self.unit.name;
        if let Some(how) = self.ended()? {
            if self.started.elapsed() > STEADY {
                self.pause = FIRST_PAUSE;
            }
            self.restarts += 1;
            self.restart_at = Some(Instant::now() + self.pause);
            let (pause, times) = (self.pause.as_secs_f32(), self.restarts);
            console.say(&format!(
                "{name} {how}; restarting it in {pause} s (restart {times})"
            ));
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            return Ok(true);
        }
        if self.restart_at.is_some_and(|at| Instant::now() >= at) {
            self.restart_at = None;
            self.started = Instant::now();
            self.child = Some(spawn(&self.unit, &self.output)?);
            self.announce = true;
            return Ok(true);
        }
        if self.announce && self.is_ready() {
            self.announce = false;
            console.say(&format!("{name} is ready again"));
        }
        Ok(false)
    }

    /// Asks it to stop; [`reap`](Self::reap) waits for that.
    pub(super) fn ask_to_stop(&self) {
        if let Some(child) = &self.child {
            process::signal(child.id(), Signal::TERM);
        }
    }

    /// Waits until it stopped; kills it after `patience` or at the next interrupt.
    pub(super) fn reap(&mut self, patience: Duration, interrupt: &process::Interrupt, console: Console) {
        let Some(child) = &mut self.child else { return };
        let name = self.unit.name;
        match process::wait_or_kill(child, patience, Some(interrupt)) {
            Ok(Some(status)) if status.success() || status.signal() == Some(SIGTERM) => {}
            Ok(Some(status)) => console.say(&format!("{name} {}", process::ended(status))),
            Ok(None) => console.say(&format!("{name} did not stop in time and was killed")),
            Err(error) => console.say(&format!("stopping {name}: {error}")),
        }
        self.child = None;
    }
}

fn spawn(unit: &Unit, output: &Output) -> anyhow::Result<Child> {
    let mut command = unit.command();
    // A group of its own: Ctrl-C reaches the supervisor alone, which stops all in order.
    command.process_group(0).stdin(Stdio::null());
    let what = || format!("starting {}", unit.name);
    match output {
        Output::Terminal(console) => {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().with_context(what)?;
            let (name, console) = (unit.name, *console);
            if let Some(stdout) = child.stdout.take() {
                thread::spawn(move || console.relay(name, stdout));
            }
            if let Some(stderr) = child.stderr.take() {
                thread::spawn(move || console.relay(name, stderr));
            }
            Ok(child)
        }
        Output::Files(dir) => {
            let path = log_file(dir, unit.name);
            let file = OpenOptions::new().create(true).append(true).open(&path);
            let file = file.with_context(|| format!("opening {}", path.display()))?;
            command.stdout(file.try_clone()?).stderr(file);
            command.spawn().with_context(what)
        }
    }
}

/// The file that a detached service logs to.
pub(super) fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}
