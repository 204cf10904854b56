//! LogQL of callers who may see only some streams: matchers are put into every selector of a query.
//!
//! It is done on the query's tokens, as Loki reads them. Loki takes Go's comments and character literals for what they
//! are, beside its own `#`; what a restricted caller's query needs none of is refused rather than understood, so that
//! nothing can hide a selector.

use super::Matcher;
use crate::outcome::{Code, Failure};
use std::{iter::Peekable, str::CharIndices};

/// The query, with every matcher in each of its `{…}`, and without comments. Without matchers it stays as it is.
///
/// # Errors
/// [`Code::InvalidArguments`] where it is not certain how Loki would read it.
pub fn enforce(query: &str, matchers: &[Matcher]) -> Result<String, Failure> {
    if matchers.is_empty() {
        return Ok(query.to_owned());
    }
    Rewrite::new(query, matchers)?.run().map(|(query, _)| query)
}

/// The same for a query that must be a single selector, as the endpoints for labels take it.
///
/// # Errors
/// As [`enforce`], and where it is anything else.
pub fn enforce_selector(query: &str, matchers: &[Matcher]) -> Result<String, Failure> {
    let (rewritten, selectors) = Rewrite::new(query, matchers)?.run()?;
    let trimmed = rewritten.trim();
    if selectors == 1 && trimmed.starts_with('{') && trimmed.ends_with('}') {
        return Ok(trimmed.to_owned());
    }
    Err(invalid(
        "a selector is expected here, and nothing else: {label=\"value\"}",
    ))
}

/// The selector of all streams that hold the matchers; `None` where there are none.
///
/// # Errors
/// [`Code::InvalidArguments`] where a matcher's name is none of Loki's.
pub fn selector(matchers: &[Matcher]) -> Result<Option<String>, Failure> {
    let conditions = conditions(matchers)?;
    Ok((!conditions.is_empty()).then(|| format!("{{{conditions}}}")))
}

/// A text in double quotes.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A regular expression that finds the text itself.
pub fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Whether it can be the name of a label.
pub fn is_label(name: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

fn conditions(matchers: &[Matcher]) -> Result<String, Failure> {
    let one = |matcher: &Matcher| {
        let Matcher { name, value } = matcher;
        let named = is_label(name).then(|| format!("{name}={}", quoted(value)));
        named.ok_or_else(|| invalid(format!("`{name}` cannot be a label of logs")))
    };
    let all = matchers.iter().map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(all.join(", "))
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(Code::InvalidArguments, message)
}

/// A pass over a query.
struct Rewrite<'a> {
    rest: Peekable<CharIndices<'a>>,
    conditions: String,
    written: String,
    /// Inside of `{…}`.
    selecting: bool,
    /// The conditions stand right before.
    after_conditions: bool,
    selectors: usize,
}

impl<'a> Rewrite<'a> {
    fn new(query: &'a str, matchers: &[Matcher]) -> Result<Self, Failure> {
        Ok(Self {
            rest: query.char_indices().peekable(),
            conditions: conditions(matchers)?,
            written: String::with_capacity(query.len() + 64),
            selecting: false,
            after_conditions: false,
            selectors: 0,
        })
    }

    /// The query as it may be sent, and how many selectors it has.
    fn run(mut self) -> Result<(String, usize), Failure> {
        while let Some((at, c)) = self.rest.next() {
            match c {
                ' ' | '\t' | '\n' | '\r' => self.written.push(c),
                '#' => self.comment(),
                _ => self.token(at, c)?,
            }
        }
        if self.selecting {
            return Err(invalid("LogQL: a `{` is not closed"));
        }
        Ok((self.written, self.selectors))
    }

    fn token(&mut self, at: usize, c: char) -> Result<(), Failure> {
        if std::mem::take(&mut self.after_conditions) && c != '}' {
            self.written.push_str(", ");
        }
        // What has conditions in one branch of `{a="b" or c="d"}`, which others than Loki read, has none in the other.
        if self.selecting && self.written.trim_end().ends_with(['"', '`']) && !",}".contains(c) {
            return Err(unexpected(at, c));
        }
        match c {
            '"' => self.text(at),
            '`' => self.raw_text(at),
            '{' if !self.selecting => {
                self.written.push('{');
                self.written.push_str(&self.conditions);
                self.selecting = true;
                self.after_conditions = !self.conditions.is_empty();
                self.selectors += 1;
                Ok(())
            }
            '}' if self.selecting => {
                self.written.push('}');
                self.selecting = false;
                Ok(())
            }
            '[' if !self.selecting => self.range(at),
            '/' if self.rest.peek().is_some_and(|(_, next)| "/*".contains(*next)) => Err(unexpected(at, c)),
            c if c.is_ascii_alphanumeric() || "_.,=!~".contains(c) => self.plain(c),
            c if !self.selecting && "()|<>+-*/%^:".contains(c) => self.plain(c),
            c => Err(unexpected(at, c)),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "one of several ways to go on")]
    fn plain(&mut self, c: char) -> Result<(), Failure> {
        self.written.push(c);
        Ok(())
    }

    /// Up to the line's end. A space stands for it, lest two words become one.
    fn comment(&mut self) {
        while self.rest.next_if(|(_, c)| *c != '\n').is_some() {}
        self.written.push(' ');
    }

    fn text(&mut self, at: usize) -> Result<(), Failure> {
        self.written.push('"');
        while let Some((_, c)) = self.rest.next() {
            self.written.push(c);
            match c {
                '"' => return Ok(()),
                '\n' => break,
                '\\' => {
                    let escaped = self.rest.next_if(|(_, c)| *c != '\n');
                    self.written.extend(escaped.map(|(_, c)| c));
                }
                _ => {}
            }
        }
        Err(not_closed(at, '"'))
    }

