//! Every metric's name stands once, in a `metrics!` declaration.

use super::source::File;
use std::{collections::BTreeMap, ffi::OsStr};

/// Names that are declared twice, or stand outside a declaration; tests may name what they look for.
pub(super) fn findings(files: &[File]) -> Vec<String> {
    let files: Vec<(&File, Split)> = files
        .iter()
        .filter(in_product)
        .map(|file| (file, split(&file.text)))
        .collect();
    let mut declared: BTreeMap<&str, &File> = BTreeMap::new();
    let mut findings = Vec::new();
    for (file, parts) in &files {
        for name in &parts.declared {
            if let Some(first) = declared.insert(name, file) {
                let (first, second) = (first.path.display(), file.path.display());
                findings.push(format!(
                    "{second}: the metric {name} is declared in {first} already"
                ));
            }
        }
    }
    for (file, parts) in &files {
        for (number, line) in &parts.rest {
            for name in literals(line).filter(|name| declared.contains_key(name)) {
                let path = file.path.display();
                findings.push(format!(
                    "{path}:{number}: the metric {name} is named outside its declaration"
                ));
            }
        }
    }
    findings
}

fn in_product(file: &&File) -> bool {
    let test = |part: &OsStr| part == "tests" || part == "tests.rs";
    file.path.starts_with("crates") && !file.path.iter().any(test)
}

struct Split<'a> {
    declared: Vec<&'a str>,
    /// Lines outside declarations, comments and tests, numbered.
    rest: Vec<(usize, &'a str)>,
}

/// Takes a file apart; a declaration block runs from `metrics! {` to a `}` on the same indentation.
fn split(text: &str) -> Split<'_> {
    let (mut declared, mut rest) = (Vec::new(), Vec::new());
    let mut end: Option<&str> = None;
    // A long declaration's name stands on a line of its own, after the one that ends with `=`.
    let mut name_follows = false;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        if code.starts_with("#[cfg(test)]") {
            break;
        }
        if code.starts_with("//") {
            continue;
        }
        if let Some(indentation) = end {
            if line
                .strip_prefix(indentation)
                .is_some_and(|rest| rest.starts_with('}'))
            {
                end = None;
            } else if let Some((_, value)) = code.split_once('=') {
                declared.extend(literals(value).next());
            } else if name_follows {
                declared.extend(literals(code).next());
            }
            name_follows = code.trim_end().ends_with('=');
        } else if code.ends_with("metrics! {") {
            end = Some(&line[..line.len() - code.len()]);
        } else {
            rest.push((number, line));
        }
    }
    Split { declared, rest }
}

/// The string literals of a line, escapes left as they are.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARATION: &str = "telemetry::metrics! {\n    /// Help with = \"quotes\".\n    \
        pub static A: Counter[\"type\"] = \"a_total\";\n    pub static B: Histogram[] =\n        \
        \"b_seconds\", buckets: &X;\n}\n";

    fn file(path: &str, text: String) -> File {
        File {
            path: path.into(),
            text,
        }
    }

    #[test]
    fn finds_names_outside_their_declaration() {
        let home = file("crates/a/src/metrics.rs", DECLARATION.to_owned());
        let used = |text: &str| file("crates/b/src/lib.rs", text.to_owned());
        let fine = "fn f() { inc(\"type\") }\n#[cfg(test)]\nmod tests { const A: &str = \"a_total\"; }";
        assert!(
            findings(&[
                file("crates/a/src/metrics.rs", DECLARATION.to_owned()),
                used(fine)
            ])
            .is_empty()
        );
        let found = findings(&[home, used("fn f() { counter(\"b_seconds\") }")]);
        assert_eq!(
            found,
            ["crates/b/src/lib.rs:1: the metric b_seconds is named outside its declaration"]
        );
        assert_eq!(findings(&[used(DECLARATION), used(DECLARATION)]).len(), 2);
    }
}
