//! Every command of the operations manual runs as it is written there.
//!
//! A block fenced as `sh`, or as `console` with `$ ` before each command, is run; all of them share one shell's variables,
//! functions and working directory, and a tenant made for them. What cannot be run here says why after its language:
//! `sh no-test: needs Grafana`.

use crate::stack::{Addresses, Stack};
use anyhow::{Context, bail, ensure};
use e2e::{Json, observability, trace::Trace};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{self, Stdio},
    time::{Duration, Instant},
};
use tokio::process::Command;

const PAGE: &str = "docs/OPERATIONS.md";
/// For one block, which takes seconds: cargo may wait for another cargo.
const PATIENCE: Duration = Duration::from_mins(5);
const NO_TEST: &str = "no-test:";
/// The page calls curl as people do, who see a refusal when it comes. Here it has to be an error.
const CURL: &str = "fail-with-body\nmax-time = 30\n";
/// Runs one block; what it sets is there in the next.
const SHELL: &str = r#"
set -eo pipefail
if [ -e "$DOCS_STATE/shell" ]; then . "$DOCS_STATE/shell"; cd "$(cat "$DOCS_STATE/cwd")"; fi
set -a
. "$DOCS_STATE/block"
set +a
{ export -p; declare -f; } >"$DOCS_STATE/shell"
pwd >"$DOCS_STATE/cwd"
"#;

/// Some commands of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Where it begins.
    line: usize,
    commands: String,
    /// Why it is not run.
    left_out: Option<String>,
}

impl Block {
    /// Its first command.
    fn title(&self) -> String {
        let mut lines = self.commands.lines().map(str::trim);
        let first = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        first.unwrap_or_default().chars().take(76).collect()
    }
}

/// Runs all, one after the other, and tells those that failed with what they said.
pub(crate) async fn run(stack: &Stack) -> anyhow::Result<()> {
    let root = observability::root();
    let page = fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let blocks = blocks(&page)?;
    let shell = Shell::new(root)?;
    let tenant = Tenant::create(stack).await?;
    let at = Addresses {
        api_key: tenant.api_key.clone(),
        ..stack.at.clone()
    };
    let (mut ran, mut failed) = (0, Vec::new());
    for block in &blocks {
        let place = format!("{PAGE}:{}", block.line);
        if let Some(reason) = &block.left_out {
            println!("   left out  {place}  {}  ({reason})", block.title());
            continue;
        }
        let started = Instant::now();
        ran += 1;
        match shell.run(block, &at).await {
            Ok(()) => println!(
                "   {:>6.1} s  {place}  {}",
                started.elapsed().as_secs_f32(),
                block.title()
            ),
            Err(error) => {
                println!("   FAILED    {place}  {}\n{error:#}", block.title());
                failed.push(place);
            }
        }
    }
    tenant.suspend().await?;
    println!("   {ran} blocks ran, {} left out", blocks.len() - ran);
    ensure!(ran > 0, "no block of {PAGE} ran");
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// What remains from one block to the next, and how curl is to behave.
struct Shell {
    root: PathBuf,
    dir: PathBuf,
}

impl Shell {
    fn new(root: PathBuf) -> anyhow::Result<Self> {
        let dir = env::temp_dir().join(format!("devops-mcp-docs-{}", process::id()));
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        fs::write(dir.join(".curlrc"), CURL)?;
        Ok(Self { root, dir })
    }

    /// # Errors
    /// When a command failed, with all that the block said; or when it did not end.
    async fn run(&self, block: &Block, at: &Addresses) -> anyhow::Result<()> {
        fs::write(self.dir.join("block"), &block.commands)?;
        let mut bash = Command::new("bash");
        bash.args(["-c", SHELL])
            .current_dir(&self.root)
            .envs(at.variables())
            .env("DOCS_STATE", &self.dir)
            .env("CURL_HOME", &self.dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, bash.output())
            .await
            .with_context(|| format!("did not end within {PATIENCE:?}"))?
            .context("running bash")?;
        if output.status.success() {
            return Ok(());
        }
        bail!(
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        eprintln!("warning: {}: {error}", dir.display());
    }
}

/// Nothing is left in anybody's way by what the page makes, nor is it made twice when the page is run again.
struct Tenant {
    container: String,
    name: String,
    api_key: String,
}

impl Tenant {
    async fn create(stack: &Stack) -> anyhow::Result<Self> {
        let mut tenant = Self {
            container: format!("{}-rest-api-1", stack.at.compose_project),
            name: format!("docs-{}", Trace::start().span_id),
            api_key: String::new(),
        };
        tenant.manage(&["tenants", "create", &tenant.name]).await?;
        let create = [
            "keys",
            "create",
            "--tenant",
            &tenant.name,
            "--scopes",
            "all",
            "--json",
        ];
        let key: Json = serde_json::from_str(&tenant.manage(&create).await?)?;
        let secret = key["secret"].as_str();
        secret
            .context("a key without its secret")?
            .clone_into(&mut tenant.api_key);
        Ok(tenant)
    }

    async fn suspend(&self) -> anyhow::Result<()> {
        self.manage(&["tenants", "suspend", &self.name]).await.map(drop)
    }

    /// What `rest-api ARGUMENTS` prints.
    async fn manage(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut docker = Command::new("docker");
        docker.args(["exec", &self.container, "rest-api"]).args(arguments);
        let output = docker.output().await.context("running docker")?;
        let (said, complaint) = (output.stdout, String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "rest-api {}: {complaint}", arguments[0]);
        Ok(String::from_utf8(said)?)
    }
}

/// The blocks of commands in a page.
///
/// # Errors
/// When one would be overlooked: fenced in another shell's name, not closed, or left out without a reason.
fn blocks(page: &str) -> anyhow::Result<Vec<Block>> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(info) = line.trim().strip_prefix("```") else {
            continue;
        };
        let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
        let mut text = String::new();
        loop {
            let (_, line) = lines
                .next()
                .with_context(|| format!("line {}: not closed", number + 1))?;
            if line.trim() == "```" {
                break;
            }
            text += line.get(indent..).unwrap_or_default();
            text.push('\n');
        }
        let commands = match language {
            "sh" => text,
            "console" => typed(&text),
            "bash" | "shell" | "zsh" => {
                bail!("line {}: a block of commands is fenced as `sh`", number + 1)
            }
            _ => continue,
        };
        found.push(Block {
            line: number + 1,
            commands,
            left_out: left_out(rest).with_context(|| format!("line {}", number + 1))?,
        });
    }
    Ok(found)
}

