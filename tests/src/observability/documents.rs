//! Queries in Markdown: blocks fenced as `promql` and `logql`, queries in them parted by empty lines.

use super::{Expression, Language, Place, Purpose, Sources, shown};
use anyhow::Context;
use std::{fs, path::Path};

/// Reads one file.
pub(super) fn read(root: &Path, path: &Path, sources: &mut Sources) -> anyhow::Result<()> {
    let file = shown(root, path);
    let page = fs::read_to_string(path).with_context(|| file.clone())?;
    for (line, language, text) in queries(&page) {
        let place = Place {
            file: file.clone(),
            item: format!("line {line}"),
        };
        sources.expressions.push(Expression {
            place,
            language,
            purpose: Purpose::Document,
            text,
            printed: Vec::new(),
            given: Vec::new(),
        });
    }
    Ok(())
}

/// The queries with the number of the line that each begins in.
fn queries(page: &str) -> Vec<(usize, Language, String)> {
    let mut found: Vec<(usize, Language, String)> = Vec::new();
    let (mut fence, mut begun) = (None, false);
    for (line, text) in page.lines().enumerate() {
        let trimmed = text.trim();
        if let Some(info) = trimmed.strip_prefix("```") {
            fence = match (fence, info) {
                (None, "promql") => Some(Some(Language::PromQl)),
                (None, "logql") => Some(Some(Language::LogQl)),
                (None, _) => Some(None),
                (Some(_), _) => None,
            };
            begun = false;
        } else if let Some(Some(language)) = fence {
            let comment = trimmed.starts_with('#');
            match found.last_mut() {
                _ if trimmed.is_empty() => begun = false,
                _ if comment => {}
                Some((_, _, query)) if begun => {
                    query.push('\n');
                    query.push_str(trimmed);
                }
                _ => {
                    found.push((line + 1, language, trimmed.to_owned()));
                    begun = true;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Language, queries};

    #[test]
    fn only_what_is_fenced_as_a_query_is_one() {
        let page = "\
text up
```sh
rate(x)
```
1. item
   ```promql
   # what is up
   sum(
     up)

   up == 0
   ```
```logql
{service=\"worker\"}
```
";
        let expected = [
            (8, Language::PromQl, "sum(\nup)".to_owned()),
            (11, Language::PromQl, "up == 0".to_owned()),
            (14, Language::LogQl, "{service=\"worker\"}".to_owned()),
        ];
        assert_eq!(queries(page), expected);
    }
}
