//! SPDX licence expressions.

/// Whether an expression can be met with the allowed licences alone; `Err` when it cannot be read.
///
/// `/` is taken for `OR`, as old manifests use it, and `A WITH B` is one licence of its own.
pub(super) fn is_met(expression: &str, allowed: &[String]) -> Result<bool, String> {
    let text = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.reverse();
    let met = either(&mut words, allowed)?;
    words.last().map_or(Ok(met), |word| {
        Err(format!("unexpected `{word}` in `{expression}`"))
    })
}

/// `both (OR both)*`; words are taken from the end of the list.
fn either(words: &mut Vec<&str>, allowed: &[String]) -> Result<bool, String> {
    let mut met = both(words, allowed)?;
    while words.pop_if(|word| *word == "OR").is_some() {
        met |= both(words, allowed)?;
    }
    Ok(met)
}

/// `one (AND one)*`
fn both(words: &mut Vec<&str>, allowed: &[String]) -> Result<bool, String> {
    let mut met = one(words, allowed)?;
    while words.pop_if(|word| *word == "AND").is_some() {
        met &= one(words, allowed)?;
    }
    Ok(met)
}

/// `( either )`, a licence, or a licence `WITH` an exception.
fn one(words: &mut Vec<&str>, allowed: &[String]) -> Result<bool, String> {
    match words.pop() {
        Some("(") => {
            let met = either(words, allowed)?;
            words
                .pop_if(|word| *word == ")")
                .ok_or("a parenthesis is not closed")?;
            Ok(met)
        }
        None | Some(")" | "OR" | "AND" | "WITH") => Err("a licence is missing".to_owned()),
        Some(licence) => {
            let exception = match words.pop_if(|word| *word == "WITH") {
                Some(_) => Some(words.pop().ok_or("an exception is missing")?),
                None => None,
            };
            let name = exception.map_or_else(|| licence.to_owned(), |of| format!("{licence} WITH {of}"));
            Ok(allowed.contains(&name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_expressions() {
        let allowed = [
            "MIT".to_owned(),
            "Apache-2.0".to_owned(),
            "Zlib WITH x".to_owned(),
        ];
        let met = |expression| is_met(expression, &allowed);
        assert_eq!(met("MIT"), Ok(true));
        assert_eq!(met("GPL-3.0"), Ok(false));
        assert_eq!(met("GPL-3.0 OR MIT"), Ok(true));
        assert_eq!(met("GPL-3.0/MIT"), Ok(true));
        assert_eq!(met("GPL-3.0 AND MIT"), Ok(false));
        assert_eq!(met("(GPL-3.0 OR Apache-2.0) AND MIT"), Ok(true));
        assert_eq!(met("GPL-3.0 OR MIT AND Apache-2.0"), Ok(true));
        assert_eq!(met("Zlib WITH x"), Ok(true));
        assert_eq!(met("MIT WITH x"), Ok(false));
        assert!(met("(MIT").is_err());
        assert!(met("MIT MIT").is_err());
        assert!(met("MIT OR").is_err());
    }
}
