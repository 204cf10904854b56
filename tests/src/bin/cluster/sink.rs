//! Where alerts are told in the cluster: each notification becomes a line of JSON on standard output.

use e2e::alerts::sinks::Sinks;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

/// How soon what has arrived is told.
const LOOK: Duration = Duration::from_millis(200);

/// Listens until it is ended.
pub(crate) async fn run(port: u16) -> anyhow::Result<()> {
    let sinks = Sinks::start(port).await?;
    let (mut notices, mut heartbeats, mut nonsense) = (0, 0, 0);
    loop {
        for notice in &sinks.notices()[notices..] {
            notices += 1;
            let line = json!({
                "channel": notice.channel.to_string(), "firing": notice.firing, "alert": notice.alert,
                "service": notice.service, "severity": notice.severity, "text": notice.text,
            });
            println!("{line}");
        }
        for _ in &sinks.heartbeats()[heartbeats..] {
            heartbeats += 1;
            println!("{}", json!({ "heartbeat": heartbeats }));
        }
        for text in &sinks.nonsense()[nonsense..] {
            nonsense += 1;
            println!("{}", json!({ "nonsense": text }));
        }
        sleep(LOOK).await;
    }
}
