//! Checks a PromQL query without asking it: that it parses and its types fit, and that each metric and label in it
//! exists and is used as its kind demands.

use super::{
    Expression, Known,
    known::{Series, Use},
    labels::Labels,
    select,
};
use promql_parser::{
    label::{MatchOp, Matcher},
    parser::{
        self, AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
        value::ValueType,
    },
};

/// Need what only grows.
const OF_GROWTH: [&str; 4] = ["rate", "increase", "irate", "resets"];
/// Make no sense of what only grows, for it begins again at zero.
const OF_VALUES: [&str; 14] = [
    "avg_over_time",
    "delta",
    "deriv",
    "double_exponential_smoothing",
    "holt_winters",
    "idelta",
    "mad_over_time",
    "max_over_time",
    "min_over_time",
    "predict_linear",
    "quantile_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "sum_over_time",
];
/// Ask whether there is something, not what.
const OF_PRESENCE: [&str; 3] = ["absent", "absent_over_time", "timestamp"];

/// What the answer of a part is used for.
#[derive(Clone, Copy, PartialEq)]
enum Context<'a> {
    /// Its values.
    Values,
    /// Only that it is there.
    Presence,
    /// It goes into this function of a range.
    Range(&'a str),
}

/// All that is wrong with a query.
pub(super) fn check(expression: &Expression, known: &Known) -> Vec<String> {
    let expr = match parser::parse(&expression.text) {
        Ok(expr) => expr,
        Err(error) => {
            return vec![format!(
                "is no PromQL: {}: {}",
                error.trim(),
                one_line(&expression.text)
            )];
        }
    };
    let mut checker = Checker {
        known,
        findings: Vec::new(),
    };
    let labels = checker.look(&expr, Context::Values);
    for label in &expression.printed {
        if !labels.may_have(label) && label != "__name__" {
            checker.finding(format!(
                "prints the label {label}; the answer has {}",
                labels.shown()
            ));
        }
    }
    checker.findings.sort();
    checker.findings.dedup();
    checker.findings
}

/// The labels of a query's answer, as far as they can be told.
pub(super) fn labels(expression: &Expression, known: &Known) -> impl Iterator<Item = String> + use<> {
    let mut checker = Checker {
        known,
        findings: Vec::new(),
    };
    let labels = parser::parse(&expression.text).map(|expr| checker.look(&expr, Context::Values).names);
    labels.unwrap_or_default().into_iter()
}

/// A query as one line.
pub(super) fn one_line(query: &str) -> String {
    query.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Checker<'a> {
    known: &'a Known,
    findings: Vec<String>,
}

