//! JMESPath's functions.

use super::eval::{Budget, Failure, Found, owned};
use jmespath::ast::Ast;
use serde_json::{Map, Number, Value};
use std::{borrow::Cow, cmp::Ordering};

/// One function: its name, how many arguments it takes, and which of them is an expression (`&…`).
struct Function {
    name: &'static str,
    least: usize,
    most: usize,
    expression: Option<usize>,
}

const fn takes(name: &'static str, arguments: usize) -> Function {
    Function {
        name,
        least: arguments,
        most: arguments,
        expression: None,
    }
}

const fn takes_many(name: &'static str) -> Function {
    Function {
        most: usize::MAX,
        ..takes(name, 1)
    }
}

const fn takes_expression(name: &'static str, at: usize) -> Function {
    Function {
        expression: Some(at),
        ..takes(name, 2)
    }
}

const FUNCTIONS: [Function; 26] = [
    takes("abs", 1),
    takes("avg", 1),
    takes("ceil", 1),
    takes("contains", 2),
    takes("ends_with", 2),
    takes("floor", 1),
    takes("join", 2),
    takes("keys", 1),
    takes("length", 1),
    takes_expression("map", 0),
    takes("max", 1),
    takes_expression("max_by", 1),
    takes_many("merge"),
    takes("min", 1),
    takes_expression("min_by", 1),
    takes_many("not_null"),
    takes("reverse", 1),
    takes("sort", 1),
    takes_expression("sort_by", 1),
    takes("starts_with", 2),
    takes("sum", 1),
    takes("to_array", 1),
    takes("to_number", 1),
    takes("to_string", 1),
    takes("type", 1),
    takes("values", 1),
];

/// Which argument is an expression, of a function that there is and that takes as many arguments.
pub(super) fn check(name: &str, args: &[Ast]) -> Result<Option<usize>, String> {
    let function = FUNCTIONS.iter().find(|function| function.name == name);
    let function = function.ok_or_else(|| {
        let names: Vec<_> = FUNCTIONS.iter().map(|function| function.name).collect();
        format!("a function that there is: {}", names.join(", "))
    })?;
    if !(function.least..=function.most).contains(&args.len()) {
        return Err(format!("{} with {} arguments", function.name, function.least));
    }
    let is_expression = |at: usize| matches!(args.get(at), Some(Ast::Expref { .. }));
    if function.expression.is_some_and(|at| !is_expression(at)) {
        return Err(format!("{} with an expression (&…)", function.name));
    }
    Ok(function.expression)
}

/// Calls a function whose name and arguments were [`check`]ed.
pub(super) fn call<'a>(budget: &mut Budget, data: &'a Value, name: &str, args: &[Ast]) -> Found<'a> {
    match (name, args) {
        ("map", [Ast::Expref { ast, .. }, list]) => map(budget, data, ast, list),
        ("sort_by", [list, Ast::Expref { ast, .. }]) => sort_by(budget, data, list, ast),
        ("max_by", [list, Ast::Expref { ast, .. }]) => {
            best_by(budget, data, list, ast, "max_by", Ordering::Greater)
        }
        ("min_by", [list, Ast::Expref { ast, .. }]) => {
            best_by(budget, data, list, ast, "min_by", Ordering::Less)
        }
        _ => {
            let args = args.iter().map(|arg| budget.eval(data, arg));
            let args = args.collect::<Result<Vec<_>, _>>()?;
            match args.as_slice() {
                [one] if !matches!(name, "merge" | "not_null") => unary(budget, name, one),
                [one, two] if !matches!(name, "merge" | "not_null") => binary(budget, name, one, two),
                _ => many(budget, name, &args),
            }
        }
    }
}

fn wrong<T>(function: &'static str, expected: &'static str) -> Result<T, Failure> {
    Err(Failure::Type { function, expected })
}

fn number<'a>(value: f64) -> Cow<'a, Value> {
    // What is whole is shown as such.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only what is whole and small enough"
    )]
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return owned(value as i64);
    }
    Cow::Owned(Number::from_f64(value).map_or(Value::Null, Value::Number))
}

