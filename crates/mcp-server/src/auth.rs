//! Who calls: every request shows its key, and rest-api says whose it is.
//!
//! A verdict is relied upon for as long as rest-api allows and never longer than a second, so that a revoked key stops
//! here as soon as everywhere. Requests with the same key that come at once ask once.

use crate::{
    audit::Trail,
    caller::{Caller, bearer},
    error::Error,
    refusal::refuse,
};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::Response,
};
use chassis::{
    Problem,
    credential::{AUTH_ATTEMPTS, presented},
    grpc::GrpcChannel,
};
use coordination::{Decision, Quota, RateLimiter};
use domain::{
    Principal, Scope,
    api_key::{Secret, SecretHash},
    audit::{Owner, Rejected},
};
use futures_util::StreamExt as _;
use http::{
    HeaderValue, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use moka::future::Cache;
use proto::v1::{WhoAmIRequest, identity_client::IdentityClient};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use telemetry::http::RequestScope;
use tonic::{Code, Status};

/// The longest that a verdict is relied upon.
const MAX_AGE: Duration = Duration::from_secs(1);
/// How long rest-api may take to say whose a key is: longer than it waits for a database that is away for a moment.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the key behind an open notification stream is looked at again.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How many keys' verdicts are kept.
const MAX_KEYS: u64 = 20_000;

/// Knows whose key a request shows, and how often that key may call. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Door {
    identity: IdentityClient<GrpcChannel>,
    verdicts: Cache<SecretHash, Verdict>,
    limiter: Arc<dyn RateLimiter>,
    quota: Option<Quota>,
    trail: Trail,
}

/// What rest-api said about a key, and until when that holds.
#[derive(Clone)]
struct Verdict {
    caller: Result<Arc<Caller>, Refusal>,
    until: Instant,
}

/// Why a request does not come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Missing,
    Malformed,
    /// Unknown, revoked, expired, or of a suspended tenant: the caller is not told which, the metric is where
    /// rest-api says.
    Invalid(&'static str, Option<Owner>),
    Unavailable,
}