    fn raw_text(&mut self, at: usize) -> Result<(), Failure> {
        self.written.push('`');
        for (_, c) in self.rest.by_ref() {
            self.written.push(c);
            if c == '`' {
                return Ok(());
            }
        }
        Err(not_closed(at, '`'))
    }

    /// `[5m]`: Loki reads it up to the bracket, whatever stands there.
    fn range(&mut self, at: usize) -> Result<(), Failure> {
        self.written.push('[');
        for (at, c) in self.rest.by_ref() {
            self.written.push(c);
            match c {
                ']' => return Ok(()),
                c if c.is_ascii_alphanumeric() || ". ".contains(c) => {}
                c => return Err(unexpected(at, c)),
            }
        }
        Err(not_closed(at, '['))
    }
}

fn unexpected(at: usize, c: char) -> Failure {
    invalid(format!(
        "LogQL: `{c}` at byte {at} is not expected there; comments begin with #"
    ))
}

fn not_closed(at: usize, c: char) -> Failure {
    invalid(format!("LogQL: the `{c}` at byte {at} is not closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Vec<Matcher> {
        vec![Matcher {
            name: "tenant".to_owned(),
            value: r#"ac"me"#.to_owned(),
        }]
    }

    fn enforced(query: &str) -> Result<String, Failure> {
        enforce(query, &acme())
    }

    #[test]
    fn every_selector_gets_the_matchers() {
        for (query, expected) in [
            (r#"{}"#, r#"{T}"#),
            (r#"{ }"#, r#"{T }"#),
            (r#"{a="b"}"#, r#"{T, a="b"}"#),
            (r#"{ tenant=~".+"}"#, r#"{T , tenant=~".+"}"#),
            (r#"{a="}"} |= "{" | json"#, r#"{T, a="}"} |= "{" | json"#),
            (
                r#"{a="\"}{"} |~ `\"{` != "x""#,
                r#"{T, a="\"}{"} |~ `\"{` != "x""#,
            ),
            (r#"{a=`\`, b="{"}"#, r#"{T, a=`\`, b="{"}"#),
            ("{a=\"b\"} # {\" `\n|= `\n`", "{T, a=\"b\"}  \n|= `\n`"),
            ("{#}\na=\"b\"}", "{T \n, a=\"b\"}"),
            (
                r#"sum by (x) (rate({a="b"} | json | y>=1.5 [5m])) / ignoring(x) (1 - rate({c!~"d"}[1h30m] offset 5m)) > 0"#,
                r#"sum by (x) (rate({T, a="b"} | json | y>=1.5 [5m])) / ignoring(x) (1 - rate({T, c!~"d"}[1h30m] offset 5m)) > 0"#,
            ),
        ] {
            let expected = expected.replace('T', r#"tenant="ac\"me""#);
            assert_eq!(enforced(query).as_deref(), Ok(expected.as_str()), "{query}");
        }
    }

    #[test]
    fn what_could_hide_a_selector_is_refused() {
        for query in [
            // Go's comments, which Loki skips: what looks like a text is none.
            r#"{a="b"} /* " */ or {c="d"} /* " */"#,
            "{a=\"b\"} // `\n or {c=\"d\"} // `",
            r#"{a='"'} {c="d"} {a='"'}"#,
            r#"rate({a="b"}["]) + rate({c="d"}["])"#,
            r#"rate({a="b"}[#]) + rate({c="d"}[1m])"#,
            r#"{a="b"#,
            r#"{a="b"} |= "x"#,
            "{a=\"b\"} |= \"x\n{c=\"d\"}\"",
            "{a=\"b\"} |= \"x\\\n\"",
            r#"{a="b"} |= `x"#,
            r#"{a="b""#,
            r#"{a="b"}}"#,
            r#"{{a="b"}"#,
            r#"{a="b"[}]"#,
            r#"rate({a="b"}[5m"#,
            "{a=\"b\"}\u{a0}|= `x`",
            "{a=\"b\"}\0",
            r#"{a="b"} \ "#,
        ] {
            let refused = enforced(query).map_err(|failure| failure.code);
            assert_eq!(refused, Err(Code::InvalidArguments), "{query}");
        }
    }

    #[test]
    fn without_matchers_loki_itself_judges() {
        let odd = r#"{a="b" // {"#;
        assert_eq!(enforce(odd, &[]).as_deref(), Ok(odd));
        assert_eq!(selector(&[]), Ok(None));
    }

    #[test]
    fn endpoints_for_labels_get_one_selector() {
        let rewritten = enforce_selector(" {a=\"b\"} # all", &acme());
        assert_eq!(rewritten.as_deref(), Ok(r#"{tenant="ac\"me", a="b"}"#));
        assert_eq!(enforce_selector(r#"{a="b"}"#, &[]).as_deref(), Ok(r#"{a="b"}"#));
        for query in [
            "",
            "a",
            r#"{a="b"} |= "x""#,
            r#"{a="b"} or {c="d"}"#,
            "rate({}[1m])",
        ] {
            assert!(enforce_selector(query, &acme()).is_err(), "{query}");
        }
        assert_eq!(selector(&acme()), Ok(Some(r#"{tenant="ac\"me"}"#.to_owned())));
    }

    #[test]
    fn texts_are_written_so_that_they_mean_themselves() {
        assert_eq!(quoted("a\"b\\c\n\u{7f}é"), r#""a\"b\\c\u000a\u007fé""#);
        assert_eq!(literal("a.b[c]$"), r"a\.b\[c\]\$");
        let odd = [Matcher {
            name: "x} or {y".to_owned(),
            value: String::new(),
        }];
        assert!(enforce("{}", &odd).is_err());
    }
}