fn unary<'a>(budget: &mut Budget, name: &str, value: &Value) -> Found<'a> {
    Ok(match (name, value) {
        ("abs", Value::Number(n)) => number(n.as_f64().unwrap_or_default().abs()),
        ("abs", _) => return wrong("abs", "a number"),
        ("ceil" | "floor", Value::Number(n)) if !n.is_f64() => Cow::Owned(value.clone()),
        ("ceil", Value::Number(n)) => number(n.as_f64().unwrap_or_default().ceil()),
        ("ceil", _) => return wrong("ceil", "a number"),
        ("floor", Value::Number(n)) => number(n.as_f64().unwrap_or_default().floor()),
        ("floor", _) => return wrong("floor", "a number"),
        ("avg", _) => match numbers("avg", value)? {
            numbers if numbers.is_empty() => owned(Value::Null),
            numbers => number(numbers.iter().sum::<f64>() / numbers.len() as f64),
        },
        ("sum", _) => number(numbers("sum", value)?.iter().sum()),
        ("keys", Value::Object(fields)) => {
            budget.pay(value, 1)?;
            Cow::Owned(fields.keys().map(|key| Value::from(key.as_str())).collect())
        }
        ("keys", _) => return wrong("keys", "an object"),
        ("values", Value::Object(fields)) => {
            budget.pay(value, 1)?;
            Cow::Owned(fields.values().cloned().collect())
        }
        ("values", _) => return wrong("values", "an object"),
        ("length", Value::Array(elements)) => owned(elements.len()),
        ("length", Value::Object(fields)) => owned(fields.len()),
        ("length", Value::String(text)) => {
            budget.spend(text.len())?;
            owned(text.chars().count())
        }
        ("length", _) => return wrong("length", "a list, an object or a text"),
        ("max", _) => best(budget, "max", value, Ordering::Greater)?,
        ("min", _) => best(budget, "min", value, Ordering::Less)?,
        ("reverse", Value::Array(elements)) => {
            budget.pay(value, 1)?;
            Cow::Owned(elements.iter().rev().cloned().collect())
        }
        ("reverse", Value::String(text)) => {
            budget.pay(value, 1)?;
            owned(text.chars().rev().collect::<String>())
        }
        ("reverse", _) => return wrong("reverse", "a list or a text"),
        ("sort", Value::Array(elements)) => {
            comparable("sort", elements.iter())?;
            budget.pay(value, 2)?;
            let mut sorted = elements.clone();
            sorted.sort_by(compare);
            owned(sorted)
        }
        ("sort", _) => return wrong("sort", "a list"),
        ("to_array", Value::Array(_)) => Cow::Owned(budget.own(Cow::Borrowed(value))?),
        ("to_array", _) => owned(vec![budget.own(Cow::Borrowed(value))?]),
        ("to_number", Value::Number(_)) => Cow::Owned(value.clone()),
        ("to_number", Value::String(text)) => match text.parse::<Number>() {
            Ok(number) => Cow::Owned(Value::Number(number)),
            Err(_) => owned(Value::Null),
        },
        ("to_number", _) => owned(Value::Null),
        ("to_string", Value::String(_)) => Cow::Owned(budget.own(Cow::Borrowed(value))?),
        ("to_string", _) => {
            // A character takes up to six when it is escaped.
            budget.pay(value, 6)?;
            owned(value.to_string())
        }
        ("type", _) => owned(kind(value)),
        _ => owned(Value::Null),
    })
}

fn binary<'a>(budget: &mut Budget, name: &str, one: &Value, two: &Value) -> Found<'a> {
    Ok(match (name, one, two) {
        ("contains", Value::Array(elements), _) => {
            let mut found = false;
            for element in elements {
                found = found || budget.equal(element, two)?;
            }
            owned(found)
        }
        ("contains", Value::String(text), Value::String(part)) => {
            budget.spend(text.len())?;
            owned(text.contains(part.as_str()))
        }
        ("contains", Value::String(_), _) => owned(false),
        ("contains", ..) => return wrong("contains", "a list or a text, and what it may contain"),
        ("ends_with", Value::String(text), Value::String(end)) => owned(text.ends_with(end.as_str())),
        ("ends_with", ..) => return wrong("ends_with", "two texts"),
        ("starts_with", Value::String(text), Value::String(start)) => owned(text.starts_with(start.as_str())),
        ("starts_with", ..) => return wrong("starts_with", "two texts"),
        ("join", Value::String(glue), Value::Array(elements)) => {
            let texts = elements.iter().map(Value::as_str);
            let Some(texts) = texts.collect::<Option<Vec<_>>>() else {
                return wrong("join", "a text and a list of texts");
            };
            budget.pay(two, 1)?;
            budget.spend(glue.len().saturating_mul(texts.len()))?;
            owned(texts.join(glue))
        }
        ("join", ..) => return wrong("join", "a text and a list of texts"),
        _ => owned(Value::Null),
    })
}

