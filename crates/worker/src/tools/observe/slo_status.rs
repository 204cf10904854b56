//! `slo_status`: what is left of the error budgets, how fast they burn, and what burns them.

use super::{
    answer::{self, Answer},
    health::{
        parts::within,
        slos::{self, Slo, State},
        words,
    },
};
use crate::{
    outcome::{Code, Failure},
    sources::{Access, Kind},
    tools::built_in::{BuiltIn, Desk},
};
use domain::Time;
use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How long each part may take.
const PART: Duration = Duration::from_secs(10);
/// Objectives that are told of.
const SLOS: usize = 40;
/// Objectives of which is asked what burns them.
const BURNING: usize = 10;

/// The tool.
pub(crate) struct Tool;

/// What it is called with.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arguments {
    /// One objective's name; default: all
    slo: Option<String>,
    /// Metrics source
    source: Option<String>,
}

impl BuiltIn for Tool {
    const NAME: &'static str = "slo_status";
    const TITLE: &'static str = "Error budgets";
    const DESCRIPTION: &'static str = "Service level objectives: error budget left, burn rates over the alerts' windows \
        (1 just keeps the objective), and the routes or tools that burn most.";
    const NEEDS: &'static [Kind] = &[Kind::Prometheus];
    type Arguments = Arguments;

    async fn run(desk: &Desk<'_>, arguments: Arguments) -> Result<Value, Failure> {
        let metrics = desk
            .sources
            .pick(Kind::Prometheus, arguments.source.as_deref(), &desk.who)?;
        let mut slos = within(PART, slos::all(&metrics, desk.now)).await?;
        if let Some(wanted) = &arguments.slo {
            let known: Vec<String> = slos.keys().take(SLOS).cloned().collect();
            slos.retain(|name, _| name == wanted);
            if slos.is_empty() {
                return Err(unknown(wanted, &known));
            }
        }
        Ok(told(&metrics, &slos, desk.now).await)
    }
}

fn unknown(wanted: &str, known: &[String]) -> Failure {
    let wanted = answer::cut(wanted, 100);
    let message = match known {
        [] => format!("`{wanted}` has no figures, nor has any other objective that you may see"),
        known => format!("no figures of `{wanted}`; there are: {}", known.join(", ")),
    };
    Failure::new(Code::InvalidArguments, message)
}

async fn told(metrics: &Access, slos: &BTreeMap<String, Slo>, now: Time) -> Value {
    let mut graded: Vec<(&String, &Slo, State)> =
        slos.iter().map(|(name, slo)| (name, slo, state(slo))).collect();
    graded.sort_by_key(|(_, _, state)| std::cmp::Reverse(*state));
    let shown: Vec<_> = graded.iter().take(SLOS).collect();
    // What burns nothing has nothing that burns it: at first those that burn too fast.
    let burns = |slo: &Slo| {
        slo.budgets
            .iter()
            .any(|budget| budget.burn.iter().any(|(_, rate)| *rate > 0.0))
    };
    let asked: Vec<&String> = shown
        .iter()
        .filter(|(_, slo, _)| burns(slo))
        .take(BURNING)
        .map(|(name, _, _)| *name)
        .collect();
    let parts = asked
        .iter()
        .map(|name| within(PART, slos::burning(metrics, name, None, now)));
    let burning: BTreeMap<&String, Result<Vec<Value>, Failure>> =
        asked.iter().copied().zip(join_all(parts).await).collect();

    let mut answer = Answer::from(metrics);
    answer
        .set("at", answer::time(now))
        .set("summary", summary(&graded));
    let mut list = Vec::new();
    for (name, slo, state) in &shown {
        let mut told = objective(name, slo, *state);
        match burning.get(name) {
            Some(Ok(burning)) if !burning.is_empty() => {
                told.insert("burning".to_owned(), json!(burning));
            }
            Some(Err(failure)) => {
                answer.note(format!("what burns {name}: not known ({failure})"));
            }
            _ => {}
        }
        list.push(Value::Object(told));
    }
    if list.is_empty() {
        answer.note("no objective that you may see: its recording rules are named slo:sli_error:ratio_rate1h and so on");
    }
    answer.set("slos", list).truncated(shown.len(), slos.len());
    answer.finish("slos")
}

/// The gravest of an objective's budgets.
fn state(slo: &Slo) -> State {
    let states = slo.budgets.iter().map(|budget| budget.state().0);
    states.max().unwrap_or(State::Ok)
}

fn objective(name: &str, slo: &Slo, state: State) -> Map<String, Value> {
    let mut told = Map::new();
    told.insert("slo".to_owned(), name.into());
    if let Some(shipped) = knowledge::objective(name) {
        told.insert("promise".to_owned(), shipped.description.into());
    }
    if let Some(objective) = slo.objective {
        told.insert("objective_percent".to_owned(), answer::number(objective * 100.0));
    }
    if let Some(days) = slo.days {
        told.insert("days".to_owned(), answer::number(days));
    }
    told.insert("state".to_owned(), state.as_str().into());
    let services = slo.budgets.iter().map(|budget| {
        let mut told = budget.told(&["5m", "30m", "1h", "2h", "6h", "1d", "3d"]);
        if !budget.service.is_empty() {
            told["service"] = json!(budget.service);
        }
        told
    });
    told.insert("services".to_owned(), services.collect());
    told
}

fn summary(graded: &[(&String, &Slo, State)]) -> String {
    let mut sentences = Vec::new();
    for (name, slo, _) in graded {
        for budget in &slo.budgets {
            let (state, windows) = budget.state();
            let exhausted = budget.left.is_some_and(|left| left <= 0.0);
            let whose = match budget.service.as_str() {
                "" => (*name).clone(),
                service => format!("{name} of {service}"),
            };
            if let (State::Ticket | State::Page, Some((short, long))) = (state, windows) {
                let rate = words::short(budget.told_rate());
                sentences.push(format!(
                    "{whose} burns {rate} times too fast over {short} and {long} ({})",
                    state.as_str()
                ));
            } else if exhausted {
                sentences.push(format!("{whose} has no budget left"));
            }
        }
    }
    match sentences.len() {
        0 if graded.is_empty() => "Nothing is known of any objective.".to_owned(),
        0 => "No budget burns faster than may be.".to_owned(),
        more if more > 5 => format!("{}; and {} more.", sentences[..5].join("; "), more - 5),
        _ => format!("{}.", sentences.join("; ")),
    }
}

#[cfg(test)]
mod tests;
