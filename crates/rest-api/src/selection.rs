//! What an agent is shown of a result: the tool's selection, a JMESPath expression, over the whole of it.
//!
//! The expression is a tenant's and the result is whatever an endpoint answered, so both are held to bounds: length
//! and depth of the expression when it is registered, work and memory whenever it runs. The parser is the crate
//! `jmespath`'s; its evaluator has no bounds, so [`eval`] is ours.

mod eval;
mod functions;

use domain::{Invalid, tool::options::MAX_SELECTION_BYTES};
use eval::Failure;
use jmespath::ast::Ast;
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// How deep an expression may be nested; a chain `a.b.c` counts one a step.
const MAX_DEPTH: usize = 100;
/// How many compiled expressions are kept.
const MAX_KEPT: u64 = 1000;
/// What may be done on the caller's thread: about a millisecond's work.
const LIGHT: usize = 1 << 20;
/// What may be done at all: tens of milliseconds, and about as many bytes.
const HEAVY: usize = 128 << 20;
/// How many heavy ones run at once.
const MAX_HEAVY: usize = 2;
/// The most that a selection may give, bytes of JSON text: it travels in one gRPC message.
const MAX_BYTES: usize = 3 << 20;
/// The parser calls itself for every level that a text may open, before the depth can be known.
const PARSER_STACK: usize = 64 << 20;

/// A result as an agent is shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The selection where there is one, else the whole result; `None` when the run has none.
    pub result_json: Option<String>,
    /// The whole result, bytes of JSON text.
    pub result_bytes: u64,
    /// `result_json` is the selection.
    pub selected: bool,
    /// Why the tool's selection was not applied, for a person or an agent.
    pub not_selected: Option<String>,
}

/// Compiled selections.
pub struct Selections {
    compiled: moka::sync::Cache<String, Arc<Ast>>,
    heavy: Semaphore,
}

impl Default for Selections {
    fn default() -> Self {
        Self {
            compiled: moka::sync::Cache::new(MAX_KEPT),
            heavy: Semaphore::new(MAX_HEAVY),
        }
    }
}

impl Selections {
    /// Whether an expression compiles and is within its bounds.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, expression: &str) -> Result<(), Invalid> {
        compile(expression).map(drop)
    }

    /// A result as the selection shows it. What cannot be selected is shown whole, with the reason: a call that went
    /// well must not fail for it.
    pub async fn shown(&self, selection: Option<&str>, result: Option<Value>) -> Shown {
        let Some(result) = result else {
            return Shown::default();
        };
        let expression = selection.map(|expression| self.compiled(expression));
        if eval::within(&result, LIGHT) {
            let shown = show(expression.as_ref(), &result, LIGHT);
            if !matches!(shown, Err(Failure::Costly)) {
                return shown.unwrap_or_default();
            }
        }
        // The semaphore is never closed.
        let _permit = self.heavy.acquire().await.ok();
        let heavy = tokio::task::spawn_blocking(move || show(expression.as_ref(), &result, HEAVY));
        heavy.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn compiled(&self, expression: &str) -> Result<Arc<Ast>, Invalid> {
        if let Some(known) = self.compiled.get(expression) {
            return Ok(known);
        }
        let compiled = Arc::new(compile(expression)?);
        self.compiled.insert(expression.to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

/// # Errors
/// [`Failure::Costly`], when the light budget did not suffice.
fn show(
    expression: Option<&Result<Arc<Ast>, Invalid>>,
    result: &Value,
    budget: usize,
) -> Result<Shown, Failure> {
    let whole = result.to_string();
    let result_bytes = whole.len() as u64;
    let selected = match expression {
        None => None,
        Some(Err(invalid)) => Some(Err(format!("the selection does not compile: {invalid}"))),
        Some(Ok(expression)) => match select(expression, result, budget) {
            Err(Failure::Costly) if budget < HEAVY => return Err(Failure::Costly),
            selected => Some(selected.map_err(|failure| format!("the selection {failure}"))),
        },
    };
    let (result_json, selected, not_selected) = match selected {
        None => (whole, false, None),
        Some(Ok(text)) => (text, true, None),
        Some(Err(why)) => (whole, false, Some(why)),
    };
    Ok(Shown {
        result_json: Some(result_json),
        result_bytes,
        selected,
        not_selected,
    })
}

fn select(expression: &Ast, result: &Value, budget: usize) -> Result<String, Failure> {
    let selected = eval::evaluate(expression, result, budget)?;
    if selected.is_null() {
        return Err(Failure::Nothing);
    }
    let text = selected.to_string();
    if text.len() > MAX_BYTES {
        return Err(Failure::TooLarge(MAX_BYTES));
    }
    Ok(text)
}

fn compile(expression: &str) -> Result<Ast, Invalid> {
    let invalid = |expected: String| Invalid::new("selection", expected);
    if expression.is_empty() || expression.len() > MAX_SELECTION_BYTES {
        return Err(invalid(format!("1 to {MAX_SELECTION_BYTES} bytes of JMESPath")));
    }
    let text = expression.to_owned();
    let parser = std::thread::Builder::new()
        .name("jmespath".to_owned())
        .stack_size(PARSER_STACK)
        .spawn(move || {
            let ast = jmespath::parse(&text)
                .map_err(|e| format!("a JMESPath expression (wrong at character {})", e.column + 1))?;
            eval::check(&ast, MAX_DEPTH).map(|()| ast)
        })
        .map_err(|_| invalid("a JMESPath expression that could be parsed now".to_owned()))?;
    let parsed = parser
        .join()
        .map_err(|_| invalid("a JMESPath expression".to_owned()))?;
    parsed.map_err(invalid)
}

#[cfg(test)]
mod tests;
