//! The backend door: events in, look-ups out, over HTTP with an API key.

mod identity;
mod inquiry;

use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use subtle::ConstantTimeEq;

use crate::auth::Authenticator;
use crate::config::Config;
use crate::hub::{Entry, Event, Hub, Member};
use crate::inquiry::Inquiries;
use crate::metrics::Metrics;
use crate::protocol::{
    BackendPublish, Bounds, Close, CloseCode, ConnectionId, ErrorCode, PresentUser, Problem, Refusal, Response as Told,
    RoomName, RoomRequest, UserId,
};

/// What every request needs: shared by all of them.
pub(crate) struct Api {
    /// What is allowed, and the key.
    pub(crate) config: Config,
    /// Who is where.
    pub(crate) hub: Arc<Hub>,
    /// Decides who gets in.
    pub(crate) authenticator: Arc<Authenticator>,
    /// What backends ask of clients.
    pub(crate) inquiries: Arc<Inquiries>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
}

/// The routes of the backend listener.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    Router::new()
        .route("/v1/publish", post(publish))
        .route("/v1/users/{user}", get(user))
        .route("/v1/users/{user}/disconnect", post(disconnect))
        .route("/v1/users/{user}/join", post(join))
        .route("/v1/users/{user}/leave", post(leave))
        .route("/v1/rooms/{room}", get(room))
        .merge(identity::routes())
        .merge(inquiry::routes())
        .route_layer(middleware::from_fn_with_state(Arc::clone(&api), check_key))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ErrorCode::MethodNotAllowed,
                "this path has no such method; the header Allow lists its methods",
            )
        })
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is nothing here; the API is under /v1") })
        .with_state(api)
}

/// Lets through who has the key. The comparison takes as long whatever was guessed.
async fn check_key(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes().trim_ascii());
    let key = shown.and_then(|value| {
        let (scheme, key) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
    });
    match key {
        Some(key) if bool::from(key.ct_eq(api.config.api_key.reveal().as_bytes())) => next.run(request).await,
        Some(_) => unauthorized("the API key is wrong"),
        None => unauthorized("the header `Authorization: Bearer <API key>` is missing"),
    }
}

fn unauthorized(detail: &str) -> Response {
    Problem::new(ErrorCode::Unauthorized, detail).header(WWW_AUTHENTICATE, "Bearer").into_response()
}

/// `POST /v1/publish`: an event to rooms, users, connections or all.
async fn publish(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        reached: usize,
    }
    let body = api.body(request).await?;
    let publish = BackendPublish::parse(text(&body)?, api.bounds())?;
    let event =
        Event { to: &publish.to, except: &publish.except, name: &publish.event, from: None, data: publish.data };
    Ok(json(&Answer { reached: api.hub.publish(&event, None).await }))
}

/// `GET /v1/users/{user}`: the user's connections, and the rooms that each is in.
async fn user(State(api): State<Arc<Api>>, path: PathName) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        user: UserId,
        connections: Vec<Connection>,
    }
    #[derive(Serialize)]
    struct Connection {
        connection: ConnectionId,
        rooms: Vec<RoomName>,
    }
    let user: UserId = named("user", path)?;
    let connections = api.hub.connections_of(&user);
    let connections =
        connections.iter().map(|member| Connection { connection: member.id(), rooms: member.room_names() }).collect();
    Ok(json(&Answer { user, connections }))
}

/// `GET /v1/rooms/{room}`: the members of a room, as many as one answer lists, and how many there are;
/// and its users, if there are not too many.
async fn room(State(api): State<Arc<Api>>, path: PathName) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer<'a> {
        room: RoomName,
        total: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<Vec<PresentUser>>,
        members: Vec<Listed<'a>>,
    }
    #[derive(Serialize)]
    struct Listed<'a> {
        user: &'a UserId,
        connection: ConnectionId,
    }
    let room: RoomName = named("room", path)?;
    let max = api.config.limits.max_listed_members;
    let (total, members) = api.hub.members_of(&room, max);
    let users = api.hub.users_in(&room, max).members;
    let listed = members.iter().map(|member| Listed { user: member.user(), connection: member.id() }).collect();
    Ok(json(&Answer { room, total, users, members: listed }))
}

