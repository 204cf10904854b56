//! Debug level for one request.
//!
//! While no request is being debugged, a disabled `debug!` costs what it always does: the filter's answer is cached at
//! the call site. The first debugged request and the end of the last one have these answers asked for anew.

use crate::context::Request;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many requests are being debugged in this process.
static LIVE: AtomicUsize = AtomicUsize::new(0);

/// A request that is being debugged, while it lives.
#[derive(Debug)]
pub(crate) struct Live(());

impl Live {
    pub(crate) fn new() -> Self {
        if LIVE.fetch_add(1, Ordering::SeqCst) == 0 {
            tracing::callsite::rebuild_interest_cache();
        }
        Self(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if LIVE.fetch_sub(1, Ordering::SeqCst) == 1 {
            tracing::callsite::rebuild_interest_cache();
        }
    }
}

/// Whether any request is being debugged.
pub(super) fn any() -> bool {
    LIVE.load(Ordering::Relaxed) > 0
}

/// Whether the request in hand is.
pub(super) fn this() -> bool {
    any() && Request::with_current(Request::is_debug).unwrap_or(false)
}
