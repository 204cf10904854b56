//! PromQL that shows a tenant only what is its own.

use super::Matcher;
use crate::outcome::{Code, Failure};
use promql_parser::{
    label::{MatchOp, Matcher as Label},
    parser::{self, Expr, VectorSelector},
};
use serde_json::Value;

/// The longest query, in bytes. What is nested is read recursively; the two limits keep that within a thread's stack.
const MAX_BYTES: usize = 8 << 10;
/// The most operators, parentheses and the like in a restricted query.
const MAX_OPERATORS: usize = 300;

/// Functions that fetch series other than those their arguments select.
const REACH_FURTHER: [&str; 1] = ["info"];

/// The query with `matchers` in every one of its vector selectors. Without matchers it stays as it is: the source says
/// better what is wrong with it.
///
/// # Errors
/// [`Code::InvalidArguments`] when it is too long, is not PromQL, or is more than can be restricted for certain.
pub fn enforce(query: &str, matchers: &[Matcher]) -> Result<String, Failure> {
    if query.trim().is_empty() {
        return Err(refused("the query is empty"));
    }
    if query.len() > MAX_BYTES {
        return Err(refused(format!("a query may have {MAX_BYTES} bytes")));
    }
    if matchers.is_empty() {
        return Ok(query.to_owned());
    }
    if operators(query) > MAX_OPERATORS {
        return Err(refused(format!(
            "a query may have {MAX_OPERATORS} operators and parentheses"
        )));
    }
    let mut restricted = parse(query)?;
    restrict(&mut restricted, matchers)?;
    let printed = restricted.to_string();
    // What is sent is what counts: it must read as what was meant, whatever the printing did to names and values.
    if parse(&printed).ok().as_ref() != Some(&restricted) {
        return Err(refused(
            "it cannot be restricted to what you may see; write it more plainly",
        ));
    }
    Ok(printed)
}

/// A series selector of nothing but the enforced labels, for `match[]`; `None` where nothing is enforced.
pub fn selector(matchers: &[Matcher]) -> Option<String> {
    let labels: Vec<String> = matchers
        .iter()
        .map(|matcher| label(matcher).to_string())
        .collect();
    (!labels.is_empty()).then(|| format!("{{{}}}", labels.join(",")))
}

/// Whether an object of labels has all that is enforced; for answers that the source cannot filter.
pub fn admits(matchers: &[Matcher], labels: &Value) -> bool {
    let has = |matcher: &Matcher| labels[&matcher.name].as_str() == Some(&matcher.value);
    matchers.iter().all(has)
}

/// At least as many as the query is deep.
fn operators(query: &str) -> usize {
    let signs = query.bytes().filter(|byte| b"(+-*/%^<>=![".contains(byte));
    let words = query.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| {
        ["or", "and", "unless", "atan2"]
            .iter()
            .any(|op| op.eq_ignore_ascii_case(word))
    });
    signs.count() + words.count()
}

fn refused(problem: impl std::fmt::Display) -> Failure {
    Failure::new(Code::InvalidArguments, format!("PromQL: {problem}"))
}

fn parse(query: &str) -> Result<Expr, Failure> {
    // The parser panics on some durations (`x[Inf]`).
    let parsed = std::panic::catch_unwind(|| parser::parse(query));
    match parsed {
        Ok(parsed) => parsed.map_err(refused),
        Err(_) => Err(refused("a duration is out of bounds")),
    }
}

fn label(Matcher { name, value }: &Matcher) -> Label {
    Label::new(MatchOp::Equal, name, value)
}

