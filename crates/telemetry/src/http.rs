//! Layers for HTTP servers built with axum, from the outside in: [`IdsLayer`], the service's authentication,
//! [`SpanLayer`], the handlers.
//!
//! A request is known by its ids from the first moment, so that even a refusal can be found again; whether it makes
//! spans is decided once it is known who asks.

mod body;
mod ids;
mod scope;
mod series;
mod spans;
#[cfg(test)]
mod tests;

pub use ids::{Ids, IdsLayer};
pub use scope::{Caller, RequestScope};
pub use spans::{SpanLayer, Spans};
