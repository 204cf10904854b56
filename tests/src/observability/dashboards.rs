//! Grafana's dashboards: their panels' targets, their variables and annotations.

use super::{Choices, Expression, Language, Place, Purpose, Sources, shown, variables::Variables};
use crate::Json;
use anyhow::Context;
use regex::Regex;
use std::{fs, path::Path, sync::LazyLock};

/// Panels that ask nothing by a target.
const SILENT: [&str; 5] = ["text", "row", "alertlist", "dashlist", "news"];

/// A label in a legend: `{{service}}`.
static LEGEND: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}").expect("a constant pattern"));

/// `label_values(selector, label)`.
static LABEL_VALUES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?s)^\s*label_values\((.*),\s*([A-Za-z_][A-Za-z0-9_]*)\s*\)\s*$")
        .expect("a constant pattern")
});

/// `query_result(query)`.
static QUERY_RESULT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?s)^\s*query_result\((.*)\)\s*$").expect("a constant pattern"));

/// A dashboard that is being read.
struct Dashboard<'a> {
    file: String,
    json: &'a Json,
    variables: Variables,
    sources: &'a mut Sources,
}

/// Reads one file.
pub(super) fn read(root: &Path, path: &Path, choices: &Choices, sources: &mut Sources) -> anyhow::Result<()> {
    let file = shown(root, path);
    let text = fs::read_to_string(path).with_context(|| file.clone())?;
    let json: Json = serde_json::from_str(&text).with_context(|| file.clone())?;
    read_json(file, &json, choices, sources);
    Ok(())
}

fn read_json(file: String, json: &Json, choices: &Choices, sources: &mut Sources) {
    let variables = variables(json, &file, choices);
    let mut dashboard = Dashboard {
        file,
        json,
        variables,
        sources,
    };
    dashboard.read_variables();
    dashboard.read_annotations();
    for panel in list(&json["panels"]) {
        dashboard.read_panel(panel);
        // A row that is folded holds its panels itself.
        for inner in list(&panel["panels"]) {
            dashboard.read_panel(inner);
        }
    }
}

