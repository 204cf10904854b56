//! Names of tools and arguments, made from whatever a document calls things.

use domain::tool::RESERVED_PREFIX;
use std::collections::HashMap;

/// The longest name of a tool or an argument.
pub(crate) const MAX_NAME: usize = 64;

/// Names, each of which is given once.
#[derive(Debug, Default)]
pub(crate) struct Names(HashMap<String, usize>);

impl Names {
    /// The name itself, or the first of `name_2`, `name_3` … that is free.
    pub(crate) fn take(&mut self, name: &str) -> String {
        let mut given = name.to_owned();
        let mut number = self.0.get(name).copied().unwrap_or(1);
        while self.holds(&given) {
            number += 1;
            let suffix = format!("_{number}");
            let kept: String = name.chars().take(MAX_NAME - suffix.len()).collect();
            given = kept + &suffix;
        }
        self.0.insert(name.to_owned(), number);
        self.0.entry(given.clone()).or_insert(1);
        given
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The name of an operation's tool.
pub(crate) fn tool(prefix: &str, operation_id: Option<&str>, method: &str, path: &str) -> String {
    let said = operation_id
        .map(|id| words(id, is_word))
        .filter(|name| !name.is_empty());
    let name = said.unwrap_or_else(|| words(&format!("{}_{path}", method.to_lowercase()), is_word));
    let name = format!("{prefix}{name}");
    let name = match name.strip_prefix(RESERVED_PREFIX) {
        Some(rest) => format!("api_{rest}"),
        None => name,
    };
    shorten(name)
}

/// The name of an argument: what clients commonly take for a property's name.
pub(crate) fn argument(name: &str) -> String {
    or_argument(words(name, is_word))
}

/// The name of an argument that stands in a URL template.
pub(crate) fn placeholder(name: &str) -> String {
    or_argument(words(name, |c| c.is_ascii_alphanumeric() || c == '_'))
}

fn or_argument(name: String) -> String {
    if name.is_empty() {
        "argument".to_owned()
    } else {
        shorten(name)
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

/// What is no part of a name becomes one `_` between words and nothing at the ends.
fn words(text: &str, ok: impl Fn(char) -> bool) -> String {
    if !text.is_empty() && text.len() <= MAX_NAME && text.chars().all(&ok) {
        return text.to_owned();
    }
    let mut name = String::new();
    // A longer one is shortened, with a digest of all that is looked at.
    for c in text.chars().take(4096) {
        if ok(c) {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    name.truncate(name.trim_end_matches('_').len());
    name
}

/// Names that are too long end in a digest of what was cut off, so that they stay different.
fn shorten(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let digest = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let kept: String = name.chars().take(MAX_NAME - 9).collect();
    format!("{kept}_{digest:08x}")
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters. Takes time in proportion to their lengths:
/// both are strangers'.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = text.strip_prefix(first).and_then(|text| text.strip_suffix(last));
    let Some(mut inner) = inner else { return false };
    // The earliest place for each part leaves the most room for those that follow.
    middle.split('*').all(|part| match inner.split_once(part) {
        Some((_, after)) => {
            inner = after;
            true
        }
        None => part.is_empty(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_get_names_that_tools_may_have() {
        for (prefix, id, name) in [
            ("gh_", Some("repos/list-for-org"), "gh_repos_list-for-org"),
            ("", Some("context_list"), "api_list"),
            ("", Some("  ü/  "), "get_users_id_things"),
            ("", None, "get_users_id_things"),
        ] {
            assert_eq!(tool(prefix, id, "GET", "/users/{id}/things"), name);
        }
        let long = [
            tool("", Some(&"a".repeat(99)), "", ""),
            tool("", Some(&"a".repeat(98)), "", ""),
        ];
        assert!(long[0].len() == MAX_NAME && long[0] != long[1]);
        let mut names = Names::default();
        assert_eq!(
            [names.take("a"), names.take("a"), names.take("a")],
            ["a", "a_2", "a_3"]
        );
    }

    #[test]
    fn arguments_get_names_that_clients_take() {
        assert_eq!(argument("page[size]"), "page_size");
        assert_eq!(argument("$filter"), "filter");
        assert_eq!(argument("X-Request-Id"), "X-Request-Id");
        assert_eq!(placeholder("user-id"), "user_id");
        assert_eq!(placeholder("***"), "argument");
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("repos/*", "repos/list", true),
            ("*", "", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c", false),
            ("a", "ab", false),
            ("ab*ba", "aba", false),
            ("a**", "a", true),
            ("*/issues/*", "/repos/issues/1", true),
            ("*b*a*", "ab", false),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