impl Refusal {
    /// The metric's `result`.
    fn result(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid(why, _) => why,
            Self::Unavailable => "unavailable",
        }
    }

    fn into_problem(self) -> Problem {
        let (code, detail, challenge) = match self {
            Self::Missing => (
                "missing_credentials",
                "send an API key as 'Authorization: Bearer …' or 'X-API-Key'",
                r#"Bearer realm="devops-mcp""#,
            ),
            Self::Malformed => (
                "malformed_key",
                "the API key is not well-formed",
                r#"Bearer realm="devops-mcp", error="invalid_token", error_description="not a well-formed key""#,
            ),
            Self::Invalid(..) => (
                "invalid_key",
                "the API key is not valid",
                r#"Bearer realm="devops-mcp", error="invalid_token", error_description="not a valid key""#,
            ),
            Self::Unavailable => {
                let detail = "the key cannot be verified now: rest-api is not available";
                return Problem::unavailable("unavailable", detail).retry_after(Duration::from_secs(1));
            }
        };
        Problem::new(StatusCode::UNAUTHORIZED, code, detail)
            .header(WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}

impl Door {
    /// A door whose keys are rest-api's, each with `quota` requests.
    pub(crate) fn new(
        channel: &GrpcChannel,
        limiter: Arc<dyn RateLimiter>,
        quota: Option<Quota>,
        trail: Trail,
    ) -> Self {
        let verdicts = Cache::builder()
            .max_capacity(MAX_KEYS)
            .time_to_live(2 * MAX_AGE)
            .build();
        Self {
            identity: IdentityClient::new(channel.clone()),
            verdicts,
            limiter,
            quota,
            trail,
        }
    }

    async fn caller(&self, text: Option<&str>) -> Result<Arc<Caller>, Refusal> {
        let secret = Secret::parse(text.ok_or(Refusal::Missing)?).map_err(|_| Refusal::Malformed)?;
        let hash = secret.hash();
        if let Some(verdict) = self.verdicts.get(&hash).await
            && verdict.until > Instant::now()
        {
            return verdict.caller;
        }
        let stale = |verdict: &Verdict| verdict.until <= Instant::now();
        // Concurrent requests wait for the one that asks, and share even a verdict that may not be kept.
        let entry = self
            .verdicts
            .entry(hash)
            .or_insert_with_if(self.ask(&secret), stale)
            .await;
        entry.into_value().caller
    }

    async fn ask(&self, secret: &Secret) -> Verdict {
        let asked = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, self.who_am_i(secret)).await;
        match answer.unwrap_or(Err(Refusal::Unavailable)) {
            Ok((caller, valid_for)) => Verdict {
                caller: Ok(Arc::new(caller)),
                until: asked + valid_for.min(MAX_AGE),
            },
            Err(Refusal::Unavailable) => Verdict {
                caller: Err(Refusal::Unavailable),
                until: asked,
            },
            Err(refusal) => Verdict {
                caller: Err(refusal),
                until: asked + MAX_AGE,
            },
        }
    }

    async fn who_am_i(&self, secret: &Secret) -> Result<(Caller, Duration), Refusal> {
        let unusable = |error: Error| {
            tracing::error!(%error, "a key's owner cannot be used");
            Refusal::Unavailable
        };
        let bearer = bearer(secret.expose()).map_err(unusable)?;
        let request = crate::caller::authorized(WhoAmIRequest {}, bearer);
        let answer = self
            .identity
            .clone()
            .who_am_i(request)
            .await
            .map_err(|status| refusal(&status))?
            .into_inner();
        let principal = answer.principal.unwrap_or_default();
        let principal = Principal::try_from(principal).map_err(|e| unusable(Error::internal(e)))?;
        let valid_for = Duration::from_millis(answer.valid_for_ms.into());
        Ok((Caller::new(principal, secret).map_err(unusable)?, valid_for))
    }

    /// Ends when the caller's key is good no more. While rest-api cannot say, it is held to be.
    pub(crate) async fn until_refused(&self, caller: &Caller) {
        loop {
            tokio::time::sleep(CHECK_EVERY).await;
            if let Err(Refusal::Invalid(..)) = self.caller(caller.secret()).await {
                return;
            }
        }
    }

    /// Tells the audit log, unless nobody could say whether the key is good.
    fn reject(&self, refusal: Refusal, request: &Request) {
        let owner = match refusal {
            Refusal::Unavailable => return,
            Refusal::Invalid(_, owner) => owner,
            Refusal::Missing | Refusal::Malformed => None,
        };
        let secret = presented(request.headers())
            .text
            .and_then(|text| Secret::parse(text).ok());
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let scope = request.extensions().get::<RequestScope>();
        self.trail.reject(Rejected {
            reason: refusal.result(),
            owner,
            shown: secret.map(|secret| secret.shown().to_owned()),
            address: peer.map(|ConnectInfo(peer)| peer.ip().to_canonical()),
            trace_id: scope.map(RequestScope::trace_id).unwrap_or_default(),
        });
    }

    async fn within_quota(&self, caller: &Caller) -> Result<(), Duration> {
        let Some(quota) = self.quota else { return Ok(()) };
        match self.limiter.check(&caller.rate_key, quota).await {
            Decision::Allowed { .. } => Ok(()),
            Decision::Limited { retry_after } => Err(retry_after),
        }
    }
}

/// rest-api tells the metrics why, apart from what it tells the caller.
fn refusal(status: &Status) -> Refusal {
    if status.code() != Code::Unauthenticated {
        tracing::warn!(status = ?status.code(), reason = status.message(), "a key could not be verified");
        return Refusal::Unavailable;
    }
    match status
        .metadata()
        .get(proto::AUTH_RESULT_KEY)
        .and_then(|result| result.to_str().ok())
    {
        Some("malformed") => Refusal::Malformed,
        Some("revoked") => Refusal::Invalid("revoked", owner(status)),
        Some("expired") => Refusal::Invalid("expired", owner(status)),
        Some("suspended") => Refusal::Invalid("suspended", owner(status)),
        _ => Refusal::Invalid("invalid", None),
    }
}

