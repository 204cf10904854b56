//! Guards the HTTP door: every request is authenticated, counted and limited here.

use crate::{
    api::Api,
    audit::{self, Trail},
    auth::Verified,
    error::{AuthError, Error, Result},
};
use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use chassis::credential::{AUTH_ATTEMPTS, presented};
use coordination::{Decision, Quota, RateLimiter};
use domain::{Principal, Scope, api_key::Secret, audit::Rejected};
use http::{HeaderMap, request::Parts};
use std::sync::Arc;
use telemetry::http::{Caller as LoggedCaller, RequestScope};

/// What the HTTP door asks of every request.
#[derive(Clone)]
pub struct Guard {
    /// Knows keys.
    pub api: Api,
    /// Keeps count of who is rejected.
    pub trail: Trail,
    /// Counts requests a key.
    pub limiter: Arc<dyn RateLimiter>,
    /// What a key may do; `None`: as much as it likes.
    pub quota: Option<Quota>,
}

/// Paths below the API that anyone may read.
const PUBLIC: [&str; 2] = ["/api/v1/openapi.json", "/api/v1/docs"];

/// The middleware: authenticates, counts, limits, and puts the [`Principal`] on the request.
pub async fn authenticate(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !path.starts_with("/api/") || PUBLIC.contains(&path) {
        return next.run(request).await;
    }
    match guard.admit(request.headers()).await {
        Ok(principal) => {
            if let Some(scope) = request.extensions().get::<RequestScope>() {
                scope.set_caller(LoggedCaller {
                    tenant: principal.tenant.as_str().into(),
                    key_id: principal.key_id.to_string(),
                    may_debug: principal.scopes.contains(Scope::Debug),
                });
            }
            request.extensions_mut().insert(principal);
            next.run(request).await
        }
        Err(error) => {
            if let Error::Unauthenticated(why) = &error {
                guard.reject(*why, &request);
            }
            error.into_response()
        }
    }
}

impl Guard {
    fn reject(&self, why: AuthError, request: &Request) {
        let text = presented(request.headers()).text;
        let secret = text.and_then(|text| Secret::parse(text).ok());
        let refused = secret
            .as_ref()
            .and_then(|secret| self.api.verifier().refused(&secret.hash()));
        let scope = request.extensions().get::<RequestScope>();
        self.trail.reject(Rejected {
            reason: why.result(),
            owner: refused,
            shown: secret.map(|secret| secret.shown().to_owned()),
            address: audit::peer(request),
            trace_id: scope.map(RequestScope::trace_id).unwrap_or_default(),
        });
    }

    async fn admit(&self, headers: &HeaderMap) -> Result<Arc<Principal>> {
        let shown = presented(headers);
        let verified = self.api.verifier().verify(shown.text).await;
        AUTH_ATTEMPTS.inc([shown.method, attempt_result(&verified)]);
        let principal = verified?.principal;
        if let Some(quota) = self.quota {
            let key = format!("rest:{}", principal.key_id);
            if let Decision::Limited { retry_after } = self.limiter.check(&key, quota).await {
                return Err(Error::RateLimited { retry_after });
            }
        }
        Ok(principal)
    }
}

fn attempt_result(verified: &Result<Verified>) -> &'static str {
    match verified {
        Ok(_) => "success",
        Err(Error::Unauthenticated(e)) => e.result(),
        Err(_) => "unavailable",
    }
}

/// The authenticated caller, for handlers.
pub(super) struct Caller(pub(super) Arc<Principal>);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let principal = parts.extensions.get::<Arc<Principal>>();
        principal
            .map(|p| Self(Arc::clone(p)))
            .ok_or(Error::Unauthenticated(AuthError::Missing))
    }
}
