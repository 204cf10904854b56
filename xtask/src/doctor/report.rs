//! What was found: told line by line as it is found, or as JSON at the end.

use super::ask::{Failed, cut};
use serde::Serialize;
use serde_json::json;
use std::{
    env,
    io::{self, IsTerminal, Write},
    time::Instant,
};

/// Of a check's name, so that what it found stands in one column.
const WIDTH: usize = 20;
const INDENT: &str = "        ";
/// The compose project, unless it is another one's: as in the runbooks.
const PROJECT: &str = "devops-mcp";

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    /// Worth knowing; nothing is wrong.
    Note,
    /// Not as it should be, but everything works.
    Warning,
    Failed,
    NotChecked,
}

/// What is wrong, so that a person can do something about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    /// What was asked, without secrets.
    pub(super) asked: String,
    /// What came.
    pub(super) came: String,
    pub(super) means: String,
    /// What to do next: a command, or a runbook.
    pub(super) remedy: String,
}

impl Problem {
    /// Of an answer that did not come or could not be used.
    pub(super) fn of(failed: &Failed, means: &str, remedy: &str) -> Self {
        Self::new(&failed.asked, &failed.came, means, remedy)
    }

    /// With remedies that can be pasted.
    fn of_project(mut self, project: &str) -> Self {
        let command = |project: &str| format!("docker compose -p {project} ");
        self.remedy = self.remedy.replace(&command(PROJECT), &command(project));
        self
    }

    pub(super) fn new(asked: &str, came: &str, means: &str, remedy: &str) -> Self {
        Self {
            asked: asked.to_owned(),
            came: came.to_owned(),
            means: means.to_owned(),
            remedy: remedy.to_owned(),
        }
    }
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Ok(String),
    Note(String),
    Warning(Problem),
    Failed(Problem),
    /// And why.
    NotChecked(String),
}

#[derive(Serialize)]
struct Finding {
    group: &'static str,
    check: String,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(flatten)]
    problem: Option<Problem>,
}

