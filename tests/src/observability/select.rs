//! The selectors in a PromQL query.

use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{self, Expr, VectorSelector},
    util::{ExprVisitor, walk_expr},
};

/// All selectors of a query, without the ranges and offsets that they are read at; none where it does not parse.
#[must_use]
pub fn selectors(query: &str) -> Vec<VectorSelector> {
    struct Found(Vec<VectorSelector>);
    impl ExprVisitor for Found {
        type Error = ();
        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, ()> {
            match expr {
                Expr::VectorSelector(selector) => self.0.push(selector.clone()),
                Expr::MatrixSelector(matrix) => self.0.push(matrix.vs.clone()),
                _ => {}
            }
            Ok(true)
        }
    }
    let mut found = Found(Vec::new());
    if let Ok(expr) = parser::parse(query) {
        let _ = walk_expr(&mut found, &expr);
    }
    for selector in &mut found.0 {
        (selector.offset, selector.at) = (None, None);
    }
    found.0
}

/// A selector's metric, where it names one.
#[must_use]
pub fn metric(selector: &VectorSelector) -> Option<&str> {
    let by_matcher = || {
        let mut matchers = selector.matchers.matchers.iter();
        matchers
            .find(|matcher| matcher.name == "__name__" && matcher.op == MatchOp::Equal)
            .map(|matcher| matcher.value.as_str())
    };
    selector.name.as_deref().or_else(by_matcher)
}

/// A selector's matchers, but for the one on the name.
pub fn matchers(selector: &VectorSelector) -> impl Iterator<Item = &Matcher> {
    let or = selector.matchers.or_matchers.iter().flatten();
    selector
        .matchers
        .matchers
        .iter()
        .chain(or)
        .filter(|matcher| matcher.name != "__name__")
}

#[cfg(test)]
mod tests {
    use super::{metric, selectors};

    #[test]
    fn all_selectors_of_a_query() {
        let query = "sum(rate(a_total{x=\"1\"}[5m] offset 1h)) / on (y) max_over_time(sum(b)[1h:1m]) or {__name__=\"c\"}";
        let found = selectors(query);
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["a_total{x=\"1\"}", "b", "{__name__=\"c\"}"]);
        let names: Vec<_> = found.iter().filter_map(metric).collect();
        assert_eq!(names, ["a_total", "b", "c"]);
    }
}
