//! The backend door: events in, look-ups out, over HTTP with an API key.

mod access;
mod body;
mod health;
mod idempotency;
mod identity;
mod inquiry;
mod key;
mod openapi;
mod operate;
mod publish;

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::SECURITY;
use crate::config::ApiAction;
use crate::hub::{Entry, Member};
use crate::metrics::Inventory;
use crate::parts::Parts;
use crate::protocol::{
    Bounds, Close, CloseCode, ConnectionId, ErrorCode, PresentUser, Problem, Refusal, Response as Told, RoomName,
    RoomRequest, UserId,
};
use crate::trace::Trace;

pub(crate) use idempotency::Idempotency;
pub use key::ApiKeys;
pub use operate::{Reloaded, Reread};

use body::RoomBody;
use key::{Caller, check_key};
use openapi::{needs, needs_any_key};

/// What every request needs: shared by all of them.
pub(crate) struct Api {
    /// What the other door works with too.
    pub(crate) parts: Parts,
    /// Who may ask.
    pub(crate) keys: ApiKeys,
    /// Reads the configuration again, where there is one to read.
    pub(crate) reread: Option<Reread>,
    /// Events that are not to be published twice.
    pub(crate) idempotency: Idempotency,
    /// Whoever has the configuration read again has this.
    pub(crate) reloading: Mutex<()>,
}

/// The routes of the backend listener.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let with_key = Router::from(with_key()).route_layer(middleware::from_fn_with_state(Arc::clone(&api), check_key));
    with_key
        .merge(Router::from(without_key()))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), measure))
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ErrorCode::MethodNotAllowed,
                "this path has no such method; the header Allow lists its methods",
            )
        })
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is nothing here; the API is under /v1") })
        .with_state(api)
}

/// Counts a request by its route, and how long its answer took.
async fn measure(State(api): State<Arc<Api>>, route: MatchedPath, request: Request, next: Next) -> Response {
    let begun = api.parts.clock.now();
    let response = next.run(request).await;
    let class = match response.status().as_u16() {
        ..400 => "2xx",
        400..500 => "4xx",
        500.. => "5xx",
    };
    if let Some(limit) = response.extensions().get().and_then(|code| limit_behind(*code, route.as_str())) {
        api.parts.metrics.limit(limit);
    }
    api.parts.metrics.requested(route.as_str(), class, api.parts.clock.now().saturating_duration_since(begun));
    response
}

/// The limit that a request was refused for, if it was.
fn limit_behind(code: ErrorCode, route: &str) -> Option<&'static str> {
    match (code, route) {
        (ErrorCode::BodyTooLarge, _) => Some("max_body_bytes"),
        (ErrorCode::BodyIncomplete, _) => Some("body_timeout"),
        (ErrorCode::Full, "/v1/tickets") => Some("max_tickets"),
        (ErrorCode::Full, "/v1/publish" | "/v1/batch") => Some("max_idempotency_keys"),
        (ErrorCode::Full, "/v1/request") => Some("requests"),
        (ErrorCode::Full, _) => Some("max_revocations"),
        _ => None,
    }
}

/// Every operation, with its description.
fn operations() -> OpenApiRouter<Arc<Api>> {
    with_key().merge(without_key())
}

/// The operations that need a key, each with the action that the key must allow. A new one is a
/// function with `#[utoipa::path(…)]`, a line here, and a line in `OPERATIONS` of
/// `tests/gateway/keys.rs`; it asks its [`Caller`] about the rooms that it concerns.
fn with_key() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(needs(ApiAction::Publish, routes!(publish::publish)))
        .routes(needs(ApiAction::Publish, routes!(publish::batch)))
        .routes(needs(ApiAction::Read, routes!(user)))
        .routes(needs(ApiAction::Disconnect, routes!(disconnect)))
        .routes(needs(ApiAction::Move, routes!(join)))
        .routes(needs(ApiAction::Move, routes!(leave)))
        .routes(needs(ApiAction::Read, routes!(room)))
        .merge(identity::operations())
        .merge(access::operations())
        .merge(operate::operations())
        .routes(needs(ApiAction::Request, routes!(inquiry::request)))
        .routes(needs_any_key(routes!(openapi::openapi)))
}

