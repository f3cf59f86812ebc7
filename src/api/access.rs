//! Who may do what in rooms: backends have connections look again, and have decisions explained.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use crate::auth::{Credential, Identity, Permission, Ruling};
use crate::errand::RECHECK;
use crate::protocol::{ConnectionId, ErrorCode, Problem, Refusal, RoomName, UserId};

use super::{Api, PathName, json, named};

/// For how long a connection is given to say what it may do. It answers at once, or has gone.
const ANSWER_TIME: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/v1/users/{user}/recheck", post(recheck)).route("/v1/explain", get(explain))
}

/// `POST /v1/users/{user}/recheck`: has all connections of a user look again whether they may be in the
/// rooms that they have joined.
async fn recheck(State(api): State<Arc<Api>>, path: PathName) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        connections: usize,
    }
    let user: UserId = named("user", path)?;
    let members = api.hub.connections_of(&user);
    members.iter().for_each(|member| member.notify(RECHECK));
    Ok(json(&Answer { connections: members.len() }))
}

/// What is to be explained.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    user: Option<String>,
    token: Option<String>,
    room: String,
    action: String,
}

/// Why something may be done in a room, or not.
#[derive(Serialize)]
struct Explained {
    /// By what it was decided: a live connection, a token, or the user's name alone.
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionId>,
    #[serde(flatten)]
    ruling: Ruling,
}

/// `GET /v1/explain`: whether a user may do something in a room, and why.
async fn explain(
    State(api): State<Arc<Api>>,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        user: UserId,
        room: RoomName,
        action: Permission,
        explanations: Vec<Explained>,
    }
    let Query(asked) = query.map_err(|error| Problem::new(ErrorCode::InvalidField, error.body_text()))?;
    let invalid = |field: &'static str| move |why: String| Refusal::invalid(field, &why);
    let room: RoomName = asked.room.parse().map_err(invalid("room"))?;
    let action: Permission =
        asked.action.parse().map_err(|_| Refusal::invalid("action", "must be join, publish or members"))?;
    let (user, explanations) = match (asked.user, asked.token) {
        (Some(user), None) => {
            let user: UserId = user.parse().map_err(invalid("user"))?;
            let explanations = api.explain_user(&user, action, &room).await;
            (user, explanations)
        }
        (None, Some(token)) => {
            let identity = api.authenticator.authenticate(&Credential::Token(token.into()), None).await;
            let identity =
                identity.map_err(|error| Refusal::invalid("token", &format!("is refused: {}", error.detail)))?;
            let ruling = api.rules.explain(&identity, action, &room);
            (identity.user, vec![Explained { by: "token", connection: None, ruling }])
        }
        _ => return Err(Refusal::invalid("user", "or `token` is needed, and not both").into()),
    };
    Ok(json(&Answer { user, room, action, explanations }))
}

impl Api {
    /// What each connection of a user may do; if there is none, what the name alone allows.
    async fn explain_user(&self, user: &UserId, action: Permission, room: &RoomName) -> Vec<Explained> {
        let mut explanations = Vec::new();
        for member in self.hub.connections_of(user).iter().take(self.config.limits.max_listed_members) {
            let asking = self.errands.ask(member, action, room.clone());
            match self.config.clock.timeout(ANSWER_TIME, asking).await {
                Some(Some(ruling)) => {
                    explanations.push(Explained { by: "connection", connection: Some(member.id()), ruling });
                }
                // It has gone.
                Some(None) | None => drop(self.errands.take(member.id())),
            }
        }
        if explanations.is_empty() {
            let ruling = self.rules.explain(&Identity::of(user.clone()), action, room);
            explanations.push(Explained { by: "user", connection: None, ruling });
        }
        explanations
    }
}
