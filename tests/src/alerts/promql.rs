//! Scaling the times inside PromQL expressions.

use std::{fmt::Write as _, time::Duration};

/// The shortest range: `rate()` sees at least four samples of a scrape a second, one of which may be missing.
const LEAST_RANGE: Duration = Duration::from_secs(5);

/// Metrics whose value is a time that passes, and that expressions compare with one.
const AGES: &[&str] = &["mcp_execution_queue_age_seconds"];

/// Divides what is a time by `factor`: ranges, subqueries' resolutions, offsets, the horizon of `predict_linear`, and
/// the numbers that [`AGES`] are compared with. Strings and names stay as they are.
pub(super) fn scale(expression: &str, factor: u32) -> String {
    let mut scaled = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut in_brackets = false;
    // Whether a duration may come next: in brackets and after `offset`.
    let mut expects = false;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '"' | '\'' | '`' => string(rest),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            _ if next.is_ascii_digit() => run(rest, |c| c.is_ascii_alphanumeric() || c == '.'),
            _ if next.is_alphabetic() || next == '_' => {
                run(rest, |c| c.is_alphanumeric() || matches!(c, '_' | ':'))
            }
            _ => next.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        match token {
            "[" => in_brackets = true,
            "]" => in_brackets = false,
            _ => {}
        }
        let time = (in_brackets || expects).then(|| duration(token)).flatten();
        match time {
            Some(time) => {
                let least = if in_brackets {
                    LEAST_RANGE
                } else {
                    Duration::from_secs(1)
                };
                scaled.push_str(&shown((time / factor).max(least)));
            }
            None => scaled.push_str(token),
        }
        if !token.trim().is_empty() && token != "-" {
            expects = token == "offset";
        }
        rest = after;
    }
    ages(&horizons(&scaled, factor), factor)
}

/// The length of the string literal at the beginning.
fn string(text: &str) -> usize {
    let quote = text.chars().next().unwrap_or_default();
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = !escaped && c == '\\' && quote != '`';
    }
    text.len()
}

fn run(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|c| !belongs(c)).unwrap_or(text.len())
}

/// Divides the second argument of each `predict_linear`.
fn horizons(expression: &str, factor: u32) -> String {
    const CALL: &str = "predict_linear(";
    let Some((before, call)) = expression.split_once(CALL) else {
        return expression.to_owned();
    };
    let (mut depth, mut comma, mut end) = (0_u32, None, call.len());
    let mut at = 0;
    while let Some(c) = call[at..].chars().next() {
        match c {
            '"' | '\'' | '`' => {
                at += string(&call[at..]);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                end = at;
                break;
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => comma = Some(at),
            _ => {}
        }
        at += c.len_utf8();
    }
    let (arguments, after) = call.split_at(end);
    let arguments = match comma {
        Some(comma) => format!(
            "{}, ({}) / {factor}",
            &arguments[..comma],
            arguments[comma + 1..].trim()
        ),
        None => arguments.to_owned(),
    };
    format!("{before}{CALL}{arguments}{}", horizons(after, factor))
}

/// Divides the number that comes with the first comparison after each of [`AGES`].
fn ages(expression: &str, factor: u32) -> String {
    let mut scaled = String::new();
    let mut rest = expression;
    while let Some(found) = AGES
        .iter()
        .filter_map(|age| rest.find(age).map(|at| at + age.len()))
        .min()
    {
        let comparison = rest[found..].find(['<', '>']).map(|at| found + at + 1);
        let start = comparison.map(|at| at + run(&rest[at..], |c| matches!(c, '=' | ' ')));
        let start = start.unwrap_or(found);
        let length = run(&rest[start..], |c| c.is_ascii_digit() || c == '.');
        scaled.push_str(&rest[..start]);
        match rest[start..start + length].parse::<f64>() {
            Ok(number) => {
                let _ = write!(scaled, "{}", number / f64::from(factor));
            }
            Err(_) => scaled.push_str(&rest[start..start + length]),
        }
        rest = &rest[start + length..];
    }
    scaled + rest
}

/// A duration as Prometheus writes them: `5m`, `1h30m`, `0s`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(run(rest, |c| c.is_ascii_digit()));
        let (unit, after) = after.split_at(run(after, |c| c.is_ascii_alphabetic()));
        let number: u32 = number.parse().ok()?;
        let unit = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            "w" => Duration::from_secs(7 * 86_400),
            "y" => Duration::from_secs(365 * 86_400),
            _ => return None,
        };
        total += unit * number;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// The same as text, without a fraction.
pub(super) fn shown(duration: Duration) -> String {
    match duration.subsec_millis() {
        0 => format!("{}s", duration.as_secs()),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(expression: &str) -> String {
        scale(expression, 60)
    }

    #[test]
    fn ranges_subqueries_and_offsets_are_scaled() {
        assert_eq!(scaled("rate(x[10m])"), "rate(x[10s])");
        assert_eq!(scaled("rate(x[1h30m])"), "rate(x[90s])");
        assert_eq!(scaled("rate(x[1m])"), "rate(x[5s])");
        assert_eq!(
            scaled("count_over_time((rate(x[10m]) > 0.05)[1h:10m] offset 15m) > 5"),
            "count_over_time((rate(x[10s]) > 0.05)[60s:10s] offset 15s) > 5"
        );
        assert_eq!(scaled("x unless x offset 1h"), "x unless x offset 60s");
        assert_eq!(scaled("x offset -30m"), "x offset -30s");
    }

    #[test]
    fn strings_names_numbers_and_comments_stay() {
        let untouched = "slo:sli_error:ratio_rate5m{path=~\"/[5m]/.+\", b='offset 1h'} > 5 # 5m [1h]\n";
        assert_eq!(scaled(untouched), untouched);
        assert_eq!(scaled("time() - x > 3 * 3600"), "time() - x > 3 * 3600");
    }

    #[test]
    fn horizons_are_scaled_and_only_they() {
        assert_eq!(
            scaled(
                "predict_linear(a{b=\"),(\"}[6h], 24 * 3600) < 0 and predict_linear(a[6h], 60) > max(a, 2)"
            ),
            "predict_linear(a{b=\"),(\"}[360s], (24 * 3600) / 60) < 0 and \
             predict_linear(a[360s], (60) / 60) > max(a, 2)"
        );
    }

    #[test]
    fn ages_are_compared_with_scaled_numbers() {
        assert_eq!(
            scaled("max by (service) (mcp_execution_queue_age_seconds{a!=\"1\"}) > 300 unless x > 300"),
            "max by (service) (mcp_execution_queue_age_seconds{a!=\"1\"}) > 5 unless x > 300"
        );
        assert_eq!(
            scaled("mcp_execution_queue_age_seconds >= 90.5"),
            format!("mcp_execution_queue_age_seconds >= {}", 90.5 / 60.0)
        );
    }

    #[test]
    fn durations_are_read_and_shown() {
        assert_eq!(duration("1d12h"), Some(Duration::from_secs(129_600)));
        assert_eq!(duration("5"), None);
        assert_eq!(duration("x5m"), None);
        assert_eq!(shown(Duration::from_secs(90)), "90s");
        assert_eq!(shown(Duration::from_millis(833)), "833ms");
    }
}