fn list(value: &Json) -> impl Iterator<Item = &Json> {
    value.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Json, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// What a dashboard's variables stand for: all values where several may be chosen.
fn variables(json: &Json, file: &str, choices: &Choices) -> Variables {
    let mut variables = Variables::built_in();
    for variable in list(&json["templating"]["list"]) {
        let name = text(variable, "name");
        let first = || {
            text(variable, "query")
                .split(',')
                .next()
                .unwrap_or_default()
                .trim()
        };
        let value = match text(variable, "type") {
            "interval" | "custom" | "textbox" | "constant" if !is_multiple(variable) => {
                let current = variable["current"]["value"].as_str();
                // `$__auto` is Grafana's word for "by the width of the panel".
                current
                    .filter(|value| !value.is_empty() && !value.starts_with('$'))
                    .unwrap_or_else(first)
                    .to_owned()
            }
            "datasource" => first().to_owned(),
            _ if is_multiple(variable) => {
                let all = variable["allValue"].as_str().filter(|all| !all.is_empty());
                all.unwrap_or(".+").to_owned()
            }
            _ => {
                let chosen = choices.get(&(file.to_owned(), name.to_owned()));
                chosen.map_or_else(|| "none".to_owned(), Clone::clone)
            }
        };
        variables.set(name, &value);
    }
    variables
}

/// Whether several values may be chosen, so that queries hold the variable as a regular expression.
fn is_multiple(variable: &Json) -> bool {
    variable["multi"] == true || variable["includeAll"] == true
}

impl Dashboard<'_> {
    fn place(&self, item: &str) -> Place {
        Place {
            file: self.file.clone(),
            item: item.to_owned(),
        }
    }

    fn finding(&mut self, item: &str, what: &str) {
        let place = self.place(item);
        self.sources.findings.push(format!("{place}: {what}"));
    }

    /// Which program a data source is; a variable says it by its definition.
    fn kind(&self, source: &Json) -> Option<String> {
        if let Some(kind) = source["type"].as_str() {
            return Some(kind.to_owned());
        }
        let name = source.as_str().or_else(|| source["uid"].as_str())?;
        let name = name.trim_matches(|c| "${}".contains(c));
        let variables = list(&self.json["templating"]["list"]);
        let mut sources = variables.filter(|variable| text(variable, "type") == "datasource");
        let found = sources.find(|variable| text(variable, "name") == name);
        Some(found.map_or(name, |variable| text(variable, "query")).to_owned())
    }

    fn add(&mut self, item: &str, language: Language, purpose: Purpose, query: &str, printed: Vec<String>) {
        let (text, unknown) = self.variables.replace(query);
        for name in unknown {
            self.finding(item, &format!("the variable ${name} is not defined"));
        }
        let place = self.place(item);
        self.sources.expressions.push(Expression {
            place,
            language,
            purpose,
            text,
            printed,
            given: Vec::new(),
        });
    }

    fn read_panel(&mut self, panel: &Json) {
        let title = text(panel, "title");
        let item = if title.is_empty() {
            format!("panel {}", panel["id"])
        } else {
            format!("panel \"{title}\"")
        };
        let mut asked = false;
        for target in list(&panel["targets"]) {
            asked |= self.read_target(&item, panel, target);
        }
        if !asked && !SILENT.contains(&text(panel, "type")) {
            self.finding(&item, "asks nothing");
        }
    }

    /// Whether the target asks something.
    fn read_target(&mut self, item: &str, panel: &Json, target: &Json) -> bool {
        let source = [&target["datasource"], &panel["datasource"]];
        let source = source.into_iter().find(|source| !source.is_null());
        let Some(kind) = source.and_then(|source| self.kind(source)) else {
            self.finding(item, "has no data source");
            return false;
        };
        let instant = target["instant"] == true || target["queryType"] == "instant";
        let purpose = Purpose::Panel { instant };
        let query = text(target, "expr");
        match kind.as_str() {
            "prometheus" => {
                let legend = text(target, "legendFormat");
                let printed = LEGEND
                    .captures_iter(legend)
                    .map(|found| found[1].to_owned())
                    .collect();
                self.add(item, Language::PromQl, purpose, query, printed);
            }
            "loki" => self.add(item, Language::LogQl, purpose, query, Vec::new()),
            "jaeger" => self.add(item, Language::Jaeger, purpose, &target.to_string(), Vec::new()),
            // Computed from the other targets, or taken from another panel.
            "__expr__" | "datasource" | "-- Dashboard --" | "grafana" => {}
            // Asked by the panel's options.
            "alertmanager" => {}
            other => self.finding(item, &format!("data source of unknown type `{other}`")),
        }
        true
    }

    fn read_variables(&mut self) {
        for variable in list(&self.json["templating"]["list"]) {
            if text(variable, "type") != "query" {
                continue;
            }
            let name = text(variable, "name").to_owned();
            let item = format!("variable ${name}");
            let purpose = Purpose::Variable(name);
            let query = &variable["query"];
            let asked = query
                .as_str()
                .or_else(|| query["query"].as_str())
                .unwrap_or_default();
            match self.kind(&variable["datasource"]).as_deref() {
                Some("prometheus") => match choices_query(asked) {
                    Some(query) => self.add(&item, Language::PromQl, purpose, &query, Vec::new()),
                    None => self.finding(
                        &item,
                        "is neither label_values(selector, label) nor query_result(…)",
                    ),
                },
                Some("loki") => {
                    let (label, stream) = (text(query, "label"), text(query, "stream"));
                    let query = format!("sum by ({label}) (count_over_time({stream} [5m]))");
                    self.add(&item, Language::LogQl, purpose, &query, Vec::new());
                }
                other => self.finding(&item, &format!("asks a data source of type {other:?}")),
            }
        }
    }

    fn read_annotations(&mut self) {
        for annotation in list(&self.json["annotations"]["list"]) {
            let item = format!("annotation \"{}\"", text(annotation, "name"));
            let inner = &annotation["target"];
            let query = annotation["expr"]
                .as_str()
                .or_else(|| inner["expr"].as_str())
                .unwrap_or_default();
            match self.kind(&annotation["datasource"]).as_deref() {
                Some("prometheus") => {
                    self.add(&item, Language::PromQl, Purpose::Annotation, query, Vec::new());
                }
                Some("loki") => self.add(&item, Language::LogQl, Purpose::Annotation, query, Vec::new()),
                _ => {}
            }
        }
    }
}