/// All that was found.
pub(super) struct Report {
    findings: Vec<Finding>,
    group: &'static str,
    installation: String,
    /// The compose project that remedies name.
    project: String,
    started: Instant,
    json: bool,
    colour: bool,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self {
            findings: Vec::new(),
            group: "",
            installation: String::new(),
            project: PROJECT.to_owned(),
            started: Instant::now(),
            json,
            colour: io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Says what is looked at, and of which compose project it is, if it is of one.
    pub(super) fn begin(&mut self, installation: &str, project: Option<&str>) {
        installation.clone_into(&mut self.installation);
        project.unwrap_or(PROJECT).clone_into(&mut self.project);
        self.print(&format!("Looking at {installation}\n"));
    }

    /// The checks that follow belong together.
    pub(super) fn group(&mut self, name: &'static str) {
        self.group = name;
        self.print(&format!("\n{name}\n"));
    }

    /// Notes and tells what a check found; whether all is well with it.
    pub(super) fn add(&mut self, check: &str, found: Found) -> bool {
        let (verdict, detail, problem) = match found {
            Found::Ok(detail) => (Verdict::Ok, Some(detail), None),
            Found::Note(detail) => (Verdict::Note, Some(detail), None),
            Found::NotChecked(reason) => (Verdict::NotChecked, Some(reason), None),
            Found::Warning(problem) => (Verdict::Warning, None, Some(problem)),
            Found::Failed(problem) => (Verdict::Failed, None, Some(problem)),
        };
        let problem = problem.map(|problem| problem.of_project(&self.project));
        let finding = Finding {
            group: self.group,
            check: check.to_owned(),
            verdict,
            detail,
            problem,
        };
        self.print(&text(&finding, self.colour));
        self.findings.push(finding);
        matches!(verdict, Verdict::Ok | Verdict::Note | Verdict::Warning)
    }

    pub(super) fn ok(&mut self, check: &str, detail: impl Into<String>) {
        self.add(check, Found::Ok(detail.into()));
    }

    pub(super) fn note(&mut self, check: &str, detail: impl Into<String>) {
        self.add(check, Found::Note(detail.into()));
    }

    pub(super) fn fail(&mut self, check: &str, problem: Problem) {
        self.add(check, Found::Failed(problem));
    }

    pub(super) fn skip(&mut self, check: &str, reason: impl Into<String>) {
        self.add(check, Found::NotChecked(reason.into()));
    }

    /// Whether nothing failed.
    pub(super) fn is_well(&self) -> bool {
        self.count(Verdict::Failed) == 0
    }

    /// Tells how many of what; all of it, as JSON.
    pub(super) fn finish(&self) {
        let took = self.started.elapsed().as_secs_f32();
        if self.json {
            let all = json!({
                "installation": self.installation,
                "ok": self.is_well(),
                "seconds": (f64::from(took) * 10.0).round() / 10.0,
                "findings": self.findings,
            });
            say(&format!("{all:#}\n"));
            return;
        }
        let counts = [
            (Verdict::Failed, "failed"),
            (Verdict::Warning, "warnings"),
            (Verdict::NotChecked, "not checked"),
            (Verdict::Ok, "ok"),
        ];
        let counts = counts.map(|(verdict, word)| format!("{word} {}", self.count(verdict)));
        let sum = if self.is_well() {
            "Nothing is wrong"
        } else {
            "Something is wrong"
        };
        self.print(&format!("\n{sum}: {}; {took:.0} s\n", counts.join(", ")));
    }

    fn count(&self, verdict: Verdict) -> usize {
        let those = self.findings.iter().filter(|finding| finding.verdict == verdict);
        those.count()
    }

    fn print(&self, text: &str) {
        if !self.json {
            say(text);
        }
    }
}

/// Prints; that nobody reads it any more is no reason to panic.
fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    let _closed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// A finding's lines.
fn text(finding: &Finding, colour: bool) -> String {
    let (word, code) = match finding.verdict {
        Verdict::Ok => ("ok", 32),
        Verdict::Note => ("note", 36),
        Verdict::Warning => ("WARN", 33),
        Verdict::Failed => ("FAIL", 31),
        Verdict::NotChecked => ("-", 90),
    };
    let word = if colour {
        format!("\u{1b}[{code}m{word:<4}\u{1b}[0m")
    } else {
        format!("{word:<4}")
    };
    let left_out = if finding.verdict == Verdict::NotChecked {
        "not checked: "
    } else {
        ""
    };
    let Some(problem) = &finding.problem else {
        let detail = finding.detail.as_deref().unwrap_or_default();
        return format!("  {word}  {:<WIDTH$} {left_out}{detail}\n", finding.check);
    };
    let mut lines = format!("  {word}  {:<WIDTH$} {}\n", finding.check, problem.means);
    for (name, value) in [
        ("asked", &problem.asked),
        ("came", &problem.came),
        ("do", &problem.remedy),
    ] {
        lines += &format!("{INDENT}{name:<5}  {}\n", cut_lines(value));
    }
    lines
}

/// Further lines stand below the first.
fn cut_lines(value: &str) -> String {
    let lines: Vec<String> = value.lines().map(long).collect();
    lines.join(&format!("\n{INDENT}       "))
}

/// Of what others say, so much; a remedy is short by itself.
fn long(line: &str) -> String {
    if line.len() > 600 {
        cut(line)
    } else {
        line.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_was_asked_what_came_what_it_means_and_what_to_do() {
        let problem = Problem::new("GET http://x/", "500", "x is broken", "mend x\nor y");
        let finding = Finding {
            group: "g",
            check: "x".to_owned(),
            verdict: Verdict::Failed,
            detail: None,
            problem: Some(problem),
        };
        let expected = "  FAIL  x                    x is broken
        asked  GET http://x/
        came   500
        do     mend x
               or y
";
        assert_eq!(text(&finding, false), expected);
        assert!(text(&finding, true).contains("\u{1b}[31mFAIL"));
        let value = serde_json::to_value(&finding).unwrap_or_default();
        assert_eq!(
            (&value["verdict"], &value["remedy"]),
            (&json!("failed"), &json!("mend x\nor y"))
        );
    }

    #[test]
    fn only_a_failure_is_wrong_and_its_remedy_can_be_pasted() {
        let mut report = Report::new(true);
        let problem = || Problem::new("", "", "", "");
        report.ok("a", "");
        report.note("a", "");
        report.skip("a", "");
        assert!(report.add("a", Found::Warning(problem())));
        assert!(report.is_well());
        report.begin("x", Some("other"));
        let start = Problem::new("", "", "", "docker compose -p devops-mcp start loki");
        report.add("a", Found::Warning(start));
        let told = report
            .findings
            .last()
            .and_then(|finding| finding.problem.as_ref());
        assert_eq!(
            told.map(|told| told.remedy.as_str()),
            Some("docker compose -p other start loki")
        );
        assert!(!report.add("a", Found::Failed(problem())));
        assert!(!report.is_well());
    }
}
