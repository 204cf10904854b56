use super::*;
use axum::extract::FromRequestParts;
use http::Request;
use telemetry::recent::{Child, Entry, Kind};

const UI: &str = "http://jaeger:16686";

fn traces(ui: Option<&str>) -> Traces {
    Traces {
        service: "rest-api",
        ui: ui.map(Into::into),
    }
}

fn record(id: &str, sampled: bool) -> Arc<Record> {
    let ms = Duration::from_millis;
    let mut record = Record::sample(
        RequestId::parse(id).expect("an id"),
        Entry::Http,
        "GET /api/v1/contexts",
    );
    record.sampled = sampled;
    record.duration = ms(100);
    record.reasons = vec![Reason::Slow];
    record.children = vec![Child {
        kind: Kind::Http,
        name: "GET host/<script>alert('1')</script>\"&".into(),
        offset: ms(25),
        took: ms(50),
        failed: true,
    }];
    Arc::new(record)
}

async fn query(text: &str) -> Result<Wanted, Problem> {
    let request = Request::get(format!("/debug/traces?{text}"))
        .body(())
        .expect("a request");
    wanted(Query::from_request_parts(&mut request.into_parts().0, &()).await)
}

#[test]
fn an_id_leads_to_where_the_trace_is() {
    let with = traces(Some(UI));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let sampled = record("debug-123", true);
    let there = format!("{UI}/trace/{}", sampled.trace_id);
    assert_eq!(
        with.elsewhere("debug-123", &[record("debug-123", false), sampled]),
        Some(there)
    );
    assert_eq!(with.elsewhere("debug-123", &[record("debug-123", false)]), None);
    assert_eq!(with.elsewhere(trace, &[]), Some(format!("{UI}/trace/{trace}")));
    let searched = with.elsewhere("debug-123", &[]).expect("a search");
    let begins = format!(
        "{UI}/search?service=rest-api&tags=%7B%22request.id%22%3A%22debug-123%22%7D&lookback=2d&start="
    );
    assert!(searched.starts_with(&begins), "{searched}");
    assert_eq!(traces(None).elsewhere(trace, &[]), None);
}

#[tokio::test]
async fn wrong_questions_are_told_what_is_allowed() {
    for bad in [
        "reason=loud",
        "limit=0",
        "limit=1001",
        "limit=x",
        "min_ms=-1",
        "what=1",
        "format=xml",
    ] {
        let problem = query(bad).await.expect_err(bad);
        assert_eq!(
            (problem.status().as_u16(), problem.code()),
            (400, "invalid_query"),
            "{bad}"
        );
    }
    let wanted = query("reason=slow&limit=2&min_ms=50&format=html")
        .await
        .expect("fine");
    let all = vec![record("a", true), record("b", true), record("c", true)];
    assert_eq!(wanted.choose(all.clone()).len(), 2);
    let failed = query("reason=failed").await.expect("fine");
    assert_eq!(failed.choose(all.clone()).len(), 0);
    let slower = query("min_ms=101").await.expect("fine");
    assert_eq!(slower.choose(all).len(), 0);
}

#[test]
fn browsers_get_a_page_and_programs_json() {
    let shape = |accept: &'static str, format| {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]);
        let wanted = Wanted {
            format,
            ..Wanted::default()
        };
        wanted.shape(&headers)
    };
    assert_eq!(
        shape("text/html,application/xhtml+xml,*/*;q=0.8", None),
        Shape::Html
    );
    assert_eq!(shape("*/*", None), Shape::Json);
    assert_eq!(shape("text/html", Some(Shape::Json)), Shape::Json);
    assert_eq!(Wanted::default().shape(&HeaderMap::new()), Shape::Json);
}

#[test]
fn the_page_escapes_what_others_chose_and_draws_to_scale() {
    let page = Page::new("rest-api", Some(UI), None);
    let text = page.render(&[record("debug-123", true)]);
    assert!(
        !text.contains("<script") && text.contains("&lt;script&gt;alert(&#39;1&#39;)"),
        "{text}"
    );
    assert!(
        text.contains("class=\"http failed\" x=\"250.0\" y=\"0\" width=\"500.0\""),
        "{text}"
    );
    assert!(text.contains("<td class=n>100.000<td class=n>50.000"), "{text}");
    assert!(
        !text.contains("style=") && !text.contains("src="),
        "nothing that the policy forbids"
    );
    let nonce = page.policy();
    let nonce = nonce
        .split('\'')
        .find(|part| part.starts_with("nonce-"))
        .expect("a nonce");
    assert!(
        text.contains(&format!("<style nonce=\"{}\"", &nonce["nonce-".len()..])),
        "{text}"
    );
}