/// Whose the refused key is, where rest-api says so.
fn owner(status: &Status) -> Option<Owner> {
    let text = status.metadata().get(proto::REFUSED_KEY)?.to_str().ok()?;
    let (tenant_id, key_id) = text.split_once('/')?;
    Some(Owner {
        tenant_id: tenant_id.parse().ok()?,
        key_id: key_id.parse().ok()?,
    })
}

/// The middleware: authenticates, counts and limits requests to `/mcp`, and puts the [`Caller`] on them.
pub(crate) async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    // Clients look for OAuth metadata at other paths; they must hear that there is none, not that they need a key.
    if request.uri().path() != crate::PATH {
        return next.run(request).await;
    }
    let shown = presented(request.headers());
    let caller = match (shown.method, shown.text) {
        ("none", _) => Err(Refusal::Missing),
        (_, None) => Err(Refusal::Malformed),
        (_, text) => door.caller(text).await,
    };
    let result = caller
        .as_ref()
        .map_or_else(|refusal| refusal.result(), |_| "success");
    AUTH_ATTEMPTS.inc([shown.method, result]);
    let caller = match caller {
        Ok(caller) => caller,
        Err(refusal) => {
            door.reject(refusal, &request);
            return refuse(refusal.into_problem());
        }
    };
    introduce(&request, &caller);
    if let Err(retry_after) = door.within_quota(&caller).await {
        return refuse(Problem::too_many(retry_after));
    }
    // From here on the key is in the Caller, which does not print itself; the SDK prints headers at debug level.
    request.headers_mut().remove(AUTHORIZATION);
    request.headers_mut().remove("x-api-key");
    request.extensions_mut().insert(caller.clone());
    let lasting = lasts(&request);
    let response = next.run(request).await;
    if lasting {
        until_refused(response, door, caller)
    } else {
        response
    }
}

/// Whether the answer is a notification stream, which may stay open for as long as the client likes.
fn lasts(request: &Request) -> bool {
    let method = request.headers().get("mcp-method");
    request.method() == http::Method::GET || method.is_some_and(|method| method == "subscriptions/listen")
}

/// Cuts the answer off when the caller's key is good no more: a stream must not outlive it.
fn until_refused(response: Response, door: Door, caller: Arc<Caller>) -> Response {
    response.map(|body| {
        let refused = async move { door.until_refused(&caller).await };
        Body::from_stream(body.into_data_stream().take_until(Box::pin(refused)))
    })
}

/// Tells telemetry who calls.
fn introduce(request: &Request, caller: &Caller) {
    if let Some(scope) = request.extensions().get::<RequestScope>() {
        scope.set_caller(telemetry::http::Caller {
            tenant: caller.tenant.clone(),
            key_id: caller.principal.key_id.to_string(),
            may_debug: caller.principal.scopes.contains(Scope::Debug),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rest_api_refuses_is_told_apart_from_its_absence() {
        assert_eq!(
            refusal(&Status::unauthenticated("no")),
            Refusal::Invalid("invalid", None)
        );
        assert_eq!(
            refusal(&Status::unavailable("tcp connect error")),
            Refusal::Unavailable
        );
        assert_eq!(refusal(&Status::internal("database")), Refusal::Unavailable);
        let mut revoked = Status::unauthenticated("no");
        let result = tonic::metadata::MetadataValue::from_static("revoked");
        revoked.metadata_mut().insert(proto::AUTH_RESULT_KEY, result);
        assert_eq!(refusal(&revoked).result(), "revoked");
        assert_eq!(refusal(&revoked).into_problem().code(), "invalid_key");
    }
}
