//! The public door: browsers and other clients, each on a WebSocket.

mod decoder;
mod handshake;
mod life;
mod session;
mod socket;
mod upgrade;
mod wire;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE, HOST};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::clock::Clock;
use crate::config::Limits;
use crate::hub::{Flusher, Hub};
use crate::protocol::{ErrorCode, Problem};

pub use handshake::Handshake;
use life::Life;
pub use socket::{Ended, Message, Socket};
pub use upgrade::Upgrade;

/// Goodbyes that are said in turn before others get theirs. At some microseconds each, whoever shares
/// the thread waits a fraction of a millisecond.
pub(crate) const GOODBYES_AT_ONCE: usize = 16;

/// What every connection of a worker needs: shared by all of them.
pub(crate) struct Door {
    /// What is allowed.
    pub(crate) limits: Arc<Limits>,
    /// What tells the time.
    pub(crate) clock: Clock,
    /// The configured page, if there is one.
    pub(crate) page: Option<String>,
    /// Who is where.
    pub(crate) hub: Arc<Hub>,
    /// Who sends the events of rooms that these connections are the first in.
    pub(crate) flusher: Arc<Flusher>,
    /// Turns tokens into identities.
    pub(crate) verifier: Arc<Verifier>,
    /// Set when the gateway stops.
    pub(crate) stopping: CancellationToken,
    /// Turns for those who go, where many do at once.
    pub(crate) goodbyes: Semaphore,
    /// Counts the tasks of connections, so that a stop can wait for them.
    pub(crate) tasks: TaskTracker,
}

/// The routes of the public listener.
pub(crate) fn routes(door: Arc<Door>) -> Router {
    let mut routes = Router::new()
        .route("/ws", get(connect))
        .route("/health", get(|| async { "ok\n" }))
        .route("/client.js", get(client));
    if door.page.is_some() {
        routes = routes.route("/", get(page));
    }
    routes
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ErrorCode::MethodNotAllowed,
                "this path has no such method; the header Allow lists its methods",
            )
        })
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is nothing here; WebSockets connect to /ws") })
        .with_state(door)
}

/// Upgrades to a WebSocket, whatever its token is worth: a browser cannot read the answer to an
/// upgrade that fails, but it can read a close code.
async fn connect(State(door): State<Arc<Door>>, request: Request) -> Response {
    let token = token_in_query(request.uri().query().unwrap_or_default());
    let upgrade = match Upgrade::accept(request) {
        Ok(upgrade) => upgrade,
        Err(problem) => return problem.into_response(),
    };
    let limits = Arc::clone(&door.limits);
    let clock = door.clock.clone();
    let tasks = door.tasks.clone();
    upgrade.on(&tasks, limits, clock, move |socket| Life::begin(socket, door, token))
}

/// The token of `?token=…`. The query is looked at here and nowhere else, and is never logged.
fn token_in_query(query: &str) -> Option<Box<str>> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "token").map(|(_, token)| token.into())
}

/// The configured page, which may hold tokens. It is shown under a name of this machine only: a
/// stranger's name that resolves to this machine would let the stranger's own page read it.
async fn page(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    match &door.page {
        Some(page) if matches!(name, "localhost" | "127.0.0.1" | "[::1]") => Html(page.clone()).into_response(),
        _ => Problem::new(ErrorCode::NotFound, "the page is at http://localhost only").into_response(),
    }
}

/// The JavaScript client, as a module. Pages of other origins may import it: it is the same for all.
async fn client() -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/javascript; charset=utf-8"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (headers, include_str!("../client-js/wsgate.js"))
}
