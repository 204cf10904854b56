//! What an alert's rule measures: its expression without the bound, so that there are values to see before, while and
//! after it fires.

use promql_parser::parser::{self, BinaryExpr, Expr, token, value::ValueType};

/// An expression taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Measured {
    /// What is compared, as PromQL.
    pub(in super::super) query: String,
    /// What it is compared with, such as `> 0.05` or `> 1 or > 5`; empty where there is no number.
    pub(in super::super) bound: String,
    /// The alert is about small values: the smallest are of interest.
    pub(in super::super) small: bool,
}

impl Measured {
    /// Of an alert's expression. What cannot be taken apart is measured as it is.
    pub(in super::super) fn of(expression: &str) -> Self {
        let whole = Self {
            query: expression.to_owned(),
            bound: String::new(),
            small: false,
        };
        let Ok(parsed) = parser::parse(expression) else {
            return whole;
        };
        let mut bounds = Vec::new();
        let query = without_bound(&parsed, &mut bounds).to_string();
        // Printed and read again, since what is sent must be PromQL.
        if parser::parse(&query).is_err() {
            return whole;
        }
        let bound = bounds.join(" or ");
        let small = bound.starts_with('<') || bound.starts_with("==");
        Self { query, bound, small }
    }

    /// The query for its most interesting values, at most so many.
    pub(in super::super) fn most(&self, count: usize) -> String {
        let by = if self.small { "bottomk" } else { "topk" };
        format!("{by}({count}, {})", self.query)
    }
}

fn without_bound(expression: &Expr, bounds: &mut Vec<String>) -> Expr {
    let Expr::Binary(binary) = inside(expression) else {
        return expression.clone();
    };
    let operator = binary.op;
    if operator.is_comparison_operator() && !binary.return_bool() {
        let number_first = binary.lhs.value_type() == ValueType::Scalar;
        let (measured, with) = if number_first {
            (&binary.rhs, &binary.lhs)
        } else {
            (&binary.lhs, &binary.rhs)
        };
        // `5 < x` is told as it stands; nobody writes it.
        if with.value_type() == ValueType::Scalar && !number_first {
            bounds.push(format!("{operator} {with}"));
        }
        return without_bound(measured, bounds);
    }
    match operator.id() {
        token::T_LOR => {
            let (mut left, mut right) = (Vec::new(), Vec::new());
            let lhs = Box::new(without_bound(&binary.lhs, &mut left));
            let rhs = Box::new(without_bound(&binary.rhs, &mut right));
            // A bound that holds for some of the values says nothing of the others.
            if !left.is_empty() && !right.is_empty() {
                right.retain(|bound| !left.contains(bound));
                bounds.extend(left.into_iter().chain(right));
            }
            Expr::Binary(BinaryExpr {
                lhs,
                rhs,
                ..binary.clone()
            })
        }
        // Conditions beside what is measured.
        token::T_LAND | token::T_LUNLESS => without_bound(&binary.lhs, bounds),
        _ => expression.clone(),
    }
}

fn inside(expression: &Expr) -> &Expr {
    match expression {
        Expr::Paren(paren) => inside(&paren.expr),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(expression: &str) -> (String, String) {
        let Measured { query, bound, .. } = Measured::of(expression);
        (query, bound)
    }

    #[test]
    fn bounds_and_side_conditions_are_taken_off() {
        let of = |query: &str, bound: &str| (query.to_owned(), bound.to_owned());
        assert_eq!(
            measured(
                "sum by (service) (rate(e[5m])) / sum by (service) (rate(a[5m])) > 0.05 and sum(x) > 10"
            ),
            of(
                "sum by (service) (rate(e[5m])) / sum by (service) (rate(a[5m]))",
                "> 0.05"
            )
        );
        assert_eq!(
            measured("(a > 14.4 * 0.001 and b > 1) or (c > 6 * 0.001 and d > 1)"),
            of("a or c", "> 14.4 * 0.001 or > 6 * 0.001")
        );
        assert_eq!(
            measured("max by (service) (up) == 0 or absent(up)"),
            of("max by (service) (up) or absent(up)", "")
        );
        assert_eq!(
            measured("predict_linear(m[2h], 3600) > 2 * min_over_time(m[30m] offset 2h)").0,
            "predict_linear(m[2h], 3600)"
        );
        assert_eq!(measured("up =="), of("up ==", ""));
        assert!(Measured::of("up == 0").small);
        assert_eq!(Measured::of("up == 0").most(3), "bottomk(3, up)");
    }

    #[test]
    fn every_shipped_rule_can_be_taken_apart() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../alerts");
        let mut seen = 0;
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let simple = text.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
            for expression in simple.filter(|expression| !expression.starts_with('|')) {
                seen += 1;
                let measured = Measured::of(expression);
                assert!(parser::parse(&measured.query).is_ok(), "{expression}");
            }
        }
        assert!(seen > 20, "{seen}");
    }
}
