//! Words: what full-text search finds them by, and snippets that show them.
//!
//! Texts and queries are split here, not by the databases, so that both find the same, whatever their locale: a word
//! is a run of letters and digits in lower case; an ideograph, kana or the like, which are written without spaces, is
//! a word of its own. `payments-api` is the phrase of its two words.

use domain::context::INDEXED_BYTES;
use std::{
    collections::{BTreeMap, HashSet},
    fmt::Write as _,
    ops::Range,
};

/// Longer words are cut, in texts and queries alike.
const MAX_WORD_BYTES: usize = 128;
/// More phrases of a query, and more words of a phrase, are ignored: each is held against every word of a text.
const MAX_PHRASES: usize = 16;
const MAX_PHRASE_WORDS: usize = 16;
/// How far a snippet reaches before and after the first match, bytes.
const BEFORE: usize = 80;
const AFTER: usize = 240;

/// A search: phrases, each of one word or more, all of which must be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    /// Never empty, nor is any phrase.
    pub(crate) phrases: Vec<Vec<String>>,
}

impl Query {
    /// Takes any text. Words between quotes make a phrase; `None` when there is no word in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut phrases = Vec::new();
        for (i, part) in text.split('"').enumerate() {
            if i % 2 == 1 {
                phrases.push(words(part).collect::<Vec<_>>());
            } else {
                phrases.extend(part.split_whitespace().map(|word| words(word).collect()));
            }
        }
        let mut known = HashSet::new();
        phrases
            .iter_mut()
            .for_each(|phrase: &mut Vec<String>| phrase.truncate(MAX_PHRASE_WORDS));
        phrases.retain(|phrase| !phrase.is_empty() && known.insert(phrase.clone()));
        phrases.truncate(MAX_PHRASES);
        (!phrases.is_empty()).then_some(Self { phrases })
    }

    /// How many words match from the `i`th on.
    fn matches(&self, text: &str, ranges: &[Range<usize>], i: usize) -> usize {
        let here = |phrase: &[String]| {
            let words = ranges[i..].iter().map(|range| &text[range.clone()]);
            phrase.len() <= ranges.len() - i && words.zip(phrase).all(|(word, wanted)| same(word, wanted))
        };
        self.phrases
            .iter()
            .filter(|phrase| here(phrase))
            .map(Vec::len)
            .max()
            .unwrap_or(0)
    }
}

/// The indexed part of a text: its first [`INDEXED_BYTES`], cut between characters.
pub(crate) fn indexed(text: &str) -> &str {
    &text[..text.floor_char_boundary(INDEXED_BYTES)]
}

/// The words of a text's indexed part.
pub(crate) fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let text = indexed(text);
    ranges(text).map(|range| fold(&text[range]))
}

/// Each word with its places, counted from 1; at most `max_places` of them.
pub(crate) fn places(text: &str, max_places: usize) -> BTreeMap<String, Vec<usize>> {
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for (i, word) in words(text).enumerate() {
        let of_word = places.entry(word).or_default();
        if of_word.len() < max_places {
            of_word.push(i + 1);
        }
    }
    places
}

/// The part of a text around the first match: matching words in `<mark>`, everything else HTML-escaped.
pub(crate) fn snippet(text: &str, query: &Query) -> String {
    let text = indexed(text);
    let ranges: Vec<_> = ranges(text).collect();
    let first = (0..ranges.len())
        .find(|i| query.matches(text, &ranges, *i) > 0)
        .unwrap_or(0);
    let middle = ranges.get(first).map_or(0, |range| range.start);
    let (start, end) = (cut_before(text, middle), cut_after(text, middle));
    let mut out = String::from(if start > 0 { "…" } else { "" });
    let (mut written, mut marked) = (start, 0);
    for (i, range) in ranges
        .iter()
        .enumerate()
        .skip(first)
        .take_while(|(_, range)| range.end <= end)
    {
        marked = query.matches(text, &ranges, i).max(marked);
        if marked > 0 {
            marked -= 1;
            escape(&mut out, &text[written..range.start]);
            out.push_str("<mark>");
            escape(&mut out, &text[range.clone()]);
            out.push_str("</mark>");
            written = range.end;
        }
    }
    escape(&mut out, &text[written..end]);
    out.push_str(if end < text.len() { "…" } else { "" });
    out
}