impl Checker<'_> {
    fn finding(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// Checks a part and tells the labels of its answer.
    fn look(&mut self, expr: &Expr, context: Context<'_>) -> Labels {
        match expr {
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, context),
            Expr::Binary(binary) => self.binary(binary, context),
            Expr::Call(call) => self.call(call),
            Expr::VectorSelector(selector) => self.selector(selector, context),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs, context),
            Expr::Paren(paren) => self.look(&paren.expr, context),
            Expr::Unary(unary) => self.look(&unary.expr, context),
            // What stands in a subquery is evaluated again and again: its values count, whatever they go into.
            Expr::Subquery(subquery) => self.look(&subquery.expr, Context::Values),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Labels::none(),
            Expr::Extension(_) => Labels::unknown(),
        }
    }

    fn need(&mut self, label: &str, labels: &Labels, what: &str) {
        if !labels.may_have(label) {
            self.finding(format!("{what} {label}, but there is only {}", labels.shown()));
        }
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr, context: Context<'_>) -> Labels {
        let op = aggregate.op.to_string();
        let context = match op.as_str() {
            "count" | "group" => Context::Presence,
            _ if context == Context::Presence => context,
            _ => Context::Values,
        };
        let inner = self.look(&aggregate.expr, context);
        let labels = match &aggregate.modifier {
            Some(LabelModifier::Include(by)) => {
                for label in &by.labels {
                    self.need(label, &inner, "groups by");
                }
                Labels::all_of(&by.labels)
            }
            Some(LabelModifier::Exclude(without)) => {
                for label in &without.labels {
                    self.need(label, &inner, "takes away");
                }
                inner.clone().without(&without.labels)
            }
            None => Labels::none(),
        };
        match (op.as_str(), aggregate.param.as_deref()) {
            ("topk" | "bottomk" | "limitk" | "limit_ratio", _) => inner,
            ("count_values", Some(Expr::StringLiteral(label))) => labels.with(&label.val),
            _ => labels,
        }
    }

    fn call(&mut self, call: &Call) -> Labels {
        let name = call.func.name;
        let context = if OF_PRESENCE.contains(&name) {
            Context::Presence
        } else {
            Context::Range(name)
        };
        let mut labels = Labels::none();
        for arg in &call.args.args {
            let is_range = arg.value_type() == ValueType::Matrix;
            let context = match context {
                Context::Range(_) if !is_range => Context::Values,
                other => other,
            };
            if arg.value_type() == ValueType::Vector || is_range {
                labels = self.look(arg, context);
            }
        }
        let words: Vec<&str> = call.args.args.iter().filter_map(|arg| word(arg)).collect();
        match name {
            "histogram_quantile" | "histogram_fraction" => self.quantile(call, labels),
            "scalar" => Labels::none(),
            "absent" | "absent_over_time" => equal_labels(&call.args.args),
            "label_replace" if words.len() == 4 => {
                self.need(words[2], &labels, "label_replace reads");
                labels.with(words[0])
            }
            "label_join" if words.len() > 2 => {
                for source in &words[2..] {
                    self.need(source, &labels, "label_join reads");
                }
                labels.with(words[0])
            }
            _ => labels,
        }
    }

    fn quantile(&mut self, call: &Call, labels: Labels) -> Labels {
        self.need("le", &labels, &format!("{} needs", call.func.name));
        for selector in call
            .args
            .args
            .iter()
            .flat_map(|arg| select::selectors(&arg.to_string()))
        {
            let name = select::metric(&selector).unwrap_or_default();
            let growth = self.known.series.get(name).map(|series| series.usage);
            if growth == Some(Use::Growth) && !name.ends_with("_bucket") {
                self.finding(format!("{} of {name}, which is no _bucket", call.func.name));
            }
        }
        labels.without(&["le".to_owned()])
    }

    fn binary(&mut self, binary: &BinaryExpr, context: Context<'_>) -> Labels {
        let op = binary.op.to_string();
        let (of_left, of_right) = contexts(&op, binary, context);
        let left = self.look(&binary.lhs, of_left);
        let right = self.look(&binary.rhs, of_right);
        if binary.lhs.value_type() == ValueType::Scalar {
            return right;
        }
        if binary.rhs.value_type() == ValueType::Scalar {
            return left;
        }
        let modifier = binary.modifier.as_ref();
        let (left_key, right_key) = match modifier.and_then(|modifier| modifier.matching.as_ref()) {
            Some(LabelModifier::Include(on)) => {
                for label in &on.labels {
                    self.need(label, &left, "the left side is matched on");
                    self.need(label, &right, "the right side is matched on");
                }
                (Labels::all_of(&on.labels), Labels::all_of(&on.labels))
            }
            Some(LabelModifier::Exclude(ignored)) => {
                for label in &ignored.labels {
                    self.need(label, &left.clone().or(right.clone()), "ignores");
                }
                (
                    left.clone().without(&ignored.labels),
                    right.clone().without(&ignored.labels),
                )
            }
            None => (left.clone(), right.clone()),
        };
        if op != "or" && left_key.exact && right_key.exact && left_key.names != right_key.names {
            let (left, right) = (left_key.shown(), right_key.shown());
            self.finding(format!("the sides of `{op}` never match: {left} and {right}"));
        }
        match modifier.map(|modifier| &modifier.card) {
            _ if op == "or" => left.or(right),
            _ if matches!(op.as_str(), "and" | "unless") => left,
            Some(VectorMatchCardinality::ManyToOne(taken)) => self.taken(left, &right, &taken.labels),
            Some(VectorMatchCardinality::OneToMany(taken)) => self.taken(right, &left, &taken.labels),
            _ => left_key,
        }
    }

    /// Many on one: the many's labels and those taken over from the one.
    fn taken(&mut self, many: Labels, one: &Labels, taken: &[String]) -> Labels {
        let mut labels = many;
        for label in taken {
            self.need(label, one, "takes over");
            labels = labels.with(label);
        }
        labels
    }

    fn selector(&mut self, selector: &VectorSelector, context: Context<'_>) -> Labels {
        let Some(name) = select::metric(selector) else {
            return Labels::unknown();
        };
        let Some(series) = self.known.series.get(name) else {
            self.finding(self.known.hint(name));
            return Labels::unknown();
        };
        for matcher in select::matchers(selector) {
            if !series.labels.contains(&matcher.name) {
                let labels = Labels::some_of(series.labels.clone());
                self.finding(format!(
                    "{name} has no label {}, only {}",
                    matcher.name,
                    labels.shown()
                ));
            }
            self.findings.extend(self.value(name, series, matcher));
        }
        let wrong = match (series.usage, context) {
            (Use::Growth, Context::Values) => Some(format!(
                "{name} only grows: ask for its rate or increase, not its value"
            )),
            (Use::Growth, Context::Range(function)) if OF_VALUES.contains(&function) => Some(format!(
                "{function} of {name}, which only grows and begins anew at zero"
            )),
            (Use::Value, Context::Range(function)) if OF_GROWTH.contains(&function) => Some(format!(
                "{function} of {name}, which is no counter: each decrease counts as a restart"
            )),
            _ => None,
        };
        self.findings.extend(wrong);
        Labels::some_of(series.labels.clone())
    }

    /// What is wrong with a matcher's value, where the values are known.
    fn value(&self, name: &str, series: &Series, matcher: &Matcher) -> Option<String> {
        let values: Vec<String> = match matcher.name.as_str() {
            "service" if super::Known::is_declared(name) => self
                .known
                .services
                .iter()
                .map(|name| (*name).to_owned())
                .collect(),
            "job" => self.known.jobs.iter().cloned().collect(),
            "le" if !series.bounds.is_empty() => {
                series.bounds.iter().flat_map(|bound| written(*bound)).collect()
            }
            label => series
                .values
                .get(label)?
                .iter()
                .map(|value| (*value).to_owned())
                .collect(),
        };
        let (fits, value) = match &matcher.op {
            MatchOp::Equal => (values.contains(&matcher.value), &matcher.value),
            MatchOp::Re(pattern) => (values.iter().any(|value| pattern.is_match(value)), &matcher.value),
            MatchOp::NotEqual | MatchOp::NotRe(_) => (true, &matcher.value),
        };
        if !fits {
            return Some(format!(
                "no {name} has {}=\"{value}\"; there are {}",
                matcher.name,
                values.join(", ")
            ));
        }
        let whole = matcher.name == "le"
            && matcher.op == MatchOp::Equal
            && value.parse::<f64>().is_ok_and(|v| v.fract() == 0.0);
        whole.then(|| {
            let digits = value.trim_end_matches(".0");
            format!(
                "Prometheus 2 has le=\"{digits}\", 3 has le=\"{digits}.0\": write le=~\"{digits}(\\\\.0)?\""
            )
        })
    }
}

