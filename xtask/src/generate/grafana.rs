//! Parts of a Grafana dashboard (schema version 41), with what every one of ours has in common.

use serde_json::{Value, json};

/// Width of the grid that panels stand in.
pub(super) const WIDTH: u32 = 24;
/// The data source that the reader chose.
const SOURCE: &str = "${prometheus}";

fn source() -> Value {
    json!({"type": "prometheus", "uid": SOURCE})
}

/// How a query is asked and its answer taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Over the dashboard's time range.
    Range,
    /// At its end.
    Instant,
    /// At its end; labels become columns.
    Table,
}

/// A query; panels name theirs A, B, … in order.
pub(super) fn target(ask: Ask, expr: &str, legend: &str) -> Value {
    json!({
        "datasource": source(),
        "editorMode": "code",
        "expr": expr,
        "format": if ask == Ask::Table { "table" } else { "time_series" },
        "instant": ask != Ask::Range,
        "legendFormat": legend,
        "range": ask == Ask::Range,
    })
}

/// Colours from their values on; the first holds from below all.
pub(super) fn thresholds(first: &str, steps: &[(f64, &str)]) -> Value {
    let first = json!({"color": first, "value": null});
    let steps = steps
        .iter()
        .map(|(value, color)| json!({"color": color, "value": value}));
    let steps: Vec<Value> = std::iter::once(first).chain(steps).collect();
    json!({"mode": "absolute", "steps": steps})
}

/// One setting of a table's column.
pub(super) fn column(name: &str, properties: &[(&str, Value)]) -> Value {
    let properties: Vec<Value> = properties
        .iter()
        .map(|(id, value)| json!({"id": id, "value": value}))
        .collect();
    json!({"matcher": {"id": "byName", "options": name}, "properties": properties})
}

/// A panel before it has its place.
pub(super) struct Panel {
    /// In the grid's columns.
    pub(super) width: u32,
    /// In the grid's rows.
    pub(super) height: u32,
    json: Value,
}

impl Panel {
    fn new(kind: &str, title: &str, description: &str, size: (u32, u32), targets: Vec<Value>) -> Self {
        let targets: Vec<Value> = targets
            .into_iter()
            .zip('A'..='Z')
            .map(|(mut target, name)| {
                target["refId"] = json!(name);
                target
            })
            .collect();
        let json = json!({
            "type": kind,
            "title": title,
            "description": description,
            "datasource": source(),
            "targets": targets,
            "fieldConfig": {"defaults": {"thresholds": thresholds("green", &[])}, "overrides": []},
        });
        let (width, height) = size;
        Self { width, height, json }
    }

    /// The title of what follows.
    pub(super) fn row(title: &str) -> Self {
        let json = json!({"type": "row", "title": title, "collapsed": false, "panels": []});
        Self {
            width: WIDTH,
            height: 1,
            json,
        }
    }

    /// Lines over time.
    pub(super) fn timeseries(title: &str, description: &str, size: (u32, u32), targets: Vec<Value>) -> Self {
        let mut panel = Self::new("timeseries", title, description, size, targets);
        panel.json["options"] = json!({
            "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom",
                "showLegend": true},
            "tooltip": {"hideZeros": false, "mode": "multi", "sort": "desc"},
        });
        panel.json["fieldConfig"]["defaults"]["custom"] = json!({
            "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 0,
            "showPoints": "never", "spanNulls": false, "thresholdsStyle": {"mode": "off"},
        });
        panel
    }

    /// One number.
    pub(super) fn stat(title: &str, description: &str, size: (u32, u32), targets: Vec<Value>) -> Self {
        let mut panel = Self::new("stat", title, description, size, targets);
        panel.json["options"] = json!({
            "colorMode": "background", "graphMode": "none", "justifyMode": "auto", "orientation": "auto",
            "percentChangeColorMode": "standard", "reduceOptions": last(), "showPercentChange": false,
            "textMode": "auto", "wideLayout": true,
        });
        panel
    }

    /// A bar for each series.
    pub(super) fn bargauge(title: &str, description: &str, size: (u32, u32), targets: Vec<Value>) -> Self {
        let mut panel = Self::new("bargauge", title, description, size, targets);
        panel.json["options"] = json!({
            "displayMode": "basic", "maxVizHeight": 300, "minVizHeight": 12, "minVizWidth": 8,
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false},
            "namePlacement": "left", "orientation": "horizontal", "reduceOptions": last(), "showUnfilled": true,
            "sizing": "auto", "valueMode": "color",
        });
        panel
    }

    /// Columns named as given, in that order, `labels` first, then the targets' values.
    pub(super) fn table(
        title: &str,
        description: &str,
        size: (u32, u32),
        targets: Vec<Value>,
        labels: &[(&str, &str)],
        values: &[&str],
    ) -> Self {
        let mut panel = Self::new("table", title, description, size, targets);
        let of_values = values.iter().zip('A'..='Z');
        let of_values = of_values.map(|(name, target)| (format!("Value #{target}"), *name));
        let of_labels = labels.iter().map(|(label, name)| ((*label).to_owned(), *name));
        let (mut renamed, mut order) = (json!({}), json!({}));
        for (at, (field, name)) in of_labels.chain(of_values).enumerate() {
            renamed[&field] = json!(name);
            order[&field] = json!(at);
        }
        panel.json["transformations"] = json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": true}, "includeByName": {},
                "indexByName": order, "renameByName": renamed}},
        ]);
        panel.json["options"] =
            json!({"cellHeight": "sm", "frameIndex": 0, "showHeader": true, "sortBy": []});
        panel
    }

    /// Sets a field's default: `unit`, `min`, `thresholds`, …
    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.json["fieldConfig"]["defaults"][key] = value;
        self
    }

    /// Draws the thresholds as lines.
    pub(super) fn with_threshold_lines(mut self) -> Self {
        self.json["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"] = json!("line");
        self
    }

    /// Sets what only some fields have.
    pub(super) fn overrides(mut self, overrides: &[Value]) -> Self {
        self.json["fieldConfig"]["overrides"] = json!(overrides);
        self
    }

    /// Leads from the panel to somewhere else.
    pub(super) fn link(mut self, title: &str, url: &str) -> Self {
        self.json["links"] = json!([{"title": title, "url": url, "targetBlank": true}]);
        self
    }
}

