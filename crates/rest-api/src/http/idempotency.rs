//! `Idempotency-Key`: the same POST sent twice makes one thing.

use crate::{
    api::Api,
    clock::now,
    error::Error,
    store::{Idempotency, Made},
};
use axum::{extract::FromRequestParts, response::Response};
use domain::Invalid;
use http::request::Parts;
use ring::digest::{Context, SHA256};
use serde::Serialize;

/// The header, where it was sent.
pub(super) struct Key(Option<String>);

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Error> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(Self(None));
        };
        let ok = |v: &&str| (1..=200).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_graphic());
        let key = value.to_str().ok().filter(ok);
        let key = key.ok_or_else(|| Invalid::new("Idempotency-Key", "1 to 200 visible ASCII characters"))?;
        Ok(Self(Some(key.to_owned())))
    }
}

impl Key {
    /// The key itself, where the thing that is made remembers it.
    pub(super) fn into_inner(self) -> Option<String> {
        self.0
    }

    /// What the store remembers; `route` and `body` tell requests apart.
    pub(super) fn of(
        self,
        api: &Api,
        route: &str,
        body: &impl Serialize,
    ) -> Result<Option<Idempotency>, Error> {
        let Some(key) = self.0 else { return Ok(None) };
        let mut hash = Context::new(&SHA256);
        hash.update(route.as_bytes());
        hash.update(&[0]);
        hash.update(&serde_json::to_vec(body).map_err(|e| Error::Internal(e.into()))?);
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hash.finish().as_ref());
        Ok(Some(Idempotency {
            key,
            fingerprint,
            expires_at: now() + api.retention().idempotency,
        }))
    }
}

/// Marks an answer that an earlier call made.
pub(super) fn mark<T>(made: Made<T>, answer: impl FnOnce(T) -> Response) -> Response {
    let before = matches!(made, Made::Before(_));
    mark_if(before, answer(made.into_inner()))
}

/// Marks an answer if an earlier call made it.
pub(super) fn mark_if(before: bool, mut response: Response) -> Response {
    if before {
        response
            .headers_mut()
            .insert("idempotency-replayed", http::HeaderValue::from_static("true"));
    }
    response
}
