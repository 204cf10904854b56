//! The dashboard of the objectives: how much budget is left, how fast it goes, and on what.

use super::{
    grafana::{About, Ask, Panel, WIDTH, column, dashboard, target, thresholds},
    rules::{RUNBOOKS, ratio_name},
    slos::{Slo, number},
};
use serde_json::{Value, json};

const LINKS: [(&str, &str); 8] = [
    ("mcp-overview", "MCP Overview"),
    ("service", "Service"),
    ("tools-tenants", "Tools & tenants"),
    ("agents", "Agents"),
    ("queue-worker", "Queue & worker"),
    ("postgresql", "PostgreSQL"),
    ("redis", "Redis"),
    ("logs-traces", "Logs & traces"),
];
/// Windows whose burn rates are drawn.
const WINDOWS: [&str; 4] = ["5m", "1h", "6h", "3d"];

/// The text of `dashboards/slo.json`.
pub(super) fn render(slos: &[Slo]) -> anyhow::Result<String> {
    let mut panels = vec![
        Panel::row("All objectives"),
        budgets(),
        burning_now(),
        alerts("critical", "Pages", "red"),
        alerts("warning", "Tickets", "orange"),
        objectives(slos),
    ];
    for slo in slos {
        panels.extend(panels_of(slo));
    }
    let about = About {
        uid: "slo",
        title: "SLO",
        description: "Is what we promise kept, how much error budget is left, and what spends it? Generated from \
                      alerts/slos.yaml by `cargo xtask generate`.",
        alerts: "alertname=~\".+BudgetBurn\"",
        links: &LINKS,
    };
    dashboard(&about, panels)
}

/// Red once it is spent.
fn left_colours() -> Value {
    thresholds("red", &[(0.0, "orange"), (0.5, "green")])
}

/// Orange where it would not last, red where a person is woken.
fn burn_colours(page: f64) -> Value {
    thresholds("green", &[(1.0, "orange"), (page, "red")])
}

fn budgets() -> Panel {
    let left = "slo:period_error_budget_remaining:ratio{service=~\"$service\"}";
    Panel::bargauge(
        "Error budget left",
        "Share of the bad events that the objective allows in its window and that have not happened yet. 0: one more \
         and the objective is missed. Each event weighs the same, whenever it came.",
        (12, 10),
        vec![target(Ask::Instant, left, "{{slo}} · {{service}}")],
    )
    .with("unit", json!("percentunit"))
    .with("min", json!(0))
    .with("max", json!(1))
    .with("thresholds", left_colours())
}

fn burning_now() -> Panel {
    let burn =
        "slo:sli_error:ratio_rate1h{service=~\"$service\"} / on (slo) group_left () slo:error_budget:ratio";
    Panel::bargauge(
        "Burn rate over an hour",
        "How many times as fast as would just keep the objective the budget was spent in the last hour. 1 lasts \
         exactly the window; 14.4 spends 2% of a month's budget in an hour and wakes somebody.",
        (8, 10),
        vec![target(Ask::Instant, burn, "{{slo}} · {{service}}")],
    )
    .with("unit", json!("suffix:×"))
    .with("decimals", json!(1))
    .with("min", json!(0))
    .with("max", json!(20))
    .with("thresholds", burn_colours(13.44))
}

fn alerts(severity: &str, title: &str, color: &str) -> Panel {
    let firing = format!(
        "count(ALERTS{{alertname=~\".+BudgetBurn\",alertstate=\"firing\",severity=\"{severity}\",service=~\"$service\"}}) \
         or vector(0)"
    );
    Panel::stat(
        title,
        &format!("Budget alerts of severity {severity} that fire now. The table below names them."),
        (4, 5),
        vec![target(Ask::Instant, &firing, "firing")],
    )
    .with("unit", json!("short"))
    .with("thresholds", thresholds("green", &[(1.0, color)]))
}

/// Every objective in a line.
fn objectives(slos: &[Slo]) -> Panel {
    let each = |name: &str| format!("max by (slo, service) ({name}{{service=~\"$service\"}})");
    let period = each("slo:period_burn_rate:ratio");
    let firing = |severity: &str| {
        format!(
            "max by (slo, service) (ALERTS{{alertname=~\".+BudgetBurn\",alertstate=\"firing\",\
             severity=\"{severity}\",service=~\"$service\"}})"
        )
    };
    let (page, ticket) = (firing("critical"), firing("warning"));
    let targets = [
        format!("slo:objective:ratio * on (slo) group_right () (0 * {period} + 1)"),
        format!("slo:time_period:days * on (slo) group_right () (0 * {period} + 1)"),
        format!("{period} * on (slo) group_left () slo:error_budget:ratio"),
        each("slo:period_error_budget_remaining:ratio"),
        each("slo:current_burn_rate:ratio"),
        format!("2 * {page} or {ticket} or 0 * {period}"),
    ];
    let targets = targets.iter().map(|expr| target(Ask::Table, expr, "")).collect();
    let runbook = json!([{"title": "Runbook", "url": format!("{RUNBOOKS}/${{__data.fields.SLO}}BudgetBurn.md"),
        "targetBlank": true}]);
    let states = json!([{"type": "value", "options": {
        "0": {"text": "none", "color": "green", "index": 0},
        "1": {"text": "ticket", "color": "orange", "index": 1},
        "2": {"text": "page", "color": "red", "index": 2}}}]);
    let coloured = json!({"type": "color-text"});
    let height = u32::try_from(slos.len()).unwrap_or(6) + 5;
    Panel::table(
        "Objectives",
        "Each objective and service: what is promised, what happened in the window, what is left, and whether an alert \
         fires. An idle service has no burn rate. The name leads to the runbook.",
        (WIDTH, height),
        targets,
        &[("slo", "SLO"), ("service", "Service")],
        &["Objective", "Days", "Bad events", "Budget left", "Burn rate now", "Alert"],
    )
    .with("unit", json!("percentunit"))
    .overrides(&[
        column("SLO", &[("links", runbook)]),
        column("Objective", &[("decimals", json!(2))]),
        column("Days", &[("unit", json!("d"))]),
        column("Bad events", &[("decimals", json!(3))]),
        column(
            "Budget left",
            &[("custom.cellOptions", coloured.clone()), ("thresholds", left_colours())],
        ),
        column(
            "Burn rate now",
            &[
                ("unit", json!("suffix:×")),
                ("decimals", json!(1)),
                ("custom.cellOptions", coloured.clone()),
                ("thresholds", burn_colours(13.44)),
            ],
        ),
        column(
            "Alert",
            &[("unit", json!("short")), ("mappings", states), ("custom.cellOptions", coloured)],
        ),
    ])
}