/// What the sides of an operator are used for. Only that it is there counts of what is multiplied by 0, of the right side
/// of `and` and `unless`, and of a counter that was not there before (`x unless x offset 1h`): all of it is growth.
fn contexts<'a>(op: &str, binary: &BinaryExpr, context: Context<'a>) -> (Context<'a>, Context<'a>) {
    let is_zero = |side: &Expr| matches!(side, Expr::NumberLiteral(number) if number.val == 0.0);
    match op {
        "*" if is_zero(&binary.lhs) || is_zero(&binary.rhs) => (Context::Presence, Context::Presence),
        "unless" if is_earlier(&binary.rhs, &binary.lhs) => (Context::Presence, Context::Presence),
        "and" | "unless" => (context, Context::Presence),
        _ => (context, context),
    }
}

/// Whether `past` is what `now` was some time ago.
fn is_earlier(past: &Expr, now: &Expr) -> bool {
    match (past, now) {
        (Expr::VectorSelector(past), Expr::VectorSelector(now)) => {
            past.offset.is_some() && now.offset.is_none() && select::metric(past) == select::metric(now)
        }
        _ => false,
    }
}

/// How a bound stands in `le`, with Prometheus 2 and 3.
fn written(bound: f64) -> Vec<String> {
    let short = bound.to_string();
    if bound.fract() == 0.0 {
        vec![format!("{short}.0"), short]
    } else {
        vec![short]
    }
}

/// A text among a function's arguments.
fn word(arg: &Expr) -> Option<&str> {
    match arg {
        Expr::StringLiteral(text) => Some(&text.val),
        Expr::Paren(paren) => word(&paren.expr),
        _ => None,
    }
}

/// `absent` has the labels that its selector pins down.
fn equal_labels(args: &[Box<Expr>]) -> Labels {
    match args.first().map(|arg| &**arg) {
        Some(Expr::VectorSelector(selector)) => pinned(selector),
        Some(Expr::MatrixSelector(matrix)) => pinned(&matrix.vs),
        _ => Labels::none(),
    }
}

fn pinned(selector: &VectorSelector) -> Labels {
    let equal = select::matchers(selector).filter(|matcher| matcher.op == MatchOp::Equal);
    Labels::all_of(equal.map(|matcher| &matcher.name))
}

#[cfg(test)]
mod tests;