fn many<'a>(budget: &mut Budget, name: &str, args: &[Cow<'a, Value>]) -> Found<'a> {
    if name == "not_null" {
        let first = args.iter().find(|arg| !arg.is_null());
        return match first {
            Some(Cow::Borrowed(value)) => Ok(Cow::Borrowed(value)),
            Some(Cow::Owned(value)) => Ok(Cow::Owned(budget.own(Cow::Borrowed(value))?)),
            None => Ok(owned(Value::Null)),
        };
    }
    let mut merged = Map::new();
    for arg in args {
        let Value::Object(fields) = &**arg else {
            return wrong("merge", "objects");
        };
        budget.pay(arg, 1)?;
        merged.extend(fields.clone());
    }
    Ok(owned(Value::Object(merged)))
}

fn map<'a>(budget: &mut Budget, data: &'a Value, expression: &Ast, list: &Ast) -> Found<'a> {
    let list = budget.eval(data, list)?;
    let Value::Array(elements) = &*list else {
        return wrong("map", "an expression and a list");
    };
    let mut mapped = Vec::new();
    for element in elements {
        let value = budget.eval(element, expression)?;
        mapped.push(budget.own(value)?);
    }
    let mapped = Value::Array(mapped);
    budget.pay(&mapped, 1)?;
    Ok(Cow::Owned(mapped))
}

/// Each element with what the expression gives on it, all of which can be compared.
fn keyed<'v>(
    budget: &mut Budget,
    elements: &'v [Value],
    expression: &Ast,
    function: &'static str,
) -> Result<Vec<(Value, &'v Value)>, Failure> {
    let mut keyed = Vec::with_capacity(elements.len());
    for element in elements {
        let key = budget.eval(element, expression)?;
        keyed.push((budget.own(key)?, element));
    }
    comparable(function, keyed.iter().map(|(key, _)| key))?;
    Ok(keyed)
}

fn sort_by<'a>(budget: &mut Budget, data: &'a Value, list: &Ast, expression: &Ast) -> Found<'a> {
    let list = budget.eval(data, list)?;
    let Value::Array(elements) = &*list else {
        return wrong("sort_by", "a list and an expression");
    };
    let mut keyed = keyed(budget, elements, expression, "sort_by")?;
    keyed.sort_by(|(a, _), (b, _)| compare(a, b));
    budget.pay(&list, 1)?;
    Ok(Cow::Owned(
        keyed.into_iter().map(|(_, value)| value.clone()).collect(),
    ))
}

fn best_by<'a>(
    budget: &mut Budget,
    data: &'a Value,
    list: &Ast,
    expression: &Ast,
    function: &'static str,
    wanted: Ordering,
) -> Found<'a> {
    let list = budget.eval(data, list)?;
    let Value::Array(elements) = &*list else {
        return wrong(function, "a list and an expression");
    };
    let keyed = keyed(budget, elements, expression, function)?;
    let best = keyed.into_iter().reduce(|best, next| {
        if compare(&next.0, &best.0) == wanted {
            next
        } else {
            best
        }
    });
    match best {
        Some((_, value)) => Ok(Cow::Owned(budget.own(Cow::Borrowed(value))?)),
        None => Ok(owned(Value::Null)),
    }
}

fn best<'a>(budget: &mut Budget, function: &'static str, list: &Value, wanted: Ordering) -> Found<'a> {
    let Value::Array(elements) = list else {
        return wrong(function, "a list");
    };
    comparable(function, elements.iter())?;
    budget.pay(list, 1)?;
    let best = elements
        .iter()
        .reduce(|best, next| if compare(next, best) == wanted { next } else { best });
    Ok(best.map_or(owned(Value::Null), |best| Cow::Owned(best.clone())))
}

/// Texts with texts, numbers with numbers; nothing else is compared: see [`comparable`].
fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => {
            let number = |value: &Value| value.as_f64().unwrap_or_default();
            number(a).total_cmp(&number(b))
        }
    }
}

fn comparable<'v>(function: &'static str, values: impl Iterator<Item = &'v Value>) -> Result<(), Failure> {
    let (mut texts, mut numbers) = (false, false);
    for value in values {
        match value {
            Value::String(_) => texts = true,
            Value::Number(_) => numbers = true,
            _ => return wrong(function, "texts or numbers"),
        }
    }
    if texts && numbers {
        return wrong(function, "either texts or numbers");
    }
    Ok(())
}

fn numbers(function: &'static str, list: &Value) -> Result<Vec<f64>, Failure> {
    let numbers = list.as_array().map(|list| list.iter().map(Value::as_f64));
    match numbers.and_then(|numbers| numbers.collect::<Option<Vec<_>>>()) {
        Some(numbers) => Ok(numbers),
        None => wrong(function, "a list of numbers"),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
