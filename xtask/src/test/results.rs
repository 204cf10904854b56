//! What the output of `cargo test` says: how many tests passed, and why the others did not.

use std::collections::BTreeSet;

/// How many lines of a failed test are shown again at the end.
const SHOWN_LINES: usize = 12;

/// What was printed so far.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// How many passed.
    pub(super) passed: usize,
    /// How many did not.
    pub(super) failed: usize,
    /// How many were left out.
    pub(super) skipped: usize,
    /// What the failed ones printed.
    pub(super) failures: Vec<Failure>,
    /// The names of those that ran.
    ran: BTreeSet<String>,
    /// Test programs that have begun and have not given their result.
    unfinished: isize,
    /// Whether what is printed belongs to the last failure.
    in_failure: bool,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// Its path in its program.
    pub(super) name: String,
    output: Vec<String>,
}

impl Results {
    /// Takes the next line.
    pub(super) fn add(&mut self, line: &str) {
        let line = line.trim_end();
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_failure = false;
            self.unfinished -= 1;
            self.count(result);
        } else if line == "failures:" {
            self.in_failure = false;
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            self.in_failure = true;
            self.failures.push(Failure {
                name: name.to_owned(),
                output: Vec::new(),
            });
        } else if self.in_failure {
            self.failures
                .last_mut()
                .into_iter()
                .for_each(|failure| failure.output.push(line.to_owned()));
        } else if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            self.unfinished += 1;
        } else if let Some((name, how)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ..."))
            // How it ended may stand on a later line, after what it wrote past the harness.
            && !how.starts_with(" ignored")
        {
            self.ran.insert(name.to_owned());
        }
    }

    /// Adds what follows `test result: `, like `ok. 12 passed; 0 failed; 1 ignored; …`.
    fn count(&mut self, result: &str) {
        let counts = result.split_once(". ").map_or(result, |(_, counts)| counts);
        for (number, what) in counts.split("; ").filter_map(|part| part.split_once(' ')) {
            let number = number.parse::<usize>().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Whether every failure is that of a test which is known by name.
    pub(super) fn is_complete(&self) -> bool {
        self.unfinished == 0 && self.failures.len() == self.failed
    }

    /// Whether the tests of this name passed, all of them.
    pub(super) fn has_passed(&self, name: &str) -> bool {
        let failed = self.failures.iter().any(|failure| failure.name == name);
        self.is_complete() && self.ran.contains(name) && !failed
    }
}

impl Failure {
    /// The panic or the error, without what was printed before and without backtraces.
    pub(super) fn message(&self) -> String {
        let begins = |line: &String| line.contains("panicked at ") || line.starts_with("Error: ");
        let begin = self.output.iter().position(begins).unwrap_or(0);
        let ends = |line: &&String| {
            ["stack backtrace:", "Stack backtrace:", "note: "]
                .iter()
                .any(|end| line.starts_with(end))
        };
        let lines = self.output[begin..].iter().take_while(|line| !ends(line));
        let lines: Vec<_> = lines
            .filter(|line| !line.is_empty())
            .take(SHOWN_LINES)
            .map(|line| format!("    {line}\n"))
            .collect();
        lines.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(output: &str) -> Results {
        let mut results = Results::default();
        output.lines().for_each(|line| results.add(line));
        results
    }

    #[test]
    fn sums_the_results_of_all_test_binaries() {
        let all = results(
            "running 4 tests\n\
            test a ... {\"written\": \"past the harness\"}\n\
            ok\n\
            test b ... ignored\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s\n\
            running 1 test\n\
            test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        );
        assert_eq!((all.passed, all.failed, all.skipped), (4, 0, 1));
        assert!(all.is_complete() && all.has_passed("a") && !all.has_passed("b"));
    }

    #[test]
    fn failures_are_known_by_name_and_message() {
        let all = results(
            "running 3 tests\n\
            test a ... FAILED\n\
            test b::c ... FAILED\n\
            \n\
            failures:\n\
            \n\
            ---- a stdout ----\n\
            what it printed\n\
            ---- the end of a log ----\n\
            Error: not listed\n\
            \n\
            Caused by:\n    the catalogue\n\
            \n\
            Stack backtrace:\n   0: anyhow::error\n\
            \n\
            ---- b::c stdout ----\n\
            \n\
            thread 'b::c' panicked at src/b.rs:1:2:\n\
            two services share one address\n\
            note: run with `RUST_BACKTRACE=1`\n\
            \n\
            failures:\n    a\n    b::c\n\
            \n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n",
        );
        let told: Vec<_> = all.failures.iter().map(|f| (&*f.name, f.message())).collect();
        assert_eq!(
            told,
            [
                (
                    "a",
                    "    Error: not listed\n    Caused by:\n        the catalogue\n".to_owned()
                ),
                (
                    "b::c",
                    "    thread 'b::c' panicked at src/b.rs:1:2:\n    two services share one address\n"
                        .to_owned()
                ),
            ]
        );
        assert!(all.is_complete() && !all.has_passed("a"));
    }

    #[test]
    fn a_program_that_crashes_is_noticed() {
        assert!(!results("running 3 tests\ntest a ... ok\n").is_complete());
    }
}