/// The operations that need none: what watches the gateway has no key.
fn without_key() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(metrics)).merge(health::operations())
}

#[derive(Serialize, ToSchema)]
struct UserConnections {
    user: UserId,
    connections: Vec<Connection>,
}

#[derive(Serialize, ToSchema)]
struct Connection {
    connection: ConnectionId,
    rooms: Vec<RoomName>,
}

/// The user's connections, and the rooms that each is in.
#[utoipa::path(get, path = "/v1/users/{user}", responses((status = 200, body = UserConnections)))]
async fn user(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    caller.user(&user)?;
    let connections = api.parts.hub.connections_of(&user);
    let connections =
        connections.iter().map(|member| Connection { connection: member.id(), rooms: member.room_names() }).collect();
    Ok(json(&UserConnections { user, connections }))
}

#[derive(Serialize, ToSchema)]
struct RoomMembers {
    room: RoomName,
    /// How many connections there are.
    total: usize,
    /// Whose they are, if these are not too many.
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<Vec<PresentUser>>,
    /// As many of the connections as one answer lists.
    members: Vec<Listed>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RoomMember)]
struct Listed {
    user: UserId,
    connection: ConnectionId,
}

/// The members of a room, as many as one answer lists, and how many there are; and its users.
#[utoipa::path(get, path = "/v1/rooms/{room}", responses((status = 200, body = RoomMembers)))]
async fn room(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let room: RoomName = named("room", path)?;
    caller.room(&room)?;
    let max = api.parts.limits.get().max_listed_members;
    let (total, members) = api.parts.hub.members_of(&room, max);
    let users = api.parts.hub.users_in(&room, max).members;
    let listed = members.iter().map(|member| Listed { user: member.user().clone(), connection: member.id() }).collect();
    Ok(json(&RoomMembers { room, total, users, members: listed }))
}

#[derive(Serialize, ToSchema)]
struct Disconnected {
    /// How many connections were told to go.
    disconnected: usize,
}

/// Ends all connections of a user.
#[utoipa::path(post, path = "/v1/users/{user}/disconnect", responses((status = 200, body = Disconnected)))]
async fn disconnect(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    caller.user(&user)?;
    let close = Close::new(CloseCode::Kicked, "disconnected by the backend");
    let disconnected = api.parts.hub.close_user(&user, &close);
    tracing::info!(target: SECURITY, user = user.as_str(), disconnected, key = caller.name(), "a user was disconnected");
    Ok(json(&Disconnected { disconnected }))
}

#[derive(Serialize, ToSchema)]
struct Joined {
    /// How many connections of the user are in the room now.
    joined: usize,
    /// How many are in too many rooms, or had no place in it.
    refused: usize,
}

/// Puts all connections of a user into a room.
#[utoipa::path(post, path = "/v1/users/{user}/join", request_body = RoomBody, responses((status = 200, body = Joined)))]
async fn join(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: PathName,
    request: Request,
) -> Result<Response, Problem> {
    let (members, room) = api.user_and_room(&caller, path, request).await?;
    let told = Told::Joined { room: &room }.frame();
    let entry = || Entry { told: Some(told.clone()), placed: true, ..Entry::default() };
    let joined = members.iter().filter(|member| api.parts.hub.join(member, &room, entry()).is_ok()).count();
    Ok(json(&Joined { joined, refused: members.len() - joined }))
}

#[derive(Serialize, ToSchema)]
struct TakenOut {
    /// How many connections were taken out.
    left: usize,
}

