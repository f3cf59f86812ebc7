//! How the gateway is, for whatever watches it: no key is needed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Api, json};

pub(super) fn operations() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(live)).routes(routes!(ready))
}

#[derive(Serialize, ToSchema)]
struct Liveness {
    live: bool,
    version: &'static str,
    /// The process's number: where two gateways share a port, who has answered.
    pid: u32,
}

/// Whether the process answers. What it cannot do at the moment, a restart would not mend: see
/// `/health/ready`.
#[utoipa::path(get, path = "/health/live", responses((status = 200, body = Liveness)))]
async fn live() -> Response {
    json(&Liveness { live: true, version: env!("CARGO_PKG_VERSION"), pid: std::process::id() })
}

#[derive(Serialize, ToSchema)]
struct Readiness {
    ready: bool,
    /// Why it is not; nothing if it is.
    reasons: Vec<String>,
    /// How many connections there are, those among them that are being said goodbye to.
    connections: usize,
    /// The issuers that publish their keys.
    issuers: Vec<Keys>,
    /// The process's number: where two gateways share a port, who has answered.
    pid: u32,
}

#[derive(Serialize, ToSchema)]
#[schema(as = IssuerKeys)]
struct Keys {
    issuer: String,
    /// How many keys of it there are.
    keys: usize,
    /// How long ago they were fetched.
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    /// Why they cannot be fetched anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Whether the gateway can do its work: it takes clients, and has keys of every issuer.
///
/// Keys that cannot be fetched anew still serve for a while, and `problem` says so.
#[utoipa::path(
    get,
    path = "/health/ready",
    responses((status = 200, body = Readiness), (status = 503, description = "`reasons` says why not.", body = Readiness))
)]
async fn ready(State(api): State<Arc<Api>>) -> Response {
    let issuers = api.parts.authenticator.verifier().keys_status().into_iter().map(|(issuer, status)| Keys {
        issuer,
        keys: status.keys,
        age_seconds: status.age.map(|age| age.as_secs()),
        problem: status.problem,
    });
    let issuers: Vec<Keys> = issuers.collect();
    let without_keys = issuers.iter().filter(|issuer| issuer.keys == 0);
    let mut reasons: Vec<String> =
        without_keys.map(|issuer| format!("there are no keys of {}", issuer.issuer)).collect();
    if api.parts.drain.is_cancelled() {
        reasons.push("it is draining, and takes no more clients".to_owned());
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let connections = api.parts.hub.census().connections + api.parts.metrics.closing_now();
    let pid = std::process::id();
    (status, json(&Readiness { ready: reasons.is_empty(), reasons, connections, issuers, pid })).into_response()
}
