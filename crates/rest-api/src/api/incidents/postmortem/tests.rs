use super::*;
use domain::{
    ApiKeyId, ContextId, IncidentId, TenantId,
    incident::{Incident, Said, Summary},
};
use serde_json::json;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn at(second: i64) -> Time {
    Time::from_timestamp(1_700_000_000 + second, 0).expect("a time")
}

fn alert() -> Alert {
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let said = Said {
        fingerprint: "f".into(),
        labels: [
            label("alertname", "High[Latency](http://evil)"),
            label("service", "`rest-api`"),
            label("severity", "critical"),
        ]
        .into(),
        annotations: [
            label("summary", "<script>slow</script>\n# Heading"),
            label("runbook_url", "https://runbooks/HighLatency"),
        ]
        .into(),
        ..Said::default()
    };
    Alert::new(&said, at(0)).ended(at(600), at(610))
}

fn known() -> Known {
    let alerts = vec![alert()];
    let incident = Incident {
        id: IncidentId::new(),
        tenant_id: TenantId::new(),
        context_id: ContextId::new(),
        key_id: ApiKeyId::new(),
        summary: Summary::of(&alerts, IncidentStatus::Resolved, at(610)),
        version: 2,
        created_at: at(30),
        updated_at: at(610),
    };
    Known { incident, alerts }
}

fn item(sequence: i64, role: &str, content: &str, metadata: serde_json::Value) -> ContextItem {
    ContextItem {
        sequence,
        role: role.into(),
        content: content.into(),
        metadata: serde_json::from_value(metadata).unwrap_or_default(),
        created_at: at(30 + sequence),
    }
}

/// What an incident's context holds.
fn told(own: IncidentId) -> Told {
    Told {
        is_there: true,
        items: vec![
            item(
                1,
                "tool",
                "**Firing**",
                json!({"event": "opened", "incident_id": own}),
            ),
            item(
                2,
                "tool",
                "`explain_alert` on A:\n\nLatency is high.\n\n```json\n{}\n```",
                json!({"event": "explained", "incident_id": own, "citations": {
                    "queries": ["rate(a[5m])"], "traces": [TRACE], "lines": ["it ``` broke"]}}),
            ),
            item(
                3,
                "tool",
                "[raw](http://evil) could not be explained",
                json!({"event": "not_explained", "incident_id": own, "alert": "B<b>"}),
            ),
            item(
                3,
                "assistant",
                "The disk was full.",
                json!({"postmortem": "cause"}),
            ),
            item(4, "assistant", "PromQL `up{job=\"x\"}` shows it", json!({})),
        ],
        left_out: 7,
        bytes: 0,
    }
}

#[test]
fn a_draft_cites_what_was_seen_and_escapes_what_others_wrote() {
    let known = known();
    let told = told(known.incident.id);
    let draft = draft(&known, &told, at(700));
    for wanted in [
        r"# Postmortem draft: High\[Latency\](http\://evil)",
        "| Severity | critical |",
        "| Duration | 10 min 0 s |",
        "> Latency is high.",
        "> The disk was full.",
        "```\nrate(a[5m])\n```",
        "```\nup{job=\"x\"}\n```",
        TRACE,
        "````\nit ``` broke\n````",
        r"\<script\>slow\</script\> \# Heading",
        "<https://runbooks/HighLatency>",
        r"Why could B\<b\> not be explained?",
        "7 later items of the context are not in this draft.",
        "The last alert ended at 2023-11-14 22:23:20.",
    ] {
        assert!(draft.contains(wanted), "{wanted}\n---\n{draft}");
    }
    assert!(!draft.contains("What was the cause"), "{draft}");
    assert!(
        !draft.contains("<script>") && !draft.contains("[raw]("),
        "{draft}"
    );
    let sections: Vec<_> = draft.lines().filter(|line| line.starts_with("## ")).collect();
    assert_eq!(
        sections,
        [
            "## Summary",
            "## Impact",
            "## Timeline",
            "## Cause",
            "## What was seen",
            "## Resolution",
            "## Open questions",
            "## Actions"
        ]
    );
}

#[test]
fn a_draft_is_bounded() {
    let known = known();
    let many = |sequence| {
        item(
            sequence,
            "assistant",
            &"# x\n".repeat(5000),
            json!({"postmortem": "cause"}),
        )
    };
    let told = Told {
        is_there: true,
        items: (0..1000).map(many).collect(),
        left_out: 0,
        bytes: 0,
    };
    assert!(draft(&known, &told, at(700)).len() <= MAX_BYTES + 200);
    let nothing = draft(&known, &Told::default(), at(700));
    assert!(nothing.contains("Its context was deleted"), "{nothing}");
}