/// `POST /v1/users/{user}/disconnect`: ends all connections of a user.
async fn disconnect(State(api): State<Arc<Api>>, path: PathName) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        disconnected: usize,
    }
    let close = Close::new(CloseCode::Kicked, "disconnected by the backend");
    Ok(json(&Answer { disconnected: api.hub.close_user(&named("user", path)?, &close) }))
}

/// `POST /v1/users/{user}/join`: puts all connections of a user into a room.
async fn join(State(api): State<Arc<Api>>, path: PathName, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        joined: usize,
        refused: usize,
    }
    let (members, room) = api.user_and_room(path, request).await?;
    let told = Told::Joined { room: &room }.frame();
    let entry = || Entry { told: Some(told.clone()), placed: true, ..Entry::default() };
    let joined = members.iter().filter(|member| api.hub.join(member, &room, entry()).is_ok()).count();
    Ok(json(&Answer { joined, refused: members.len() - joined }))
}

/// `POST /v1/users/{user}/leave`: takes all connections of a user out of a room.
async fn leave(State(api): State<Arc<Api>>, path: PathName, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        left: usize,
    }
    let (members, room) = api.user_and_room(path, request).await?;
    let told = Told::Left { room: &room }.frame();
    let left = members.iter().filter(|member| api.hub.leave(member, &room, Some(told.clone()))).count();
    Ok(json(&Answer { left }))
}

/// `GET /ready`: whether the gateway can do its work: whether it has keys of every issuer. Keys that
/// cannot be fetched anew still serve for a while, and `problem` says so.
async fn ready(State(api): State<Arc<Api>>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        ready: bool,
        issuers: Vec<Keys>,
    }
    #[derive(Serialize)]
    struct Keys {
        issuer: String,
        keys: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        age_seconds: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    }
    let issuers = api.authenticator.verifier().keys_status().into_iter().map(|(issuer, status)| Keys {
        issuer,
        keys: status.keys,
        age_seconds: status.age.map(|age| age.as_secs()),
        problem: status.problem,
    });
    let issuers: Vec<Keys> = issuers.collect();
    let ready = issuers.iter().all(|issuer| issuer.keys > 0);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, json(&Answer { ready, issuers })).into_response()
}

/// `GET /metrics`: what is counted, as Prometheus reads it.
async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let (census, (revocations, _)) = (api.hub.census(), api.authenticator.revocations().list(0));
    let text = api.metrics.text(census.connections, census.rooms, revocations);
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

impl Api {
    fn bounds(&self) -> Bounds {
        Bounds { max_depth: self.config.limits.max_depth, max_targets: self.config.limits.max_targets }
    }

    /// Reads a body whole, within limits of size and time. What it says it is does not matter:
    /// `curl -d` calls everything a form.
    async fn body(&self, request: Request) -> Result<Vec<u8>, Problem> {
        let limits = &self.config.limits;
        let whole = Limited::new(request.into_body(), limits.max_body_bytes).collect();
        match self.config.clock.timeout(limits.body_timeout, whole).await {
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
    async fn user_and_room(&self, path: PathName, request: Request) -> Result<(Vec<Arc<Member>>, RoomName), Problem> {
        let user: UserId = named("user", path)?;
        let body = self.body(request).await?;
        let room = RoomRequest::parse(text(&body)?, self.bounds())?.room;
        if room.is_personal() {
            let why = "must not be a personal room: the gateway alone decides who is in it";
            return Err(Refusal::invalid("room", why).into());
        }
        Ok((self.hub.connections_of(&user), room))
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