/// Where a snippet begins: at most [`BEFORE`] bytes before `middle`, after a space if there is one.
fn cut_before(text: &str, middle: usize) -> usize {
    let start = text.floor_char_boundary(middle.saturating_sub(BEFORE));
    let space = text[start..middle]
        .find(char::is_whitespace)
        .filter(|_| start > 0);
    space.map_or(start, |at| text.ceil_char_boundary(start + at + 1))
}

/// Where a snippet ends: at most [`AFTER`] bytes after `middle`, before a space if there is one.
fn cut_after(text: &str, middle: usize) -> usize {
    let end = text.floor_char_boundary(middle + AFTER);
    let space = text[middle..end]
        .rfind(char::is_whitespace)
        .filter(|at| end < text.len() && *at > 0);
    space.map_or(end, |at| middle + at)
}

fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// Where the words of a text stand.
fn ranges(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text[at..].find(char::is_alphanumeric)?;
        let mut rest = text[start..].char_indices();
        let alone = rest.next().is_some_and(|(_, c)| stands_alone(c));
        let end = rest.find(|(_, c)| alone || !c.is_alphanumeric() || stands_alone(*c));
        at = end.map_or(text.len(), |(length, _)| start + length);
        Some(start..at)
    })
}

/// Scripts that put no spaces between words.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

fn fold(word: &str) -> String {
    let mut folded = word.to_lowercase();
    folded.truncate(folded.floor_char_boundary(MAX_WORD_BYTES));
    folded
}

fn same(word: &str, folded: &str) -> bool {
    if word.is_ascii() && word.len() <= MAX_WORD_BYTES {
        word.eq_ignore_ascii_case(folded)
    } else {
        fold(word) == folded
    }
}

/// A text's words with a space between them.
pub(crate) fn spaced(text: &str) -> String {
    let mut out = String::new();
    for word in words(text) {
        // Writing to a string cannot fail.
        let _ = write!(out, "{word} ");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, query: &str) -> String {
        snippet(text, &Query::parse(query).unwrap())
    }

    #[test]
    fn texts_are_split_into_words() {
        let split = |text| words(text).collect::<Vec<_>>();
        assert_eq!(
            split("GET api.Example.com/v1 ÜBER"),
            ["get", "api", "example", "com", "v1", "über"]
        );
        assert_eq!(split("K8s東京です"), ["k8s", "東", "京", "で", "す"]);
        assert_eq!(split("🙂—'\"*"), [""; 0]);
        assert_eq!(split(&"é".repeat(100_000))[0].len(), MAX_WORD_BYTES);
    }

    #[test]
    fn any_text_is_a_query() {
        let parse = |text| Query::parse(text).map(|q| q.phrases);
        assert_eq!(
            parse("disk \"Out of\" a-b"),
            Some(vec![
                vec!["disk".into()],
                vec!["out".into(), "of".into()],
                vec!["a".into(), "b".into()],
            ])
        );
        assert_eq!(parse("NEAR( OR* \"x").map(|p| p.len()), Some(3));
        assert_eq!(parse("\"\" 🙂 --"), None);
    }

    #[test]
    fn a_snippet_marks_words_and_escapes_the_rest() {
        assert_eq!(
            shown("<b>Disk full</b> & disk's", "disk"),
            "&lt;b&gt;<mark>Disk</mark> full&lt;/b&gt; &amp; <mark>disk</mark>&#39;s"
        );
        assert_eq!(
            shown("full disk, Disk full", "\"disk full\""),
            "full disk, <mark>Disk</mark> <mark>full</mark>"
        );
        let long = format!("{}needle {}", "hay ".repeat(500), "straw ".repeat(500));
        let cut = shown(&long, "needle");
        assert!(
            cut.starts_with("…hay")
                && cut.contains("hay <mark>needle</mark> straw")
                && cut.ends_with("straw…"),
            "{cut}"
        );
        assert!(cut.len() < 400);
    }

    #[test]
    fn snippets_of_strange_texts_are_cut_between_characters() {
        for text in [
            "語".repeat(100_000),
            "a".repeat(INDEXED_BYTES + 9),
            "🙂".repeat(1000),
            String::new(),
        ] {
            assert!(shown(&text, "語").len() < 1500);
        }
    }
}
