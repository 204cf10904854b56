//! The beginning of a runbook: what the alert means and the first steps.

/// The most that is told of one, in bytes.
const MAX: usize = 2000;

/// The beginning of an alert's runbook, without its title and without commands for a shell, which a tool's caller mostly
/// has none of; whether that is all of it.
pub(in super::super) fn beginning(alert: &str) -> Option<(String, bool)> {
    knowledge::runbook(alert).map(|text| cut(text, MAX))
}

fn cut(text: &str, max: usize) -> (String, bool) {
    let body = match text.strip_prefix("# ") {
        Some(titled) => titled.split_once('\n').map_or("", |(_, body)| body),
        None => text,
    };
    let mut kept: Vec<String> = Vec::new();
    let mut complete = true;
    for paragraph in paragraphs(body) {
        let size: usize = kept.iter().map(|kept| kept.len() + 2).sum();
        if paragraph.starts_with("```sh") {
            complete = false;
            // What leads to the commands leads nowhere without them.
            if kept.last().is_some_and(|last| last.ends_with(':')) {
                kept.pop();
            }
        } else if size + paragraph.len() > max {
            complete = false;
            kept.extend(rows(&paragraph, max.saturating_sub(size)));
            break;
        } else {
            kept.push(paragraph);
        }
    }
    while kept.last().is_some_and(|last| last.starts_with('#')) {
        kept.pop();
    }
    (kept.join("\n\n"), complete)
}

/// The rows of a table that are no longer than `max` together, where it has any beside its head.
fn rows(table: &str, max: usize) -> Option<String> {
    let mut size = 0;
    let fitting = table.lines().take_while(|row| {
        size += row.len() + 1;
        row.starts_with('|') && size <= max
    });
    let rows: Vec<&str> = fitting.collect();
    (rows.len() > 2).then(|| rows.join("\n"))
}

/// Paragraphs, headings, tables and blocks of code, one each.
fn paragraphs(text: &str) -> Vec<String> {
    let mut all: Vec<String> = vec![String::new()];
    let mut code = false;
    for line in text.lines() {
        let fence = line.starts_with("```");
        let begins = !code && (fence || line.trim().is_empty());
        if begins && all.last().is_some_and(|last| !last.is_empty()) {
            all.push(String::new());
        }
        if (code || !line.trim().is_empty())
            && let Some(last) = all.last_mut()
        {
            if !last.is_empty() {
                last.push('\n');
            }
            last.push_str(line);
        }
        if fence && code {
            all.push(String::new());
        }
        code ^= fence;
    }
    all.retain(|paragraph| !paragraph.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runbook_begins_with_what_the_alert_means() {
        let (text, _) = beginning("HighErrorRate").unwrap();
        assert!(text.starts_with("More than 5%"), "{text}");
        assert!(text.contains("## First look"));
        assert!(text.len() <= MAX && !text.contains("curl"), "{text}");
        assert_eq!(beginning("NoSuchAlert"), None);
        for runbook in knowledge::runbooks() {
            let (text, _) = beginning(runbook.alert).unwrap();
            assert_eq!(text.matches("```").count() % 2, 0, "{}", runbook.alert);
            assert!(text.len() > 500, "{}", runbook.alert);
        }
    }

    #[test]
    fn paragraphs_and_blocks_of_code_are_told_whole() {
        let text = "# T\n\nword\n\n```promql\none\n\ntwo\n```\n```sh\nls\n```\n\n| a |\n| b |\n";
        let (all, is_all) = cut(text, 100);
        assert_eq!(
            (all.as_str(), is_all),
            ("word\n\n```promql\none\n\ntwo\n```\n\n| a |\n| b |", false)
        );
        assert_eq!(cut(text, 20), ("word".to_owned(), false));
        let table = "| sign | cause |\n|---|---|\n| a | b |\n| c | d |";
        assert_eq!(rows(table, 40).as_deref(), Some(&table[..36]));
        assert_eq!(rows(table, 30), None);
        assert_eq!(cut("# T\nall", 10), ("all".to_owned(), true));
    }
}