fn left_out(info: &str) -> anyhow::Result<Option<String>> {
    if info.is_empty() {
        return Ok(None);
    }
    let reason = info.trim().strip_prefix(NO_TEST).map(str::trim);
    match reason {
        Some(reason) if !reason.is_empty() => Ok(Some(reason.to_owned())),
        _ => bail!("expected `{NO_TEST} REASON` after the language, or nothing"),
    }
}

/// What was typed, of a session that shows the answers too. A command goes on after a backslash and within quotes.
fn typed(session: &str) -> String {
    let mut commands = String::new();
    let mut open = false;
    for line in session.lines() {
        let line = match line.strip_prefix("$ ") {
            Some(command) if !open => command,
            _ if open => line,
            _ => continue,
        };
        commands += line;
        commands.push('\n');
        // Each command before this one has closed its quotes.
        open = line.ends_with('\\') || commands.matches('\'').count() % 2 == 1;
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(line: usize, commands: &str, left_out: Option<&str>) -> Block {
        Block {
            line,
            commands: commands.to_owned(),
            left_out: left_out.map(str::to_owned),
        }
    }

    #[test]
    fn commands_are_told_from_what_is_only_shown() -> anyhow::Result<()> {
        let page = "\
```sh
a
```
- item
  ```sh no-test: needs a cloud
  b \\
    --c
  ```
```yaml
d: e
```
```console
$ curl \\
    -d '{
  \"f\": 1}'
{\"f\":1}
$ g
```
";
        let expected = [
            block(1, "a\n", None),
            block(5, "b \\\n  --c\n", Some("needs a cloud")),
            block(12, "curl \\\n    -d '{\n  \"f\": 1}'\ng\n", None),
        ];
        assert_eq!(blocks(page)?, expected);
        assert_eq!(expected[1].title(), "b \\");
        Ok(())
    }

    #[test]
    fn nothing_is_overlooked() {
        for page in [
            "```bash\na\n```\n",
            "```sh\na\n",
            "```sh no-test:\na\n```\n",
            "```sh later\na\n```\n",
        ] {
            assert!(blocks(page).is_err(), "{page}");
        }
    }

    #[test]
    fn what_the_manual_says_is_shell_run_or_not() -> anyhow::Result<()> {
        let page = fs::read_to_string(observability::root().join(PAGE))?;
        for block in blocks(&page)? {
            let mut bash = process::Command::new("bash");
            let output = bash.args(["-n", "-c", &block.commands]).output()?;
            let complaint = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{PAGE}:{}: {complaint}", block.line);
        }
        Ok(())
    }
}
