//! Evaluates an expression within a budget of work and memory.

use super::functions;
use jmespath::{
    Rcvar,
    ast::{Ast, Comparator},
};
use serde_json::{Map, Value};
use std::{borrow::Cow, fmt};

/// What each step costs, and each value that is made.
const STEP: usize = 32;
/// What an object costs beside its members.
const OBJECT: usize = 256;
/// What a member costs beside its name and value.
const MEMBER: usize = 64;
/// How deep what is made may be nested, so that its readers can read it.
const MAX_VALUE_DEPTH: usize = 120;

/// Why there is no selection. Reads after "the selection".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The budget is spent.
    Costly,
    /// It gave null.
    Nothing,
    /// It gave too many bytes.
    TooLarge(usize),
    /// It made something too deep.
    TooDeep,
    /// A function was given what it does not take.
    Type {
        /// Its name.
        function: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// A slice by steps of zero.
    Slice,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Costly => f.write_str("would take too much time or memory on this result"),
            Self::Nothing => f.write_str("finds nothing in this result"),
            Self::TooLarge(limit) => write!(f, "gives more than {limit} bytes"),
            Self::TooDeep => write!(f, "gives a value nested more than {MAX_VALUE_DEPTH} deep"),
            Self::Type { function, expected } => {
                write!(f, "cannot be applied to this result: {function} takes {expected}")
            }
            Self::Slice => f.write_str("has a slice whose step is 0"),
        }
    }
}

/// A value of the result itself, or one that was made.
pub(super) type Found<'a> = Result<Cow<'a, Value>, Failure>;

/// What `expression` gives on `data`.
pub(super) fn evaluate<'a>(expression: &Ast, data: &'a Value, budget: usize) -> Found<'a> {
    Budget(budget).eval(data, expression)
}

/// Whether a value weighs no more than `budget`; stops counting there.
pub(super) fn within(value: &Value, budget: usize) -> bool {
    weigh(value, budget, usize::MAX).is_ok()
}

/// Holds an expression to `depth`, to the functions that there are, and to what may be their arguments. Needs a stack
/// in proportion to the depth that the expression has.
///
/// # Errors
/// What was expected instead.
pub(super) fn check(node: &Ast, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("an expression nested at most {} deep", super::MAX_DEPTH));
    };
    let all = |nodes: &[&Ast]| nodes.iter().try_for_each(|node| check(node, depth));
    match node {
        Ast::Identity { .. }
        | Ast::Field { .. }
        | Ast::Index { .. }
        | Ast::Literal { .. }
        | Ast::Slice { .. } => Ok(()),
        Ast::Expref { .. } => Err("'&' only before an argument of map, max_by, min_by or sort_by".to_owned()),
        Ast::Flatten { node, .. } | Ast::Not { node, .. } | Ast::ObjectValues { node, .. } => all(&[node]),
        Ast::Comparison { lhs, rhs, .. }
        | Ast::Projection { lhs, rhs, .. }
        | Ast::And { lhs, rhs, .. }
        | Ast::Or { lhs, rhs, .. }
        | Ast::Subexpr { lhs, rhs, .. } => all(&[lhs, rhs]),
        Ast::Condition { predicate, then, .. } => all(&[predicate, then]),
        Ast::MultiList { elements, .. } => elements.iter().try_for_each(|node| check(node, depth)),
        Ast::MultiHash { elements, .. } => elements.iter().try_for_each(|pair| check(&pair.value, depth)),
        Ast::Function { name, args, .. } => {
            let expression = functions::check(name, args)?;
            for (i, arg) in args.iter().enumerate() {
                match arg {
                    Ast::Expref { ast, .. } if expression == Some(i) => check(ast, depth)?,
                    arg => check(arg, depth)?,
                }
            }
            Ok(())
        }
    }
}

