//! What `wsgate dev` serves beside the gateway: the playground, and tokens for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;

use crate::config::Origins;
use crate::protocol::{ErrorCode, Problem, Refusal, UserId};

use super::{Dev, TOKEN_LIFE};

/// Nothing but the files of this site and the gateway, and no script or style inside the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The longest life of a token, in seconds.
const MAX_TOKEN_LIFE: u64 = 24 * 60 * 60;

/// The routes, for the gateway's public listener.
pub(super) fn routes(dev: &Dev) -> Router {
    let style = file("text/css; charset=utf-8", include_str!("playground.css"));
    let script = file("text/javascript; charset=utf-8", include_str!("playground.js"));
    let page = file("text/html; charset=utf-8", dev.page());
    Router::new()
        .route("/", get(async move || page.clone()))
        .route("/playground.css", get(async move || style.clone()))
        .route("/playground.js", get(async move || script.clone()))
        .route("/dev/token", get(token))
        .with_state(Arc::new(dev.clone()))
        .layer(from_fn(only_on_this_machine))
}

type File = ([(HeaderName, &'static str); 5], String);

fn file(content_type: &'static str, text: impl Into<String>) -> File {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"), // It may be another with the next run.
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text.into())
}

/// What is shown here may do anything. It is shown under a name of this machine only: a stranger's name
/// that resolves to this machine would let the stranger's own page read it. For the same reason no page
/// of another machine may ask for it.
async fn only_on_this_machine(request: Request, next: Next) -> Response {
    let (host, origin) = (text(request.headers(), &HOST), text(request.headers(), &ORIGIN));
    let here = |origin: &str| Origins::loopback().allow(Some(origin), None);
    if !host.is_some_and(|host| here(&format!("http://{host}"))) {
        return Problem::new(ErrorCode::NotFound, "this is at http://localhost only").into_response();
    }
    let Some(origin) = origin.map(str::to_owned) else { return next.run(request).await };
    if !here(&origin) {
        return Problem::new(ErrorCode::OriginNotAllowed, "only pages of this machine may ask for this")
            .into_response();
    }
    // So that the page of another server on this machine, such as Vite's, can get a token.
    let headers = [(ACCESS_CONTROL_ALLOW_ORIGIN, origin), (VARY, ORIGIN.to_string())];
    (headers, next.run(request).await).into_response()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// For whom a token is to be, and for how many seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    user: UserId,
    expires_in: Option<u64>,
}

/// `GET /dev/token?user=alice`: a token that may do anything.
async fn token(
    State(dev): State<Arc<Dev>>,
    wanted: Result<Query<Wanted>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(Wanted { user, expires_in }) = wanted.map_err(|rejection| {
        let why = std::error::Error::source(&rejection).map_or_else(|| rejection.body_text(), ToString::to_string);
        Problem::new(ErrorCode::InvalidField, format!("ask with ?user=alice, and &expires_in=60 if need be: {why}"))
    })?;
    let seconds = expires_in.unwrap_or(TOKEN_LIFE.as_secs());
    if !(1..=MAX_TOKEN_LIFE).contains(&seconds) {
        let why = format!("must be from 1 to {MAX_TOKEN_LIFE} seconds");
        return Err(Refusal::invalid("expires_in", &why).into());
    }
    let token = dev.token(user.as_str(), Duration::from_secs(seconds));
    let token = token.map_err(|error| Problem::new(ErrorCode::InvalidField, error.to_string()))?;
    Ok(([(CACHE_CONTROL, "no-store")], token).into_response())
}
