//! Objectives by the recording rules that Sloth's conventions name: how much of each budget is left, how fast it burns.

use super::figures::{Sample, quoted, vector};
use crate::{outcome::Failure, sources::Access, tools::observe::answer};
use domain::Time;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The windows over which burning is recorded.
const WINDOWS: [&str; 7] = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// Two windows in which a budget burns so fast that somebody is told: long, short, how many percent of it the long one
/// takes, its hours.
struct Alarm {
    short: &'static str,
    long: &'static str,
    percent_of_month: f64,
    percent_of_week: f64,
    hours: f64,
    state: State,
}

/// Google's SRE workbook for a month, Sloth's percentages for a week, as the alerts have them.
const ALARMS: [Alarm; 4] = [
    alarm("5m", "1h", 2.0, 8.0, 1.0, State::Page),
    alarm("30m", "6h", 5.0, 12.5, 6.0, State::Page),
    alarm("2h", "1d", 10.0, 20.0, 24.0, State::Ticket),
    alarm("6h", "3d", 10.0, 42.0, 72.0, State::Ticket),
];

const fn alarm(
    short: &'static str,
    long: &'static str,
    percent_of_month: f64,
    percent_of_week: f64,
    hours: f64,
    state: State,
) -> Alarm {
    Alarm {
        short,
        long,
        percent_of_month,
        percent_of_week,
        hours,
        state,
    }
}

/// How a budget is being spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum State {
    /// So that it lasts.
    Ok,
    /// So that somebody should look on the next working day.
    Ticket,
    /// So that somebody is woken.
    Page,
}

impl State {
    /// The word in answers.
    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Ticket => "ticket",
            Self::Page => "page",
        }
    }
}

/// The budget of a service for an objective.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Budget {
    /// Whose.
    pub(in super::super) service: String,
    /// The share of it that is left; negative when more was spent than there was.
    pub(in super::super) left: Option<f64>,
    /// By window, shortest first: how many times faster than would just keep the objective.
    pub(in super::super) burn: Vec<(&'static str, f64)>,
    /// Whether that is more than may be.
    days: f64,
}

impl Budget {
    fn burning(&self, window: &str) -> f64 {
        let found = self.burn.iter().find(|(name, _)| *name == window);
        found.map_or(0.0, |(_, rate)| *rate)
    }

    /// How it is being spent, and over which two windows too fast.
    pub(in super::super) fn state(&self) -> (State, Option<(&'static str, &'static str)>) {
        let sounding = ALARMS.iter().find(|alarm| {
            let percent = if self.days <= 7.0 {
                alarm.percent_of_week
            } else {
                alarm.percent_of_month
            };
            let factor = percent / 100.0 * self.days * 24.0 / alarm.hours;
            self.burning(alarm.short) > factor && self.burning(alarm.long) > factor
        });
        sounding.map_or((State::Ok, None), |alarm| {
            (alarm.state, Some((alarm.short, alarm.long)))
        })
    }

    /// How fast it burns over the shorter of the windows that say too fast, or over the last hour.
    pub(in super::super) fn told_rate(&self) -> f64 {
        let (_, windows) = self.state();
        self.burning(windows.map_or("1h", |(short, _)| short))
    }

    /// As it is answered. `windows`: which burn rates are told.
    pub(in super::super) fn told(&self, windows: &[&str]) -> Value {
        let burn = self.burn.iter().filter(|(window, _)| windows.contains(window));
        let burn: serde_json::Map<String, Value> = burn
            .map(|(window, rate)| ((*window).to_owned(), answer::number(*rate)))
            .collect();
        json!({
            "budget_left": self.left.map(answer::number),
            "burn": burn,
            "state": self.state().0.as_str(),
        })
    }
}

/// An objective, and who has it.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Slo {
    /// The share of events that must be good.
    pub(in super::super) objective: Option<f64>,
    /// Over how many days.
    pub(in super::super) days: Option<f64>,
    /// By service.
    pub(in super::super) budgets: Vec<Budget>,
}

/// All objectives by their names, as far as the caller may see them.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn all(access: &Access, at: Time) -> Result<BTreeMap<String, Slo>, Failure> {
    let windows = WINDOWS.join("|");
    let names = format!(
        "slo:sli_error:ratio_rate({windows})|slo:period_error_budget_remaining:ratio|slo:objective:ratio|\
         slo:error_budget:ratio|slo:time_period:days"
    );
    let samples = vector(access, &format!("{{__name__=~{}}}", quoted(&names)), at).await?;
    Ok(read(&samples))
}

/// What burns an objective, over the last hour: the parts with most bad events, each with its share of them. Nothing
/// for objectives that are not the product's own.
///
/// # Errors
/// [`Failure`]
pub(in super::super) async fn burning(
    access: &Access,
    slo: &str,
    service: Option<&str>,
    at: Time,
) -> Result<Vec<Value>, Failure> {
    let Some(objective) = knowledge::objective(slo).filter(|objective| !objective.breakdown.is_empty())
    else {
        return Ok(Vec::new());
    };
    let mut samples = vector(access, &objective.burning("1h"), at).await?;
    samples.retain(|sample| {
        sample.value > 0.0 && service.is_none_or(|service| sample.label("service") == service)
    });
    samples.sort_by(|a, b| b.value.total_cmp(&a.value));
    let all: f64 = samples.iter().map(|sample| sample.value).sum();
    let told = samples.iter().take(5).map(|sample| {
        let mut told = sample.told(&[]);
        told["share"] = answer::number(sample.value / all);
        told
    });
    Ok(told.collect())
}

