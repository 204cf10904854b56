use super::*;
use serde_json::json;

fn answer() -> Value {
    json!({
        "status": 200,
        "headers": {"content-type": "application/json"},
        "body": {
            "items": [
                {"name": "web", "cpu": 3, "tags": ["a", "b"], "owner": {"team": "red"}},
                {"name": "db", "cpu": 7.5, "tags": ["c"], "owner": null},
                {"name": "cache", "cpu": 1, "tags": []},
            ],
            "next": null,
        },
    })
}

fn selected(expression: &str) -> Result<Value, Failure> {
    let ast = compile(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
    evaluate(&ast, &answer())
}

fn evaluate(ast: &Ast, data: &Value) -> Result<Value, Failure> {
    eval::evaluate(ast, data, HEAVY).map(std::borrow::Cow::into_owned)
}

#[test]
fn expressions_mean_what_jmespath_says() {
    for (expression, expected) in [
        ("status", json!(200)),
        ("body.items[*].name", json!(["web", "db", "cache"])),
        (
            "body.items[?cpu > `2`].{n: name, t: owner.team}",
            json!([{"n": "web", "t": "red"}, {"n": "db", "t": null}]),
        ),
        ("body.items[].tags[]", json!(["a", "b", "c"])),
        ("body.items[-1].name", json!("cache")),
        ("body.items[-9].name", Value::Null),
        ("body.items[::-1].name", json!(["cache", "db", "web"])),
        ("body.items[1:9].cpu", json!([7.5, 1])),
        (
            "body.items[-2147483647:2147483647:2147483647].name",
            json!(["web"]),
        ),
        ("headers.\"content-type\"", json!("application/json")),
        ("headers.*", json!(["application/json"])),
        ("body.next || 'none'", json!("none")),
        ("body.items[?owner && !tags].name", json!([])),
        (
            "body.items[?name == 'db' || cpu == `1.0`].name",
            json!(["db", "cache"]),
        ),
        ("length(body.items)", json!(3)),
        ("sum(body.items[].cpu)", json!(11.5)),
        ("sort(body.items[].name)", json!(["cache", "db", "web"])),
        ("sort_by(body.items, &cpu)[0].name", json!("cache")),
        ("max_by(body.items, &cpu).name", json!("db")),
        ("min(body.items[].cpu)", json!(1)),
        ("map(&owner.team, body.items)", json!(["red", null, null])),
        ("join(', ', body.items[].name)", json!("web, db, cache")),
        ("merge({a: `1`}, {b: `2`}, {a: `3`})", json!({"a": 3, "b": 2})),
        ("not_null(body.next, status)", json!(200)),
        (
            "contains(body.items[].name, 'db') && starts_with('abc', 'a')",
            json!(true),
        ),
        (
            "[type(status), to_string(`[1]`), to_number('12'), keys(headers), ceil(`1.2`), floor(`-1.2`)]",
            json!(["number", "[1]", 12, ["content-type"], 2, -2]),
        ),
        (
            "reverse('abc') | [@, to_array(@), length(@)]",
            json!(["cba", ["cba"], 3]),
        ),
        ("body.items | [0] | name", json!("web")),
        ("status < 'x'", Value::Null),
    ] {
        assert_eq!(selected(expression), Ok(expected), "{expression}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_when_it_is_compiled() {
    for (bad, reason) in [
        ("", "1 to 4096"),
        ("body.[", "JMESPath"),
        ("size(body)", "length"),
        ("length(body, body)", "1 arguments"),
        ("sort_by(body, cpu)", "&"),
        ("&body", "'&'"),
        ("length(&body)", "'&'"),
    ] {
        let error = compile(bad).expect_err(bad);
        assert_eq!(error.field, "selection");
        assert!(error.expected.contains(reason), "{bad}: {error}");
    }
}

#[test]
fn hostile_expressions_are_refused_or_given_up_soon() {
    let n = |part: &str| part.repeat((MAX_SELECTION_BYTES - 1) / part.len());
    let open = |part: &str| format!("{}a", n(part));
    for deep in [
        open("["),
        open("("),
        open("!"),
        open("{a:"),
        open("a."),
        open("a|"),
        open("a||"),
        open("[*]."),
        open("*."),
        open("a[?"),
        open("length("),
        open("&"),
        format!("a{}", n("[]")),
        format!("a{}", n("[0]")),
        format!("`{}`", n("[")),
        n("'"),
        n("`"),
    ] {
        assert!(
            compile(&deep[..deep.len().min(MAX_SELECTION_BYTES)]).is_err(),
            "{}",
            &deep[..9]
        );
    }
    let piped = |part: &str, times| vec![part; times].join("|");
    for costly in [
        piped("[@,@]", 90),
        piped("{a:@,b:@}", 60),
        piped("to_string([@,@])", 60),
        piped("join('aaaaaaaaaaaaaaaaaaaa',[to_string(@),to_string(@)])", 60),
        piped("[@,@][]", 40),
        format!("[{}]", vec!["body"; 800].join(","))
            + "|[@,@,@,@,@,@,@,@]|[@,@,@,@,@,@,@,@]|[@,@,@,@,@,@,@,@]",
    ] {
        let ast = compile(&costly).expect("small enough");
        let failure = evaluate(&ast, &answer()).expect_err(&costly[..20]);
        assert!(matches!(failure, Failure::Costly | Failure::TooDeep), "{failure}");
    }
    // Balanced, so that the expression is not deep but what it makes would be.
    let mut tower = "[@]".to_owned();
    while tower.len() < 1500 {
        tower = format!("({tower})|({tower})");
    }
    assert_eq!(
        evaluate(&compile(&tower).expect("flat"), &answer()),
        Err(Failure::TooDeep)
    );
}

#[tokio::test]
async fn what_is_not_selected_is_shown_whole_with_the_reason() {
    let selections = Selections::default();
    let whole = answer().to_string();
    let shown = selections.shown(Some("body.items[0].name"), Some(answer())).await;
    let expected = Shown {
        result_json: Some("\"web\"".into()),
        result_bytes: whole.len() as u64,
        selected: true,
        not_selected: None,
    };
    assert_eq!(shown, expected);
    for (expression, reason) in [
        ("body.missing", "finds nothing"),
        ("sum(body.items[].name)", "sum takes a list of numbers"),
        ("body.[", "does not compile"),
        (&vec!["[@,@]"; 90].join("|"), "too much"),
    ] {
        let shown = selections.shown(Some(expression), Some(answer())).await;
        assert_eq!(
            (shown.result_json.as_ref(), shown.selected),
            (Some(&whole), false)
        );
        assert!(
            shown.not_selected.is_some_and(|why| why.contains(reason)),
            "{expression}"
        );
    }
    assert_eq!(selections.shown(None, Some(answer())).await.not_selected, None);
    assert_eq!(selections.shown(Some("a"), None).await, Shown::default());
}

#[tokio::test]
async fn a_large_result_is_selected_from_too() {
    let item = |i: usize| json!({"id": i, "name": format!("pod-{i}"), "text": "x".repeat(200)});
    let large = json!({"body": (0..9000).map(item).collect::<Vec<_>>()});
    let shown = Selections::default()
        .shown(Some("body[?id == `8999`].name | [0]"), Some(large))
        .await;
    assert_eq!(shown.result_json.as_deref(), Some("\"pod-8999\""));
    assert!(shown.selected && shown.result_bytes > 2_000_000);
}
