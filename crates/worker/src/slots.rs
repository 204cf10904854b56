//! How many runs go on at once: for all, and for each tenant.
//!
//! A run takes its tenant's slot first and then one of the shared ones, so that a tenant with many runs waits in its
//! own queue and not in everyone's.

use crate::{
    metrics,
    outcome::{Code, Failure},
    settings::Concurrency,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use telemetry::metrics::{Gauge, GaugeHandle};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hands out slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: Arc<Semaphore>,
    tenants: Mutex<HashMap<String, Arc<Tenant>>>,
    limits: Concurrency,
}

#[derive(Debug)]
struct Tenant {
    running: Arc<Semaphore>,
    /// Places for those that run and those that wait: beyond it, runs are turned away at once.
    places: Arc<Semaphore>,
}

/// The right to run; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    // Fields drop in this order: permits before the place, the place before the tenant's entry is looked at.
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    _in_flight: Counted,
    _place: Place,
}

#[derive(Debug)]
struct Place {
    permit: Option<OwnedSemaphorePermit>,
    tenant: Option<Arc<Tenant>>,
    name: String,
    shared: Arc<Shared>,
}

impl Slots {
    /// Slots within `limits`.
    pub fn new(limits: &Concurrency) -> Self {
        metrics::SLOTS.set(u32::try_from(limits.total).unwrap_or(u32::MAX), []);
        let total = Arc::new(Semaphore::new(limits.total));
        Self(Arc::new(Shared {
            total,
            tenants: Mutex::default(),
            limits: limits.clone(),
        }))
    }

    /// Takes a slot for a tenant's run; `waiting` is called when there is none free yet.
    ///
    /// # Errors
    /// [`Code::Overloaded`] when too many of the tenant's runs wait already, or none came free in time.
    pub async fn take(&self, tenant: &str, waiting: impl FnOnce()) -> Result<Slot, Failure> {
        let place = self
            .place(tenant)
            .ok_or_else(|| overloaded("too many runs of this tenant wait"))?;
        let running = Arc::clone(&place.tenant.as_ref().ok_or_else(closed)?.running);
        let total = Arc::clone(&self.0.total);
        let both = async {
            let own = running.acquire_owned().await.map_err(|_| closed())?;
            let shared = total.acquire_owned().await.map_err(|_| closed())?;
            Ok::<_, Failure>((own, shared))
        };
        let permits = patiently(both, self.0.limits.wait, waiting).await?;
        Ok(Slot {
            _permits: permits,
            _in_flight: Counted::new(&metrics::RUNS_IN_FLIGHT),
            _place: place,
        })
    }

    fn place(&self, name: &str) -> Option<Place> {
        let limits = &self.0.limits;
        let mut tenants = self.0.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let tenant = tenants.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Tenant {
                running: Arc::new(Semaphore::new(limits.per_tenant)),
                places: Arc::new(Semaphore::new(limits.per_tenant + limits.waiting_per_tenant)),
            })
        });
        let permit = Arc::clone(&tenant.places).try_acquire_owned().ok()?;
        let (tenant, name) = (Some(Arc::clone(tenant)), name.to_owned());
        Some(Place {
            permit: Some(permit),
            tenant,
            name,
            shared: Arc::clone(&self.0),
        })
    }
}

impl Drop for Place {
    /// Forgets the tenant with its last run, so that the map holds only who is there.
    fn drop(&mut self) {
        let mut tenants = self.shared.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        self.permit = None;
        self.tenant = None;
        if tenants
            .get(&self.name)
            .is_some_and(|tenant| Arc::strong_count(tenant) == 1)
        {
            tenants.remove(&self.name);
        }
    }
}

async fn patiently<T>(
    slot: impl Future<Output = Result<T, Failure>>,
    patience: Duration,
    waiting: impl FnOnce(),
) -> Result<T, Failure> {
    let mut slot = std::pin::pin!(slot);
    // Not `now_or_never`: a poll of a semaphore that is out of permits must keep its place in the queue.
    let at_once = std::future::poll_fn(|cx| std::task::Poll::Ready(slot.as_mut().poll(cx))).await;
    if let std::task::Poll::Ready(slot) = at_once {
        return slot;
    }
    waiting();
    let _waiting = Counted::new(&metrics::SLOTS_WAITING);
    let late = |_| overloaded(&format!("no slot came free within {} ms", patience.as_millis()));
    tokio::time::timeout(patience, slot).await.map_err(late)?
}

fn overloaded(message: &str) -> Failure {
    metrics::OVERLOADED.inc([]);
    Failure::new(Code::Overloaded, message)
}

fn closed() -> Failure {
    Failure::new(Code::WorkerStopped, "the worker is stopping")
}

/// Counts itself in a gauge while it lives.
#[derive(Debug)]
struct Counted(GaugeHandle);

impl Counted {
    fn new(gauge: &Gauge<0>) -> Self {
        let gauge = gauge.with([]);
        gauge.add(1);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(total: usize, per_tenant: usize, waiting_per_tenant: usize) -> Slots {
        Slots::new(&Concurrency {
            total,
            per_tenant,
            waiting_per_tenant,
            wait: Duration::from_millis(50),
        })
    }

    #[tokio::test]
    async fn a_tenant_cannot_take_what_is_others() {
        let slots = slots(3, 2, 1);
        let _first = slots.take("a", || ()).await.unwrap();
        let second = slots.take("a", || ()).await.unwrap();
        let mut waited = false;
        let failure = slots.take("a", || waited = true).await.unwrap_err();
        assert_eq!((failure.code, waited), (Code::Overloaded, true));
        let _others = slots.take("b", || panic!("there is a slot free")).await.unwrap();
        drop(second);
        slots.take("a", || ()).await.unwrap();
    }

    #[tokio::test]
    async fn the_waiting_room_is_bounded_and_served_in_order() {
        let slots = slots(1, 1, 1);
        let running = slots.take("a", || ()).await.unwrap();
        let (waits, is_waiting) = tokio::sync::oneshot::channel();
        let waiter = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take("a", || waits.send(()).unwrap()).await }
        });
        is_waiting.await.unwrap();
        let turned_away = slots
            .take("a", || panic!("there is no place to wait"))
            .await
            .unwrap_err();
        assert_eq!(turned_away.code, Code::Overloaded);
        drop(running);
        drop(waiter.await.unwrap().unwrap());
        assert!(
            slots.0.tenants.lock().unwrap().is_empty(),
            "a tenant without runs is forgotten"
        );
        assert_eq!(slots.0.total.available_permits(), 1);
    }
}
