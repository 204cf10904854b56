//! The state of a run on disk, and runs in the background.

use super::{console, supervisor::private_dir};
use crate::{
    process::{self, Interrupt, Told},
    servers::tail,
    workspace::Workspace,
};
use anyhow::{Context, bail};
use rustix::process::Signal;
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const SUPERVISOR: &str = "xtask";
/// Longer than the supervisor itself waits for its services, and for containers.
const STOP: Duration = Duration::from_secs(120);

/// The data directory: who runs on it, and whether they are ready.
pub(super) struct State {
    dir: PathBuf,
}

impl State {
    /// The state in a data directory.
    pub(super) const fn in_dir(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The data directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The directory of log files, made if need be.
    pub(super) fn logs(&self) -> anyhow::Result<PathBuf> {
        let logs = self.dir.join("logs");
        private_dir(&logs)?;
        Ok(logs)
    }

    /// The command that stops the run.
    pub(super) fn stop_command(&self, workspace: &Workspace) -> String {
        let mut command = "cargo xtask dev --stop".to_owned();
        if self.dir != super::data_dir(workspace, None) {
            command += &format!(" --data {}", self.dir.display());
        }
        command
    }

    fn pids(&self) -> PathBuf {
        self.dir.join("dev.pid")
    }

    fn ready(&self) -> PathBuf {
        self.dir.join("ready.txt")
    }

    /// The noted processes that still live; the supervisor's is called `xtask`.
    fn living(&self) -> Vec<(String, u32)> {
        let text = fs::read_to_string(self.pids()).unwrap_or_default();
        let pair = |line: &str| {
            let (name, pid) = line.split_once(' ')?;
            Some((name.to_owned(), pid.parse().ok()?))
        };
        text.lines()
            .filter_map(pair)
            .filter(|(name, pid)| process::alive_as(*pid, name))
            .collect()
    }

    fn supervisor(&self) -> Option<u32> {
        let own = std::process::id();
        let mut living = self.living().into_iter();
        living
            .find(|(name, pid)| name == SUPERVISOR && *pid != own)
            .map(|(_, pid)| pid)
    }

    /// Makes sure that nobody else runs on this directory: an error when someone does, and what a killed run
    /// left behind is stopped.
    pub(super) fn clear(&self, workspace: &Workspace) -> anyhow::Result<()> {
        if let Some(pid) = self.supervisor() {
            let (dir, stop) = (workspace.shown(&self.dir), self.stop_command(workspace));
            bail!(
                "already running on {dir} (process {pid}); `{stop}` stops a run in the background, Ctrl-C one \
                 in a terminal; or give this one its own place with --data DIR --port-offset N"
            );
        }
        for (name, pid) in self.living().into_iter().filter(|(name, _)| name != SUPERVISOR) {
            println!("Stopping {name} (process {pid}), left behind by a run that was killed.");
            process::stop_foreign(pid, STOP);
        }
        Ok(())
    }

    /// Begins a run of this process.
    pub(super) fn take(&self, workspace: &Workspace) -> anyhow::Result<()> {
        private_dir(&self.dir)?;
        self.clear(workspace)?;
        let _absent = fs::remove_file(self.ready());
        self.note(&[])
    }

    /// Notes the processes of this run.
    pub(super) fn note(&self, children: &[(&'static str, u32)]) -> anyhow::Result<()> {
        let own = (SUPERVISOR, std::process::id());
        let lines = std::iter::once(&own)
            .chain(children)
            .map(|(name, pid)| format!("{name} {pid}\n"));
        let path = self.pids();
        fs::write(&path, lines.collect::<String>()).with_context(|| format!("writing {}", path.display()))
    }

    /// Tells who waits for it that this run is ready.
    pub(super) fn announce(&self, text: &str) -> anyhow::Result<()> {
        // It holds the API key; and it appears whole or not at all.
        let unfinished = self.dir.join("ready.tmp");
        crate::servers::write_private(&unfinished, text)?;
        Ok(fs::rename(unfinished, self.ready())?)
    }

    /// Ends the run.
    pub(super) fn release(&self) {
        for path in [self.pids(), self.ready()] {
            let _absent = fs::remove_file(path);
        }
    }
}

/// Starts a supervisor in the background and waits until it is ready.
pub(super) fn start(
    state: &State,
    program: &Path,
    workspace: &Workspace,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    private_dir(state.dir())?;
    // Beside the services' logs, not among them: it holds the API key.
    let log = state.dir().join("dev.log");
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    let _absent = fs::remove_file(state.ready());
    let mut child = Command::new(program)
        .args(env::args_os().skip(1).filter(|arg| arg != "--detach"))
        .arg("--supervise")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("starting the supervisor")?;
    loop {
        if let Ok(text) = fs::read_to_string(state.ready()) {
            console::print(&text);
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let how = process::ended(status);
            bail!(
                "the supervisor {how}; {} ends:\n{}",
                workspace.shown(&log),
                tail(&log, 20)
            );
        }
        if interrupt.take() {
            process::signal(child.id(), Signal::TERM);
            process::wait_or_kill(&mut child, STOP, Some(interrupt))?;
            return Err(Told(130).into());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Makes this process independent of the terminal that started it.
pub(super) fn leave_terminal() -> anyhow::Result<()> {
    rustix::process::setsid().context("leaving the terminal's session")?;
    Ok(())
}

/// Stops the run of a data directory, and what a killed one left behind.
pub(super) fn stop(state: &State, workspace: &Workspace) -> anyhow::Result<()> {
    let dir = workspace.shown(state.dir());
    let living = state.living();
    if living.is_empty() {
        println!("Nothing runs on {dir}.");
        return Ok(());
    }
    if let Some(pid) = state.supervisor()
        && !process::stop_foreign(pid, STOP)
    {
        println!("The supervisor (process {pid}) did not stop in time and was killed.");
    }
    // A supervisor that ends by itself leaves nobody.
    for (name, pid) in state.living() {
        println!("Stopping {name} (process {pid}).");
        process::stop_foreign(pid, STOP);
    }
    state.release();
    println!("Stopped.");
    Ok(())
}
