//! What the tools that judge share: figures of a service, of an objective and of an alert, asked of all sources that the
//! caller has, at the same time.

pub(super) mod figures;
pub(super) mod firing;
pub(super) mod measured;
pub(super) mod parts;
pub(super) mod requests;
pub(super) mod rules;
pub(super) mod runbook;
pub(super) mod saturation;
pub(super) mod slos;
pub(super) mod verdict;
pub(super) mod words;
