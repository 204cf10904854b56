//! All pods evicted, as when their nodes are emptied: PodDisruptionBudgets say how fast.

use super::cluster::{COMPONENTS, every_second, ready, settled};
use crate::kubectl::SERVICES;
use anyhow::{bail, ensure};
use futures_util::future::try_join_all;
use std::{cell::Cell, time::Duration};
use tokio::time::sleep;

/// Evicts each pod that there is now.
pub(super) async fn evict_all() -> anyhow::Result<String> {
    let (evicted, refused) = (Cell::new(0), Cell::new(0));
    let watched = Cell::new(true);
    let evict = async {
        let counts = (&evicted, &refused);
        let done = try_join_all(COMPONENTS.map(|component| evict(component, counts))).await;
        watched.set(false);
        done.map(drop)
    };
    let (done, kept) = tokio::join!(evict, budgets_hold(&watched));
    done?;
    kept?;
    settled().await?;
    ensure!(
        refused.get() > 0,
        "no eviction was ever refused: the budgets hold nobody back"
    );
    Ok(format!(
        "{} evicted, {} times put off by a budget",
        evicted.get(),
        refused.get()
    ))
}

async fn evict(component: &str, (evicted, refused): (&Cell<u32>, &Cell<u32>)) -> anyhow::Result<()> {
    for pod in ready(component).await? {
        every_second(&format!("{pod} to be evicted"), async || {
            match SERVICES.evict(&pod).await {
                Ok(()) => {
                    evicted.set(evicted.get() + 1);
                    Some(Ok(()))
                }
                Err(error) if format!("{error:#}").contains("disruption budget") => {
                    refused.set(refused.get() + 1);
                    None
                }
                Err(error) => Some(Err(error)),
            }
        })
        .await??;
    }
    Ok(())
}

/// Looks once a second that no component has fewer pods that are ready than its budget wants.
async fn budgets_hold(watched: &Cell<bool>) -> anyhow::Result<()> {
    while watched.get() {
        let budgets = SERVICES.json(&["poddisruptionbudgets"]).await?;
        for budget in budgets["items"].as_array().into_iter().flatten() {
            let name = budget["metadata"]["name"].as_str().unwrap_or_default();
            let count = |field: &str| budget["status"][field].as_i64().unwrap_or_default();
            let (healthy, desired) = (count("currentHealthy"), count("desiredHealthy"));
            if COMPONENTS.contains(&name) && healthy < desired {
                bail!("{name} had {healthy} pods that were ready, its budget wants {desired}");
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}