/// The last value of each series.
fn last() -> Value {
    json!({"calcs": ["lastNotNull"], "fields": "", "values": false})
}

/// Puts panels side by side, and below where the line is full.
fn placed(panels: Vec<Panel>) -> Vec<Value> {
    let (mut x, mut y, mut line) = (0, 0, 0);
    let mut placed = Vec::with_capacity(panels.len());
    for (id, mut panel) in (1..).zip(panels) {
        if x + panel.width > WIDTH {
            (x, y, line) = (0, y + line, 0);
        }
        panel.json["id"] = json!(id);
        panel.json["gridPos"] = json!({"x": x, "y": y, "w": panel.width, "h": panel.height});
        x += panel.width;
        line = line.max(panel.height);
        placed.push(panel.json);
    }
    placed
}

/// The variables that every dashboard has: which Prometheus, which services.
fn variables() -> Value {
    json!({"list": [
        {"type": "datasource", "name": "prometheus", "label": "Prometheus", "query": "prometheus",
            "current": {"selected": true, "text": "Prometheus", "value": "prometheus"}, "hide": 0,
            "includeAll": false, "multi": false, "options": [], "refresh": 1, "regex": "", "skipUrlSync": false},
        {"type": "query", "name": "service", "label": "Service", "datasource": source(),
            "definition": "label_values(build_info, service)",
            "query": {"query": "label_values(build_info, service)", "refId": "service"},
            "current": {"selected": true, "text": ["All"], "value": ["$__all"]}, "allValue": ".+", "hide": 0,
            "includeAll": true, "multi": true, "options": [], "refresh": 2, "regex": "", "skipUrlSync": false,
            "sort": 1},
    ]})
}

fn annotation(name: &str, color: &str, expr: &str, title: &str, text: &str) -> Value {
    json!({
        "name": name, "enable": true, "hide": false, "iconColor": color, "datasource": source(), "expr": expr,
        "titleFormat": title, "textFormat": text, "tagKeys": "service", "step": "30s",
    })
}

/// A link to another of our dashboards, with the same time and services.
fn link((uid, title): &(&str, &str)) -> Value {
    json!({
        "type": "link", "title": title, "url": format!("/d/{uid}"), "icon": "dashboard", "tooltip": "",
        "asDropdown": false, "includeVars": true, "keepTime": true, "tags": [], "targetBlank": false,
    })
}

/// What a dashboard is about.
pub(super) struct About<'a> {
    pub(super) uid: &'a str,
    pub(super) title: &'a str,
    pub(super) description: &'a str,
    /// Selects the alerts that are marked in its graphs.
    pub(super) alerts: &'a str,
    /// Dashboards by uid and title that lead on.
    pub(super) links: &'a [(&'a str, &'a str)],
}

/// The whole file.
pub(super) fn dashboard(about: &About<'_>, panels: Vec<Panel>) -> anyhow::Result<String> {
    let alerts = format!(
        "ALERTS{{alertstate=\"firing\",{},service=~\"$service\"}}",
        about.alerts
    );
    let deployed = "group by (service, version) (build_info{service=~\"$service\"}) \
                    unless group by (service, version) (build_info{service=~\"$service\"} offset 5m)";
    let json = json!({
        "uid": about.uid,
        "title": about.title,
        "description": about.description,
        "tags": ["devops-mcp", "generated"],
        "schemaVersion": 41,
        "version": 1,
        "editable": true,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "liveNow": false,
        "preload": false,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {},
        "timezone": "browser",
        "weekStart": "",
        "templating": variables(),
        "annotations": {"list": [
            annotation("Alerts", "red", &alerts, "{{alertname}}", "{{service}}: {{severity}}"),
            annotation("Deployments", "blue", deployed, "{{service}} {{version}}", "began to run"),
        ]},
        "links": about.links.iter().map(link).collect::<Vec<_>>(),
        "panels": placed(panels),
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&json)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_stand_side_by_side_until_the_line_is_full() {
        let panel = |width, height| Panel::stat("a", "b", (width, height), Vec::new());
        let places: Vec<(u64, u64)> = placed(vec![
            panel(12, 4),
            panel(12, 8),
            Panel::row("r"),
            panel(6, 4),
            panel(20, 4),
        ])
        .iter()
        .map(|panel| {
            let at = |key| panel["gridPos"][key].as_u64().expect("has a place");
            (at("x"), at("y"))
        })
        .collect();
        assert_eq!(places, [(0, 0), (12, 0), (0, 8), (0, 9), (0, 13)]);
    }
}
