//! Incidents whose end nobody tells.

use super::{ago, alert, events, items, tell, webhook};
use crate::{Outcome, text};
use e2e::{
    Backend, Stack,
    stack::{REST_API, WORKER},
    wait_for,
};
use serde_json::json;
use sqlx::{Connection as _, Executor as _};

#[tokio::test]
async fn what_nobody_tells_of_for_a_week_is_over() -> Outcome {
    let mut stack = Stack::builder(Backend::Sqlite)
        .services(&[REST_API, WORKER])
        .set(WORKER, "JOBS__FOLLOW_INCIDENTS", "1s")
        .start()
        .await?;
    let rest = stack.rest(&stack.tenant("acme", "all").await?);
    let pager = stack.rest(&stack.key("acme", "alerts:receive").await?);
    let began = ago(60);
    let forgotten = tell(&pager, &webhook("A", &[alert("A", &began, None)])).await?;
    let repeated = webhook("B", &[alert("B", &began, None)]);
    let told = tell(&pager, &repeated).await?;

    stack.process_mut(REST_API).kill();
    let database = Backend::Sqlite.database_url(stack.directory()).await?;
    let mut connection = sqlx::SqliteConnection::connect(&database).await?;
    let days = "UPDATE incidents SET heard_at = heard_at - 6 * 86400000000";
    connection.execute(days).await?;
    stack.process_mut(REST_API).start().await?;
    assert_eq!(tell(&pager, &repeated).await?["result"], "repeated");
    let days = "UPDATE incidents SET heard_at = heard_at - 2 * 86400000000";
    connection.execute(days).await?;
    connection.close().await?;

    let get = async |told: &e2e::Json| {
        rest.get(&format!("/api/v1/incidents/{}", text(told, "incident")))
            .await
    };
    wait_for("the incident to be closed", async || {
        let incident = get(&forgotten).await.ok()?.json();
        (incident["status"] == "resolved").then_some(())
    })
    .await?;
    let items = items(&rest, &forgotten).await?;
    assert_eq!(events(&items).last(), Some(&"resolved"));
    let said = json!(items).to_string();
    assert!(said.contains("Nothing was heard of it for a week."), "{said}");
    let other = get(&told).await?.expect(200)?;
    assert_eq!(text(&other, "status"), "firing", "two days ago it was told of");
    Ok(())
}
