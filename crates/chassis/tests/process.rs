//! A service as a process: what it prints, how it ends. The program starts itself as the service.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use axum::{Router, routing::get};
use chassis::{App, Host, Service, ServiceInfo, settings::Common};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitCode, Output, Stdio},
    time::{Duration, Instant},
};
use telemetry::metrics::Declaration;

chassis::allocator!();

#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {}

impl chassis::Settings for Settings {
    fn common() -> Common {
        Common::listening(0, None)
    }
}

struct Sample;

impl Service for Sample {
    const INFO: ServiceInfo = ServiceInfo {
        name: "sample",
        version: "0.0.1",
    };
    const ABOUT: &str = "A sample of a service";
    type Settings = Settings;

    fn declarations() -> &'static [&'static [Declaration]] {
        &[]
    }

    async fn build(_settings: Settings, host: &Host) -> anyhow::Result<App> {
        let slow = async || {
            tracing::info!("slow has begun");
            tokio::time::sleep(2 * PATIENCE).await;
            "done"
        };
        let routes = Router::new().route("/slow", get(slow));
        let none = tower::layer::util::Identity::new();
        Ok(App {
            http: chassis::http::stack(routes, none, &host.common),
            ..App::default()
        })
    }
}

/// How long to wait for what must come about, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const CHILD: &str = "CHASSIS_TEST_CHILD";

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        return chassis::main::<Sample>();
    }
    // As the other test programs tell it, for whoever counts.
    println!("running 7 tests");
    help_tells_what_the_service_is();
    wrong_settings_are_told_before_anything_opens();
    print_config_masks_secrets();
    a_taken_port_is_told();
    sigterm_ends_it_cleanly();
    a_second_signal_ends_it_hard();
    health_is_told_by_the_one_that_runs();
    println!("test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn help_tells_what_the_service_is() {
    let output = command(&[]).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("A sample of a service\n"), "{text}");
}

fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // What this machine has set for others does not count.
    for (name, _) in
        std::env::vars().filter(|(name, _)| name.starts_with("DEVOPS_MCP") || name.contains("_TOKEN"))
    {
        command.env_remove(name);
    }
    command.current_dir(std::env::temp_dir()).env(CHILD, "1");
    command
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn wrong_settings_are_told_before_anything_opens() {
    let output = command(&[("DEVOPS_MCP__HTPP__ADDRESS", "127.0.0.1:0")])
        .output()
        .unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.starts_with("sample: unknown setting htpp.address (from DEVOPS_MCP__HTPP__ADDRESS)"),
        "{told}"
    );
    assert!(output.stdout.is_empty());
}

fn print_config_masks_secrets() {
    let output = command(&[("ADMIN_TOKEN", "opensesame")])
        .arg("--print-config")
        .output()
        .unwrap();
    let printed = text(&output.stdout);
    assert!(
        output.status.success() && printed.contains("admin_token: '***'"),
        "{printed}"
    );
    assert!(!printed.contains("opensesame"));
}

fn a_taken_port_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command(&[("DEVOPS_MCP__HTTP__ADDRESS", &address)])
        .output()
        .unwrap();
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        told.contains(&format!("http.address: cannot listen on {address}")),
        "{told}"
    );
}

/// A running service, killed when a check fails.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
    /// Its lines so far.
    lines: Vec<Value>,
}

impl Running {
    fn start(name: &str) -> Self {
        let file = std::env::temp_dir().join(format!("chassis-process-{}-{name}.json", std::process::id()));
        let mut child = command(&[("DEVOPS_MCP__READY_FILE", file.to_str().unwrap())])
            .spawn()
            .unwrap();
        let mut running = Self {
            stdout: BufReader::new(child.stdout.take().unwrap()),
            child,
            address: String::new(),
            lines: Vec::new(),
        };
        running.address = running.wait_until_ready(&file);
        running
    }

    fn wait_until_ready(&mut self, file: &PathBuf) -> String {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(text) = std::fs::read(file) {
                let addresses: Value = serde_json::from_slice(&text).unwrap();
                return addresses["http"].as_str().unwrap().to_owned();
            }
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "it ended before it was ready"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not ready in {PATIENCE:?}");
    }

    /// Reads on until a line has this message; fails when the service ends without it.
    fn until(&mut self, message: &str) -> &Value {
        while self.lines.last().is_none_or(|line| line["message"] != message) {
            let mut line = String::new();
            assert_ne!(
                self.stdout.read_line(&mut line).unwrap(),
                0,
                "no {message:?} in {:#?}",
                self.lines
            );
            self.lines.push(serde_json::from_str(&line).unwrap());
        }
        self.lines.last().unwrap()
    }

    fn signal(&self) {
        let status = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits for its end; what it wrote that was not read yet.
    fn ended(mut self) -> Output {
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut output = Output {
            status: self.child.wait().unwrap(),
            stdout: Vec::new(),
            stderr: Vec::new(),
        };
        self.stdout.read_to_end(&mut output.stdout).unwrap();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_end(&mut output.stderr)
            .unwrap();
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended long ago when all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn sigterm_ends_it_cleanly() {
    let running = Running::start("clean");
    running.signal();
    let address = running.address.clone();
    let output = running.ended();
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let ready = lines.iter().find(|line| line["message"] == "ready").unwrap();
    assert_eq!(ready["http"], address);
    println!("start to ready: {} ms", ready["startup_ms"]);
    assert_eq!(lines.last().unwrap()["message"], "stopped");
    assert_eq!(text(&output.stderr), "");
}

fn a_second_signal_ends_it_hard() {
    let mut running = Running::start("hard");
    let mut stream = TcpStream::connect(&running.address).unwrap();
    stream
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    running.until("slow has begun");
    running.signal();
    // Two signals that wait to be taken are one.
    running.until("told to stop");
    running.signal();
    let output = running.ended();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("told to stop again by SIGTERM"));
}

fn health_is_told_by_the_one_that_runs() {
    let health = |address: &str| {
        let mut asked = command(&[("DEVOPS_MCP__HTTP__ADDRESS", address)]);
        asked.arg("health").output().unwrap()
    };
    let running = Running::start("health");
    let address = running.address.clone();
    let output = health(&address);
    let told = text(&output.stdout);
    assert!(
        output.status.success() && told.contains("\"status\":\"ready\""),
        "{told}{}",
        text(&output.stderr)
    );
    running.signal();
    assert_eq!(running.ended().status.code(), Some(0));

    let output = health(&address);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.starts_with(&format!("sample: no word from {address}: ")),
        "{told}"
    );
}
