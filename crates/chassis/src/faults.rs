//! Faults that are planted on purpose (`test_faults`), so that a test can show that the debugging pages lead to each.
//!
//! Without any, requests meet none of this: not even a layer.

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::Next,
};
use http::Extensions;
use serde::{Deserialize, Serialize};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// The route whose requests block their thread.
pub const BLOCKING_ROUTE: &str = "/api/v1/contexts/{id}";
/// The route whose requests keep a core busy.
pub const BUSY_ROUTE: &str = "/api/v1/tools";

/// What a request leaks, bytes.
const LEAKED: usize = 64 << 10;
/// How long a call blocks or keeps busy: longer than what counts as slow by default.
const HELD_UP: Duration = Duration::from_millis(600);

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Each request leaks 64 KiB.
    Leak,
    /// Each request of [`BLOCKING_ROUTE`] blocks its thread for 600 ms.
    BlockingCall,
    /// Each request of [`BUSY_ROUTE`] computes for 600 ms without a pause.
    BusyCall,
    /// Each listing of contexts runs a slow statement, too. Planted by rest-api.
    SlowQuery,
    /// The start applies one more migration that expands the schema, as the next version would. Planted by rest-api.
    NextMigration,
    /// The start applies one more migration, which fails. Planted by rest-api.
    FailingMigration,
}

/// Says at start what nobody should ever be surprised by.
pub(crate) fn warn(faults: &[Fault]) {
    if !faults.is_empty() {
        tracing::warn!(
            ?faults,
            "faults are planted in this process on purpose (test_faults): it leaks, blocks, is slow or migrates wrongly"
        );
    }
}

/// Plants `faults` around the routes, innermost: what goes wrong is part of the request as the rest of its handler is.
pub(crate) fn plant(routes: Router, faults: &[Fault]) -> Router {
    let has = |fault| faults.contains(&fault);
    let planted = Planted {
        leak: has(Fault::Leak),
        blocking: has(Fault::BlockingCall),
        busy: has(Fault::BusyCall),
    };
    if !planted.leak && !planted.blocking && !planted.busy {
        return routes;
    }
    let strike = move |request: Request, next: Next| {
        planted.strike(request.extensions());
        next.run(request)
    };
    routes.layer(axum::middleware::from_fn(strike))
}

/// What befalls requests.
#[derive(Clone, Copy)]
struct Planted {
    leak: bool,
    blocking: bool,
    busy: bool,
}

impl Planted {
    fn strike(self, extensions: &Extensions) {
        let route = extensions
            .get::<MatchedPath>()
            .map(MatchedPath::as_str)
            .unwrap_or_default();
        if self.leak {
            planted_leak();
        }
        if self.blocking && route == BLOCKING_ROUTE {
            planted_blocking_call();
        }
        if self.busy && route == BUSY_ROUTE {
            planted_busy_call();
        }
    }
}

// Not inlined: each is to be found in a profile under its name.

#[inline(never)]
fn planted_leak() {
    let memory = vec![1_u8; LEAKED].into_boxed_slice();
    black_box(Box::leak(memory));
}

#[inline(never)]
fn planted_blocking_call() {
    std::thread::sleep(HELD_UP);
    black_box(());
}

#[inline(never)]
fn planted_busy_call() {
    let begun = Instant::now();
    let mut number = 1_u64;
    while begun.elapsed() < HELD_UP {
        let mut round = 0_u32;
        // The clock is looked at seldom, so that this function is what is found on top.
        while round < 1 << 16 {
            number = black_box(number ^ (number << 13) ^ (number >> 7));
            round += 1;
        }
    }
}