/// The PromQL that gives as many series as the variable has choices.
fn choices_query(query: &str) -> Option<String> {
    if let Some(found) = LABEL_VALUES.captures(query) {
        return Some(format!("group by ({}) ({})", &found[2], &found[1]));
    }
    QUERY_RESULT.captures(query).map(|found| found[1].to_owned())
}

#[cfg(test)]
mod tests {
    use super::{super::Purpose, Choices, Sources, read_json};
    use serde_json::json;

    fn read(json: &crate::Json, choices: &Choices) -> Sources {
        let mut sources = Sources::default();
        read_json("x.json".to_owned(), json, choices, &mut sources);
        sources
    }

    #[test]
    fn queries_of_panels_rows_variables_and_annotations() {
        let prometheus = json!({"type": "prometheus", "uid": "${prometheus}"});
        let target = |expr: &str| json!([{"expr": expr, "legendFormat": "{{a}} {{ b }}", "instant": true}]);
        let dashboard = json!({
            "templating": {"list": [
                {"name": "prometheus", "type": "datasource", "query": "prometheus"},
                {"name": "service", "type": "query", "multi": true, "datasource": prometheus,
                 "query": {"query": "label_values(build_info, service)"}},
                {"name": "tool", "type": "query", "datasource": {"uid": "${prometheus}"}, "query": "query_result(x)"},
                {"name": "interval", "type": "interval", "query": "1m,5m", "current": {"value": "$__auto"}},
            ]},
            "annotations": {"list": [{"name": "n", "datasource": prometheus, "expr": "ALERTS"}]},
            "panels": [
                {"title": "one", "type": "stat", "datasource": prometheus, "targets": target("a{s=~\"$service\"}")},
                {"title": "row", "type": "row", "panels": [
                    {"title": "two", "type": "graph", "datasource": prometheus,
                     "targets": target("b{t=\"$tool\"}[$interval]")},
                ]},
            ],
        });
        let choices = [(("x.json".to_owned(), "tool".to_owned()), "clock".to_owned())].into();
        let sources = read(&dashboard, &choices);
        assert_eq!(sources.findings, [""; 0]);
        let texts: Vec<&str> = sources
            .expressions
            .iter()
            .map(|found| found.text.as_str())
            .collect();
        let expected = [
            "group by (service) (build_info)",
            "x",
            "ALERTS",
            "a{s=~\".+\"}",
            "b{t=\"clock\"}[1m]",
        ];
        assert_eq!(texts, expected);
        assert_eq!(sources.expressions[3].printed, ["a", "b"]);
        assert_eq!(sources.expressions[3].purpose, Purpose::Panel { instant: true });
    }

    #[test]
    fn panels_that_ask_nothing_or_what_nobody_defines() {
        let dashboard = json!({"panels": [
            {"title": "empty", "type": "stat", "targets": []},
            {"title": "note", "type": "text"},
            {"title": "whom", "type": "stat", "targets": [{"expr": "up"}]},
            {"title": "what", "type": "stat", "datasource": {"type": "prometheus"}, "targets": [{"expr": "up{a=~\"$b\"}"}]},
        ]});
        let expected = [
            "x.json: panel \"empty\": asks nothing",
            "x.json: panel \"whom\": has no data source",
            "x.json: panel \"whom\": asks nothing",
            "x.json: panel \"what\": the variable $b is not defined",
        ];
        assert_eq!(read(&dashboard, &Choices::new()).findings, expected);
    }
}