/// Takes all connections of a user out of a room.
#[utoipa::path(post, path = "/v1/users/{user}/leave", request_body = RoomBody, responses((status = 200, body = TakenOut)))]
async fn leave(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: PathName,
    request: Request,
) -> Result<Response, Problem> {
    let (members, room) = api.user_and_room(&caller, path, request).await?;
    let told = Told::Left { room: &room, reason: None, temporary: None }.frame();
    let left = members.iter().filter(|member| api.parts.hub.leave(member, &room, Some(told.clone()))).count();
    Ok(json(&TakenOut { left }))
}

/// What is counted, as Prometheus reads it.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"))
)]
async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let issuers = api.parts.authenticator.verifier().keys_status().into_iter();
    let now = Inventory {
        revocations: api.parts.authenticator.revocations().list(0).0,
        issuers: issuers.map(|(issuer, status)| (issuer, status.keys, status.age)).collect(),
        draining: api.parts.drain.is_cancelled(),
        max_connections: api.parts.limits.get().max_connections,
        left_alone: api.parts.backend.left_alone(),
        ..api.parts.hub.inventory()
    };
    let text = api.parts.metrics.text(&now, api.parts.hub.flushers().iter().map(|flusher| flusher.traffic()));
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

impl Api {
    fn bounds(&self) -> Bounds {
        let limits = self.parts.limits.get();
        Bounds { max_depth: limits.max_depth, max_targets: limits.max_targets }
    }

    /// Answers a request as a span of the trace that its headers name, or of one of its own.
    async fn traced(
        &self,
        name: &'static str,
        request: Request,
        answer: impl AsyncFnOnce(Request, Trace) -> Result<Response, Problem>,
    ) -> Response {
        let span = self.parts.tracer.serve(name, request.headers());
        let answer = answer(request, span.trace()).await.into_response();
        span.answered(answer.status().as_u16());
        answer
    }

    /// Reads a body whole, within limits of size and time. What it says it is does not matter:
    /// `curl -d` calls everything a form.
    async fn body(&self, request: Request) -> Result<Vec<u8>, Problem> {
        let limits = Arc::clone(&self.parts.limits.get());
        let whole = Limited::new(request.into_body(), limits.max_body_bytes).collect();
        match self.parts.clock.timeout(limits.body_timeout, whole).await {
            Some(Ok(body)) => Ok(body.to_bytes().to_vec()),
            Some(Err(error)) if error.is::<LengthLimitError>() => {
                let detail = format!("a body may have {} bytes at most", limits.max_body_bytes);
                Err(Problem::new(ErrorCode::BodyTooLarge, detail))
            }
            Some(Err(_)) => Err(Problem::new(ErrorCode::BodyIncomplete, "the body did not arrive whole")),
            None => Err(Problem::new(ErrorCode::BodyIncomplete, "the body did not arrive in time")),
        }
    }

    /// The connections of the user in the path, and the room in the body.
    async fn user_and_room(
        &self,
        caller: &Caller,
        path: PathName,
        request: Request,
    ) -> Result<(Vec<Arc<Member>>, RoomName), Problem> {
        let user: UserId = named("user", path)?;
        let body = self.body(request).await?;
        let room = RoomRequest::parse(text(&body)?, self.bounds())?.room;
        if room.is_personal() {
            let why = "must not be a personal room: the gateway alone decides who is in it";
            return Err(Refusal::invalid("room", why).into());
        }
        caller.room(&room)?;
        Ok((self.parts.hub.connections_of(&user), room))
    }
}

/// The name in a path, or that it is not text.
type PathName = Result<Path<String>, PathRejection>;

fn named<T: FromStr<Err = String>>(field: &'static str, path: PathName) -> Result<T, Problem> {
    let Ok(Path(name)) = path else { return Err(Refusal::invalid(field, "must be UTF-8").into()) };
    name.parse().map_err(|why: String| Refusal::invalid(field, &why).into())
}

fn text(body: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(body).map_err(|_| Problem::new(ErrorCode::NotJson, "the body is not UTF-8"))
}

fn json<T: Serialize>(answer: &T) -> Response {
    match serde_json::to_vec(answer) {
        Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer could not be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