fn restrict(expr: &mut Expr, matchers: &[Matcher]) -> Result<(), Failure> {
    match expr {
        Expr::VectorSelector(selector) => restrict_selector(selector, matchers),
        Expr::MatrixSelector(matrix) => restrict_selector(&mut matrix.vs, matchers),
        Expr::Aggregate(inner) => {
            if let Some(param) = &mut inner.param {
                restrict(param, matchers)?;
            }
            restrict(&mut inner.expr, matchers)
        }
        Expr::Unary(inner) => restrict(&mut inner.expr, matchers),
        Expr::Binary(inner) => {
            restrict(&mut inner.lhs, matchers)?;
            restrict(&mut inner.rhs, matchers)
        }
        Expr::Paren(inner) => restrict(&mut inner.expr, matchers),
        Expr::Subquery(inner) => restrict(&mut inner.expr, matchers),
        Expr::Call(call) if REACH_FURTHER.contains(&call.func.name) => Err(refused(format!(
            "{}() shows more than what you may see",
            call.func.name
        ))),
        Expr::Call(call) => call
            .args
            .args
            .iter_mut()
            .try_for_each(|arg| restrict(arg, matchers)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(()),
        Expr::Extension(_) => Err(refused("extensions cannot be restricted")),
    }
}

fn restrict_selector(selector: &mut VectorSelector, matchers: &[Matcher]) -> Result<(), Failure> {
    // VictoriaMetrics knows `{a="1" or b="2"}`: what stands in one branch does not hold in the other.
    if !selector.matchers.or_matchers.is_empty() {
        return Err(refused("write `or` between selectors, not within one"));
    }
    let labels = &mut selector.matchers.matchers;
    labels.extend(matchers.iter().map(label));
    labels.sort_by_cached_key(ToString::to_string); // as it is printed
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme() -> Vec<Matcher> {
        vec![Matcher {
            name: "tenant_id".into(),
            value: "acme".into(),
        }]
    }

    fn restricted(query: &str) -> String {
        enforce(query, &acme()).unwrap_or_else(|failure| panic!("{query}: {failure}"))
    }

    #[test]
    fn every_selector_is_restricted() {
        const T: &str = r#"tenant_id="acme""#;
        for (query, expected) in [
            ("up", "up{T}"),
            ("up{}", "up{T}"),
            (r#"{__name__="up"}"#, r#"{__name__="up",T}"#),
            (r#"{__name__=~".+"}"#, r#"{__name__=~".+",T}"#),
            (r#"{"up"}"#, r#"{__name__="up",T}"#),
            (r#"{"up", job='a'}"#, r#"{__name__="up",job="a",T}"#),
            (
                "rate(http_requests_total[5m])",
                "rate(http_requests_total{T}[5m])",
            ),
            (
                "a + on (job) group_left (x) b",
                "a{T} + on (job) group_left (x) b{T}",
            ),
            ("a or b unless c and d", "a{T} or b{T} unless c{T} and d{T}"),
            (
                "sum by (job) (a) / ignoring (x) sum(b)",
                "sum by (job) (a{T}) / ignoring (x) sum(b{T})",
            ),
            ("topk(scalar(k), a)", "topk(scalar(k{T}), a{T})"),
            (
                "max_over_time(rate(a[1m])[1h:5m] offset 1d)",
                "max_over_time(rate(a{T}[1m])[1h:5m] offset 1d)",
            ),
            ("a @ 1609746000 offset -5m", "a{T} @ 1609746000.000 offset -5m"),
            ("a @ end()", "a{T} @ end()"),
            ("-(-a)", "-(-a{T})"),
            (
                "histogram_quantile(0.9, sum by (le) (rate(b[5m])))",
                "histogram_quantile(0.9, sum by (le) (rate(b{T}[5m])))",
            ),
            (
                r#"label_replace(a, "tenant_id", "acme", "x", "(.*)")"#,
                r#"label_replace(a{T}, "tenant_id", "acme", "x", "(.*)")"#,
            ),
            ("vector(1)", "vector(1)"),
            ("a > bool 1", "a{T} > bool 1"),
            ("absent(a)", "absent(a{T})"),
            ("sum(a) without (x)", "sum without (x) (a{T})"),
            ("count_values(\"v\", a)", "count_values(\"v\", a{T})"),
            ("offset offset 5m", "offset{T} offset 5m"),
        ] {
            let expected = expected.replace('T', T);
            assert_eq!(restricted(query).replace("  ", " "), expected, "{query}");
        }
    }

    #[test]
    fn nothing_talks_its_way_out() {
        for query in [
            // What looks like code is text, what looks like text is code.
            r#"up # {tenant_id="rival"}"#,
            "up # \n + secret",
            r##"up{a="#"} + secret"##,
            r#"up{job="} or secret{"}"#,
            r#"up{job='"} or secret'}"#,
            "up{job=`\"} or secret{x=\"`}",
            r#"up{job="\"} or secret{x=\""}"#,
            r#"up{job="a\\"} or secret{x="\\"}"#,
            r#"up{job="a\u0022} or secret{x=\u0022"}"#,
            "up{job=\"a\\n\"} or secret",
            // The label itself.
            r#"up{tenant_id="rival"}"#,
            r#"up{tenant_id=~".*"}"#,
            r#"up{tenant_id!="acme"}"#,
            r#"up{"tenant_id"="rival"}"#,
            r#"{"up\"} or secret{x=\"y"}"#,
            r#"{"tenant_id=\"acme\"}or secret"}"#,
            r#"up{"a\"b"="c"}"#,
            // Names.
            r#"sum by ("a) (up) or secret or sum by (b") (up)"#,
            r#"up{"é"="ü"}"#,
            "up{job=\"\u{2028}\u{0}\u{fffd}\"}",
            "(((((up)))))[5m:1m] @ 5 offset 1m",
            "sum(secret) by (tenant_id) or up",
            "-secret ^ -up",
            "min_of(secret, up)",
        ] {
            let Ok(printed) = enforce(query, &acme()) else {
                continue;
            };
            let mut selectors = Vec::new();
            let parsed = parser::parse(&printed).unwrap();
            collect(&parsed, &mut selectors);
            assert!(!selectors.is_empty(), "{query}");
            for selector in selectors {
                let enforced = label(&acme()[0]);
                assert!(
                    selector.matchers.matchers.contains(&enforced),
                    "{query}\n{printed}"
                );
                assert!(selector.matchers.or_matchers.is_empty(), "{query}\n{printed}");
            }
            let braces = unquoted(&printed).matches('{').count();
            assert_eq!(
                printed.matches(r#"tenant_id="acme""#).count(),
                braces,
                "{query}\n{printed}"
            );
        }
    }

    /// Without what stands between double quotes, which are the only ones that are printed.
    fn unquoted(text: &str) -> String {
        let (mut kept, mut inside, mut escaped) = (String::new(), false, false);
        for c in text.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' if inside => escaped = true,
                '"' => inside = !inside,
                c if !inside => kept.push(c),
                _ => {}
            }
        }
        kept
    }

    fn collect<'a>(expr: &'a Expr, found: &mut Vec<&'a VectorSelector>) {
        match expr {
            Expr::VectorSelector(selector) => found.push(selector),
            Expr::MatrixSelector(matrix) => found.push(&matrix.vs),
            Expr::Aggregate(inner) => {
                inner.param.iter().for_each(|param| collect(param, found));
                collect(&inner.expr, found);
            }
            Expr::Unary(inner) => collect(&inner.expr, found),
            Expr::Binary(inner) => {
                collect(&inner.lhs, found);
                collect(&inner.rhs, found);
            }
            Expr::Paren(inner) => collect(&inner.expr, found),
            Expr::Subquery(inner) => collect(&inner.expr, found),
            Expr::Call(call) => call.args.args.iter().for_each(|arg| collect(arg, found)),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }

    #[test]
    fn what_cannot_be_restricted_for_certain_is_refused() {
        let deep = format!("{}up{}", "(".repeat(700), ")".repeat(700));
        let long = format!("up{{job=\"{}\"}}", "x".repeat(9000));
        for query in [
            "",
            "  ",
            "# only a comment",
            "up{",
            "up}",
            "up{}{}",
            "{}",
            r#"{job=~".*"}"#,
            r#"up{a="b" or c="d"}"#,
            r#"{__name__="up" or __name__="secret"}"#,
            "info(up)",
            r#"info(up, {k8s=~".+"})"#,
            r#"INFO(up)"#,
            "up[Inf]",
            "up[1e300]",
            "up offset NaN",
            "up[5m",
            "up; secret",
            "up secret",
            r#"up{job="a"#,
            "up{job=\"a\nb\"}",
            "up{job=\"\\é\"}",
            "WITH (x = secret) x",
            "up @ -1",
            "nonexistent_function(up)",
            r#"up{job=~"(?<!a)b"}"#,
            &deep,
            &long,
        ] {
            let refused = enforce(query, &acme()).map_err(|failure| failure.code);
            assert_eq!(refused, Err(Code::InvalidArguments), "{query}");
        }
    }

    #[test]
    fn the_deepest_query_fits_a_small_stack() {
        let deepest = [
            "-".repeat(MAX_OPERATORS) + "a",
            "(".repeat(MAX_OPERATORS) + "a" + &")".repeat(MAX_OPERATORS),
            "a^".repeat(MAX_OPERATORS) + "a",
            "a or ".repeat(MAX_OPERATORS) + "a",
            "abs(".repeat(MAX_OPERATORS) + "a" + &")".repeat(MAX_OPERATORS),
        ];
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let read = small.spawn(move || deepest.map(|query| enforce(&query, &acme()).is_ok()));
        assert_eq!(read.unwrap().join().expect("it fits"), [true; 5]);
    }

    #[test]
    fn without_matchers_the_source_judges() {
        assert_eq!(
            enforce("new_syntax(up) !!", &[]).as_deref(),
            Ok("new_syntax(up) !!")
        );
        assert_eq!(selector(&[]), None);
        let odd = Matcher {
            name: "tenant".into(),
            value: "a\"b\\".into(),
        };
        assert_eq!(
            selector(std::slice::from_ref(&odd)).as_deref(),
            Some(r#"{tenant="a\"b\\"}"#)
        );
        assert!(admits(
            std::slice::from_ref(&odd),
            &serde_json::json!({ "tenant": "a\"b\\" })
        ));
        assert!(!admits(&[odd], &serde_json::json!({})));
    }
}
