//! A statement as others may see it.

/// A statement on one line, without comments, and without the text values that PostgreSQL leaves in those that it does
/// not normalise (`ALTER ROLE … PASSWORD '…'`, the bodies of functions). What is quoted and not closed, because it was
/// cut, goes up to the end.
pub(super) fn shown(statement: &str) -> String {
    let mut shown = String::with_capacity(statement.len().min(1024));
    let mut rest = statement;
    while let Some(next) = rest.chars().next() {
        let before = shown.chars().next_back();
        let (written, after) = step(rest, next, &shown);
        match written {
            Written::Same => shown.push_str(&rest[..rest.len() - after.len()]),
            Written::Value => shown.push('?'),
            Written::Space if before.is_some_and(|c| c != ' ') => shown.push(' '),
            Written::Space => {}
        }
        rest = after;
    }
    shown.trim_end().to_owned()
}

enum Written {
    Same,
    Value,
    Space,
}

/// What is written for what comes next, and what comes after it.
fn step<'a>(rest: &'a str, next: char, before: &str) -> (Written, &'a str) {
    let in_word = |text: &str| text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$'));
    let one = &rest[next.len_utf8()..];
    match next {
        // With an E before it, a text has backslashes.
        '\'' => (
            Written::Value,
            quoted(
                one,
                '\'',
                before.strip_suffix(['e', 'E']).is_some_and(|text| !in_word(text)),
            ),
        ),
        // An identifier.
        '"' => (Written::Same, quoted(one, '"', false)),
        '-' if one.starts_with('-') => (Written::Space, one.find('\n').map_or("", |end| &one[end..])),
        '/' if one.starts_with('*') => (Written::Space, comment(rest)),
        '$' if !in_word(before) => match dollar(rest) {
            Some(after) => (Written::Value, after),
            None => (Written::Same, one),
        },
        next if next.is_whitespace() => (Written::Space, one),
        _ => (Written::Same, one),
    }
}

/// What follows a quoted text; a doubled quote stands for one in it.
fn quoted(text: &str, quote: char, escapes: bool) -> &str {
    let mut chars = text.char_indices().peekable();
    while let Some((at, next)) = chars.next() {
        if escapes && next == '\\' {
            chars.next();
        } else if next == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return &text[at + quote.len_utf8()..];
        }
    }
    ""
}

/// What follows a comment; they nest.
fn comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, after);
        } else if let Some(after) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, after);
        } else {
            rest = &rest[rest.chars().next().map_or(0, char::len_utf8)..];
        }
        if depth == 0 {
            return rest;
        }
    }
    rest
}

/// What follows a text between `$$` or `$tag$`; `None` for a parameter (`$1`).
fn dollar(text: &str) -> Option<&str> {
    let end = text[1..].find('$')? + 2;
    let tag = &text[..end];
    let name = &tag[1..end - 1];
    let is_tag = name.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !name.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| {
        text[end..]
            .find(tag)
            .map_or("", |close| &text[end + close + tag.len()..])
    })
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn values_and_comments_are_left_out() {
        for (statement, expected) in [
            (
                "SELECT *\n\t FROM t  WHERE a = $1 AND b = $2",
                "SELECT * FROM t WHERE a = $1 AND b = $2",
            ),
            (
                "ALTER ROLE x PASSWORD 'se''cret' VALID UNTIL 'y'",
                "ALTER ROLE x PASSWORD ? VALID UNTIL ?",
            ),
            ("SELECT E'a\\'secret', 'b'", "SELECT E?, ?"),
            ("SELECT 'C:\\', a", "SELECT ?, a"),
            ("x LIKE'C:\\' OR 'secret'", "x LIKE? OR ?"),
            ("SET x = 'cut in the mid", "SET x = ?"),
            ("DO $$ BEGIN 'secret'; END $$ LANGUAGE sql", "DO ? LANGUAGE sql"),
            ("DO $body$ secret $1 $$ $body$, x", "DO ?, x"),
            ("DO $$ secret that was cut", "DO ?"),
            (
                "SELECT 1 /* traceparent='secret' /* nested */ x */ + 2 -- secret",
                "SELECT 1 + 2",
            ),
            ("/* first */SELECT \"a'b\", 'secret'", "SELECT \"a'b\", ?"),
            ("SELECT a$b$ FROM t", "SELECT a$b$ FROM t"),
            ("SELECT 'ä', ä", "SELECT ?, ä"),
            ("SELECT x - -1", "SELECT x - -1"),
        ] {
            assert_eq!(shown(statement), expected, "{statement}");
        }
    }
}
