use crate::harness::Fixture;
use std::time::Duration;

pub(crate) async fn one_owner_holds_a_lease_until_it_runs_out(f: Fixture) {
    let hold = async |name: &str, owner: &str, millis| {
        f.store
            .hold_lease(name, owner, Duration::from_millis(millis))
            .await
            .unwrap()
    };
    assert!(hold("gauges", "a", 60_000).await);
    assert!(!hold("gauges", "b", 60_000).await);
    assert!(hold("other", "b", 60_000).await, "leases are apart");
    assert!(hold("gauges", "a", 50).await, "the holder renews");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(hold("gauges", "b", 60_000).await, "it ran out");
    assert!(!hold("gauges", "a", 60_000).await);
    f.store.release_lease("gauges", "a").await.unwrap();
    assert!(
        !hold("gauges", "a", 60_000).await,
        "only the holder gives it back"
    );
    f.store.release_lease("gauges", "b").await.unwrap();
    assert!(hold("gauges", "a", 60_000).await);
}
