//! Processes and signals: run to the end, stop gently, tell whether one lives.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::{
    env, fs, io,
    path::PathBuf,
    process::{Child, Command, ExitCode, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);

/// An error that was already told; it only sets the exit code.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) u8);

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Told {}

/// Prints what went wrong, if it was not told yet, and makes the exit code.
pub(crate) fn exit_code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    if let Some(Told(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Ctrl-C, SIGTERM and SIGHUP, noted instead of obeyed, so that what was started can be stopped first.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over for the rest of the program.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("taking over signals")?;
        }
        Ok(Self(flag))
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a signal came since the last such question.
    pub(crate) fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Runs a command to its end with our standard streams.
pub(crate) fn run_to_end(command: &mut Command) -> anyhow::Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("starting {}", command.get_program().display()))
}

/// Whether a process with this id lives, a zombie counted as dead.
pub(crate) fn alive(pid: u32) -> bool {
    let zombie = fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('Z'))
    });
    !zombie && as_pid(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Whether a process lives under this id and, where the system tells, this name: ids are used again.
pub(crate) fn alive_as(pid: u32, name: &str) -> bool {
    let other = fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() != name);
    alive(pid) && !other
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = as_pid(pid) {
        let _gone = kill_process(pid, signal);
    }
}

fn as_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Waits for a child while signals are noted; a noted one is passed on to it.
pub(crate) fn wait_or_forward(child: &mut Child, interrupt: &Interrupt) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if interrupt.take() {
            signal(child.id(), Signal::TERM);
        }
        thread::sleep(POLL);
    }
}

/// Waits for a child that was asked to stop, and kills it when `patience` or the user's (another Ctrl-C) is
/// over. Gives `None` when it had to be killed.
pub(crate) fn wait_or_kill(
    child: &mut Child,
    patience: Duration,
    interrupt: Option<&Interrupt>,
) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline || interrupt.is_some_and(Interrupt::came) {
            break;
        }
        thread::sleep(POLL);
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

/// Stops a process that is no child of ours; true when it went by itself.
pub(crate) fn stop_foreign(pid: u32, patience: Duration) -> bool {
    signal(pid, Signal::TERM);
    if gone_within(pid, patience) {
        return true;
    }
    signal(pid, Signal::KILL);
    gone_within(pid, Duration::from_secs(5));
    false
}

fn gone_within(pid: u32, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    while alive(pid) {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// A program on the `PATH`.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// How a process ended, in words.
pub(crate) fn ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(0), _) => "ended".to_owned(),
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