/// What may still be spent. Every value that is made is paid for with all that it holds, before it is made.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn spend(&mut self, cost: usize) -> Result<(), Failure> {
        self.0 = self.0.checked_sub(cost).ok_or(Failure::Costly)?;
        Ok(())
    }

    /// Pays for a copy of `value`, `times` over.
    pub(super) fn pay(&mut self, value: &Value, times: usize) -> Result<(), Failure> {
        let weight = weigh(value, self.0, MAX_VALUE_DEPTH)?;
        self.spend(weight.saturating_mul(times))
    }

    pub(super) fn own(&mut self, value: Cow<'_, Value>) -> Result<Value, Failure> {
        if let Cow::Borrowed(value) = &value {
            self.pay(value, 1)?;
        }
        Ok(value.into_owned())
    }

    /// A container that was just made; its parts were paid for when they were made, but each level is paid for anew,
    /// which bounds the depth.
    fn made<'a>(&mut self, value: Value) -> Found<'a> {
        self.pay(&value, 1)?;
        Ok(Cow::Owned(value))
    }

    pub(super) fn eval<'a>(&mut self, data: &'a Value, node: &Ast) -> Found<'a> {
        self.spend(STEP)?;
        match node {
            Ast::Identity { .. } => Ok(Cow::Borrowed(data)),
            Ast::Field { name, .. } => Ok(some(data.get(name.as_str()))),
            Ast::Index { idx, .. } => Ok(some(at(data, *idx))),
            Ast::Literal { value, .. } => self.literal(value),
            Ast::Subexpr { lhs, rhs, .. } => match self.eval(data, lhs)? {
                Cow::Borrowed(left) => self.eval(left, rhs),
                Cow::Owned(left) => {
                    let right = self.eval(&left, rhs)?;
                    Ok(Cow::Owned(self.own(right)?))
                }
            },
            Ast::Or { lhs, rhs, .. } => match self.eval(data, lhs)? {
                left if truthy(&left) => Ok(left),
                _ => self.eval(data, rhs),
            },
            Ast::And { lhs, rhs, .. } => match self.eval(data, lhs)? {
                left if truthy(&left) => self.eval(data, rhs),
                left => Ok(left),
            },
            Ast::Not { node, .. } => Ok(owned(!truthy(&*self.eval(data, node)?))),
            Ast::Condition { predicate, then, .. } => match truthy(&*self.eval(data, predicate)?) {
                true => self.eval(data, then),
                false => Ok(Cow::Owned(Value::Null)),
            },
            Ast::Comparison {
                comparator, lhs, rhs, ..
            } => {
                let (left, right) = (self.eval(data, lhs)?, self.eval(data, rhs)?);
                self.compare(comparator, &left, &right)
            }
            Ast::ObjectValues { node, .. } => {
                let subject = self.eval(data, node)?;
                match &*subject {
                    Value::Object(fields) => {
                        self.pay(&subject, 1)?;
                        self.made(fields.values().cloned().collect())
                    }
                    _ => Ok(Cow::Owned(Value::Null)),
                }
            }
            Ast::Projection { lhs, rhs, .. } => self.project(data, lhs, rhs),
            Ast::Flatten { node, .. } => self.flatten(data, node),
            Ast::MultiList { .. } | Ast::MultiHash { .. } if data.is_null() => Ok(Cow::Owned(Value::Null)),
            Ast::MultiList { elements, .. } => {
                let mut list = Vec::new();
                for node in elements {
                    let element = self.eval(data, node)?;
                    list.push(self.own(element)?);
                }
                self.made(Value::Array(list))
            }
            Ast::MultiHash { elements, .. } => {
                let mut fields = Map::new();
                for pair in elements {
                    let value = self.eval(data, &pair.value)?;
                    fields.insert(pair.key.clone(), self.own(value)?);
                }
                self.made(Value::Object(fields))
            }
            Ast::Function { name, args, .. } => functions::call(self, data, name, args),
            // Refused when it was compiled, but as a function's argument, where it is not evaluated by itself.
            Ast::Expref { .. } => Ok(Cow::Owned(Value::Null)),
            Ast::Slice {
                start, stop, step, ..
            } => self.slice(data, *start, *stop, *step),
        }
    }

    fn literal<'a>(&mut self, literal: &Rcvar) -> Found<'a> {
        let value = serde_json::to_value(literal).unwrap_or_default();
        self.made(value)
    }

    fn project<'a>(&mut self, data: &'a Value, lhs: &Ast, rhs: &Ast) -> Found<'a> {
        let left = self.eval(data, lhs)?;
        let Value::Array(elements) = &*left else {
            return Ok(Cow::Owned(Value::Null));
        };
        let mut list = Vec::new();
        for element in elements {
            let value = self.eval(element, rhs)?;
            if !value.is_null() {
                list.push(self.own(value)?);
            }
        }
        self.made(Value::Array(list))
    }

    fn flatten<'a>(&mut self, data: &'a Value, node: &Ast) -> Found<'a> {
        let subject = self.eval(data, node)?;
        let Value::Array(elements) = &*subject else {
            return Ok(Cow::Owned(Value::Null));
        };
        self.pay(&subject, 1)?;
        let mut list = Vec::new();
        for element in elements {
            match element {
                Value::Array(inner) => list.extend(inner.iter().cloned()),
                other => list.push(other.clone()),
            }
        }
        self.made(Value::Array(list))
    }

    fn slice<'a>(&mut self, data: &'a Value, start: Option<i32>, stop: Option<i32>, step: i32) -> Found<'a> {
        let Value::Array(elements) = data else {
            return Ok(Cow::Owned(Value::Null));
        };
        if step == 0 {
            return Err(Failure::Slice);
        }
        let (len, step) = (elements.len() as i64, i64::from(step));
        // From where to where a bound may reach.
        let (low, high) = if step > 0 { (0, len) } else { (-1, len - 1) };
        let bound = |given: Option<i32>, otherwise: i64| {
            given
                .map(i64::from)
                .map_or(otherwise, |i| if i < 0 { i + len } else { i }.clamp(low, high))
        };
        let (first, last) = if step > 0 { (0, len) } else { (len - 1, -1) };
        let (mut i, stop) = (bound(start, first), bound(stop, last));
        let mut list = Vec::new();
        while (step > 0 && i < stop) || (step < 0 && i > stop) {
            if let Some(element) = usize::try_from(i).ok().and_then(|i| elements.get(i)) {
                list.push(self.own(Cow::Borrowed(element))?);
            }
            i += step;
        }
        self.made(Value::Array(list))
    }

    fn compare<'a>(&mut self, comparator: &Comparator, left: &Value, right: &Value) -> Found<'a> {
        let number = |value: &Value| value.as_f64();
        let ordered = number(left).zip(number(right));
        Ok(match comparator {
            Comparator::Equal => owned(self.equal(left, right)?),
            Comparator::NotEqual => owned(!self.equal(left, right)?),
            Comparator::LessThan => ordered.map_or(Cow::Owned(Value::Null), |(a, b)| owned(a < b)),
            Comparator::LessThanEqual => ordered.map_or(Cow::Owned(Value::Null), |(a, b)| owned(a <= b)),
            Comparator::GreaterThan => ordered.map_or(Cow::Owned(Value::Null), |(a, b)| owned(a > b)),
            Comparator::GreaterThanEqual => ordered.map_or(Cow::Owned(Value::Null), |(a, b)| owned(a >= b)),
        })
    }

    /// Deep; 1 and 1.0 are the same.
    pub(super) fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, Failure> {
        self.spend(STEP)?;
        match (left, right) {
            (Value::Number(a), Value::Number(b)) => Ok(a == b || a.as_f64() == b.as_f64()),
            (Value::String(a), Value::String(b)) => {
                self.spend(a.len().min(b.len()))?;
                Ok(a == b)
            }
            (Value::Array(a), Value::Array(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(a), Value::Object(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (name, a) in a {
                    self.spend(name.len())?;
                    match b.get(name) {
                        Some(b) if self.equal(a, b)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            (a, b) => Ok(a == b),
        }
    }
}

/// What a copy of `value` costs, if that is no more than `most`.
fn weigh(value: &Value, most: usize, depth: usize) -> Result<usize, Failure> {
    let depth = depth.checked_sub(1).ok_or(Failure::TooDeep)?;
    let own = match value {
        Value::String(text) => STEP + text.len(),
        Value::Object(fields) if !fields.is_empty() => STEP + OBJECT,
        _ => STEP,
    };
    let mut left = most.checked_sub(own).ok_or(Failure::Costly)?;
    match value {
        Value::Array(elements) => {
            for element in elements {
                left -= weigh(element, left, depth)?;
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                left = left.checked_sub(MEMBER + name.len()).ok_or(Failure::Costly)?;
                left -= weigh(value, left, depth)?;
            }
        }
        _ => {}
    }
    Ok(most - left)
}

pub(super) fn owned<'a>(value: impl Into<Value>) -> Cow<'a, Value> {
    Cow::Owned(value.into())
}

fn some(value: Option<&Value>) -> Cow<'_, Value> {
    value.map_or(Cow::Owned(Value::Null), Cow::Borrowed)
}

fn at(data: &Value, index: i32) -> Option<&Value> {
    let elements = data.as_array()?;
    let from_end = usize::try_from(index.unsigned_abs()).ok()?;
    let place = match index {
        0.. => from_end,
        _ => elements.len().checked_sub(from_end)?,
    };
    elements.get(place)
}

pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(_) => true,
        Value::String(text) => !text.is_empty(),
        Value::Array(elements) => !elements.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}
