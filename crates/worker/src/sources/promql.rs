//! PromQL that shows a tenant only what is its own.

use super::Matcher;
use crate::outcome::{Code, Failure};
use promql_parser::{
    label::{MatchOp, Matcher as Label},
    parser::{self, Expr, VectorSelector},
};

/// The query with `matchers` in every one of its vector selectors. Without matchers it is checked and left as it is.
///
/// # Errors
/// [`Code::InvalidArguments`] when it is not PromQL, with the place.
pub fn enforce(query: &str, matchers: &[Matcher]) -> Result<String, Failure> {
    let mut expr =
        parser::parse(query).map_err(|problem| Failure::new(Code::InvalidArguments, format!("PromQL: {problem}")))?;
    if matchers.is_empty() {
        return Ok(query.to_owned());
    }
    restrict(&mut expr, matchers);
    Ok(expr.to_string())
}

fn restrict(expr: &mut Expr, matchers: &[Matcher]) {
    match expr {
        Expr::VectorSelector(selector) => restrict_selector(selector, matchers),
        Expr::MatrixSelector(matrix) => restrict_selector(&mut matrix.vs, matchers),
        Expr::Aggregate(inner) => {
            restrict(&mut inner.expr, matchers);
            inner.param.iter_mut().for_each(|param| restrict(param, matchers));
        }
        Expr::Unary(inner) => restrict(&mut inner.expr, matchers),
        Expr::Binary(inner) => {
            restrict(&mut inner.lhs, matchers);
            restrict(&mut inner.rhs, matchers);
        }
        Expr::Paren(inner) => restrict(&mut inner.expr, matchers),
        Expr::Subquery(inner) => restrict(&mut inner.expr, matchers),
        Expr::Call(call) => call.args.args.iter_mut().for_each(|arg| restrict(arg, matchers)),
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
    }
}

fn restrict_selector(selector: &mut VectorSelector, matchers: &[Matcher]) {
    for Matcher { name, value } in matchers {
        let enforced = Label::new(MatchOp::Equal, name, value);
        let branches = &mut selector.matchers;
        branches.or_matchers.iter_mut().for_each(|branch| branch.push(enforced.clone()));
        if branches.or_matchers.is_empty() {
            branches.matchers.push(enforced);
        }
    }
}