/// One objective's row.
fn panels_of(slo: &Slo) -> Vec<Panel> {
    let title = format!("{}: {}", slo.title, slo.description);
    let parts = if slo.breakdown.is_empty() { 3 } else { 4 };
    let size = (WIDTH / parts, 9);
    let runbook = format!("{RUNBOOKS}/{}.md", slo.alert());
    let mut panels = vec![left(slo, size), burn(slo, size), ratio(slo, size)];
    if !slo.breakdown.is_empty() {
        panels.push(what_burns(slo, size));
    }
    let panels = panels.into_iter().map(|panel| panel.link("Runbook", &runbook));
    std::iter::once(Panel::row(&title)).chain(panels).collect()
}

/// A recorded series of the objective and the chosen services.
fn chosen(slo: &Slo, name: &str) -> String {
    format!("{name}{{slo=\"{}\",service=~\"$service\"}}", slo.name)
}

fn left(slo: &Slo, size: (u32, u32)) -> Panel {
    let expr = chosen(slo, "slo:period_error_budget_remaining:ratio");
    Panel::timeseries(
        &format!("{}: budget left", slo.title),
        &format!(
            "What is left of the error budget of the {} days before each moment. It rises again as what was bad leaves \
             the window.",
            slo.window.days()
        ),
        size,
        vec![target(Ask::Range, &expr, "{{service}}")],
    )
    .with("unit", json!("percentunit"))
    .with("max", json!(1))
    .with("thresholds", left_colours())
    .with_threshold_lines()
}

fn burn(slo: &Slo, size: (u32, u32)) -> Panel {
    let page = slo.window.burns()[0].factor(slo.window);
    let targets = WINDOWS.map(|window| {
        let expr = format!("{} / {}", chosen(slo, &ratio_name(window)), number(slo.budget()));
        target(Ask::Range, &expr, &format!("{{{{service}}}} {window}"))
    });
    Panel::timeseries(
        &format!("{}: burn rate by window", slo.title),
        "How many times as fast as would just keep the objective the budget is spent, over short and long windows. \
         Above 1 it does not last; an alert fires where a short window and a long one burn fast.",
        size,
        targets.to_vec(),
    )
    .with("unit", json!("suffix:×"))
    .with("min", json!(0))
    .with("thresholds", burn_colours(page))
    .with_threshold_lines()
}

fn ratio(slo: &Slo, size: (u32, u32)) -> Panel {
    let targets = ["5m", "1h"].map(|window| {
        let expr = chosen(slo, &ratio_name(window));
        target(Ask::Range, &expr, &format!("{{{{service}}}} {window}"))
    });
    let allowed = format!("slo:error_budget:ratio{{slo=\"{}\"}}", slo.name);
    let allowed = target(Ask::Range, &allowed, "allowed");
    Panel::timeseries(
        &format!("{}: bad events against the objective", slo.title),
        &format!(
            "Share of events that were bad. The objective of {}% allows {}%.",
            number(slo.objective),
            number(slo.budget() * 100.0)
        ),
        size,
        targets.into_iter().chain([allowed]).collect(),
    )
    .with("unit", json!("percentunit"))
    .with("min", json!(0))
}

fn what_burns(slo: &Slo, size: (u32, u32)) -> Panel {
    let (window, more) = ("$__rate_interval", &slo.breakdown);
    let (bad, all) = (slo.errors(window, more), slo.total(window, more));
    // Only the rules select services; the queries in the file know nothing of the dashboard.
    let expr = format!(
        "topk(10, ((({bad}) or 0 * ({all})) / on (service) group_left () (({}) > 0) / {}) and on (service) {})",
        slo.total(window, &[]),
        number(slo.budget()),
        chosen(slo, "slo:sli_total:rate5m")
    );
    let labels = slo.breakdown.iter().map(|label| format!(" {{{{{label}}}}}"));
    let legend = format!("{{{{service}}}}{}", labels.collect::<String>());
    Panel::timeseries(
        &format!("{}: what is burning", slo.title),
        &format!(
            "The burn rate now, by service and {}: the ten that spend most. The parts of a service add up to its burn \
             rate.",
            slo.breakdown.join(", ")
        ),
        size,
        vec![target(Ask::Range, &expr, &legend)],
    )
    .with("unit", json!("suffix:×"))
    .with("min", json!(0))
}