/// A label of a sample by one of two names: ours, Sloth's.
fn named<'a>(sample: &'a Sample, ours: &str, sloths: &str) -> &'a str {
    match sample.label(ours) {
        "" => sample.label(sloths),
        name => name,
    }
}

fn read(samples: &[Sample]) -> BTreeMap<String, Slo> {
    let mut slos: BTreeMap<String, Slo> = BTreeMap::new();
    let mut error_budgets = BTreeMap::new();
    for sample in samples {
        let name = named(sample, "slo", "sloth_slo");
        let slo = slos.entry(name.to_owned()).or_default();
        match sample.label("__name__") {
            "slo:objective:ratio" => slo.objective = Some(sample.value),
            "slo:time_period:days" => slo.days = Some(sample.value),
            "slo:error_budget:ratio" => {
                error_budgets.insert(name.to_owned(), sample.value);
            }
            metric => {
                let budget = budget_of(slo, named(sample, "service", "sloth_service"));
                let window = metric.strip_prefix("slo:sli_error:ratio_rate");
                match window.and_then(|window| WINDOWS.into_iter().find(|known| *known == window)) {
                    Some(window) => budget.burn.push((window, sample.value)),
                    None => budget.left = Some(sample.value),
                }
            }
        }
    }
    for (name, slo) in &mut slos {
        // A tenant may not see figures without his label: what the budget is follows from what is shipped.
        let shipped = knowledge::objective(name);
        slo.objective = slo.objective.or_else(|| Some(shipped?.percent / 100.0));
        let days = || shipped?.window.strip_suffix('d')?.parse().ok();
        slo.days = slo.days.or_else(days);
        let allowed = error_budgets.get(name).copied();
        let allowed = allowed.or_else(|| Some(1.0 - slo.objective?));
        let place = |window: &str| WINDOWS.iter().position(|known| *known == window);
        for budget in &mut slo.budgets {
            budget.days = slo.days.unwrap_or(30.0);
            budget.burn.sort_by_key(|(window, _)| place(window));
            match allowed {
                Some(allowed) if allowed > 0.0 => {
                    budget.burn.iter_mut().for_each(|(_, rate)| *rate /= allowed)
                }
                _ => budget.burn.clear(),
            }
        }
        slo.budgets.sort_by(|a, b| a.service.cmp(&b.service));
    }
    slos.retain(|_, slo| !slo.budgets.is_empty());
    slos
}

fn budget_of<'a>(slo: &'a mut Slo, service: &str) -> &'a mut Budget {
    let known = slo.budgets.iter().position(|budget| budget.service == service);
    let index = known.unwrap_or_else(|| {
        slo.budgets.push(Budget {
            service: service.to_owned(),
            ..Budget::default()
        });
        slo.budgets.len() - 1
    });
    &mut slo.budgets[index]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
        let labels = [("__name__", name)].into_iter().chain(labels.iter().copied());
        Sample {
            labels: labels
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            value,
        }
    }

    /// `rates` are bad shares over 5m, 1h and 6h.
    fn state(slo: &str, [fast, hour, long]: [f64; 3]) -> State {
        let of = [("slo", slo), ("service", "rest-api")];
        let slos = read(&[
            sample("slo:error_budget:ratio", &[("slo", slo)], 0.05),
            sample("slo:sli_error:ratio_rate6h", &of, long),
            sample("slo:sli_error:ratio_rate5m", &of, fast),
            sample("slo:sli_error:ratio_rate1h", &of, hour),
            sample("slo:sli_error:ratio_rate30m", &of, fast),
            sample("slo:sli_error:ratio_rate3d", &of, long),
        ]);
        slos[slo].budgets[0].state().0
    }

    #[test]
    fn a_budget_burns_too_fast_where_both_windows_say_so() {
        assert_eq!(state("McpToolLatency", [0.9, 0.8, 0.01]), State::Page);
        // Over already.
        assert_eq!(state("McpToolLatency", [0.0, 0.8, 0.01]), State::Ok);
        // Six times as fast for six hours.
        assert_eq!(state("McpToolLatency", [0.31, 0.31, 0.31]), State::Page);
        assert_eq!(state("McpToolLatency", [0.06, 0.06, 0.06]), State::Ticket);
        // A week's objective has other factors: 13.44 where a month's has 14.4.
        assert_eq!(state("ApiLatency", [0.7, 0.7, 0.0]), State::Page);
        assert_eq!(state("McpToolLatency", [0.7, 0.7, 0.0]), State::Ok);
    }

    #[test]
    fn sloths_own_labels_are_understood() {
        let of = [("sloth_slo", "availability"), ("sloth_service", "shop")];
        let slos = read(&[
            sample("slo:objective:ratio", &of[..1], 0.99),
            sample("slo:sli_error:ratio_rate1h", &of, 0.02),
            sample("slo:period_error_budget_remaining:ratio", &of, 0.4),
        ]);
        let budget = &slos["availability"].budgets[0];
        assert_eq!((budget.service.as_str(), budget.left), ("shop", Some(0.4)));
        assert!((budget.burning("1h") - 2.0).abs() < 1e-9);
    }
}
