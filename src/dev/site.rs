//! What `wsgate dev` serves beside the gateway: the playground, and tokens for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::auth::Grants;
use crate::config::Origins;
use crate::protocol::{ErrorCode, Problem, Refusal, UserId};

use super::{Dev, TOKEN_LIFE, everything};

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

/// What a token is to be like.
struct Wanted {
    user: UserId,
    life: Duration,
    grants: Grants,
}

impl Wanted {
    /// Reads a query, as `user=alice&expires_in=60&grants={"chat:*":["join"]}`.
    fn parse(query: &str) -> Result<Self, Refusal> {
        let (mut user, mut life, mut grants) = (None, None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let twice = match &*name {
                "user" => user.replace(value.parse().map_err(|why: String| Refusal::invalid("user", &why))?).is_some(),
                "expires_in" => life.replace(seconds(&value)?).is_some(),
                "grants" => {
                    let read = serde_json::from_str(&value);
                    let wrong = |why| Refusal::invalid("grants", &format!("are not grants: {why}"));
                    grants.replace(read.map_err(wrong)?).is_some()
                }
                _ => {
                    let why = format!("there is no parameter `{name}` here: there are user, expires_in and grants");
                    return Err(Refusal::of(ErrorCode::UnknownField, name.into_owned(), why));
                }
            };
            if twice {
                let why = format!("`{name}` is there twice");
                return Err(Refusal::of(ErrorCode::DuplicateField, name.into_owned(), why));
            }
        }
        let missing = || Refusal::of(ErrorCode::MissingField, "user", "`user` is missing: ask with ?user=alice");
        let grants = grants.unwrap_or_else(everything);
        Ok(Self { user: user.ok_or_else(missing)?, life: life.unwrap_or(TOKEN_LIFE), grants })
    }
}

fn seconds(text: &str) -> Result<Duration, Refusal> {
    let seconds = text.parse().ok().filter(|seconds| (1..=MAX_TOKEN_LIFE).contains(seconds));
    let why = format!("must be a whole number from 1 to {MAX_TOKEN_LIFE}");
    seconds.map(Duration::from_secs).ok_or_else(|| Refusal::invalid("expires_in", &why))
}

/// `GET /dev/token?user=alice`: a token, which may do anything if no grants are asked for.
async fn token(State(dev): State<Arc<Dev>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let Wanted { user, life, grants } = Wanted::parse(&query.unwrap_or_default())?;
    let token = dev.token(user.as_str(), life, grants);
    let token = token.map_err(|error| Problem::new(ErrorCode::InvalidField, error.to_string()))?;
    Ok(([(CACHE_CONTROL, "no-store")], token).into_response())
}
