//! Who may do what in rooms: backends have connections look again, and have decisions explained.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Credential, Identity, Permission, Ruling, TokenError};
use crate::config::ApiAction;
use crate::errand::RECHECK;
use crate::protocol::{ConnectionId, ErrorCode, Problem, Refusal, RoomName, UserId};

use super::key::Caller;
use super::openapi::needs;
use super::{Api, PathName, json, named};

/// For how long a connection is given to say what it may do. It answers at once, or has gone.
const ANSWER_TIME: Duration = Duration::from_secs(1);

pub(super) fn operations() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(needs(ApiAction::Move, routes!(recheck)))
        .routes(needs(ApiAction::Read, routes!(explain)))
}

#[derive(Serialize, ToSchema)]
struct Rechecked {
    /// How many connections look again.
    connections: usize,
}

/// Has all connections of a user look again whether they may be in the rooms that they have joined.
#[utoipa::path(post, path = "/v1/users/{user}/recheck", responses((status = 200, body = Rechecked)))]
async fn recheck(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    caller.user(&user)?;
    api.parts.backend.forget(&user);
    let members = api.parts.hub.connections_of(&user);
    members.iter().for_each(|member| member.notify(RECHECK));
    Ok(json(&Rechecked { connections: members.len() }))
}

/// What is to be explained.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Asked {
    /// Who; each live connection of the user is looked at.
    #[param(value_type = UserId)]
    user: Option<String>,
    /// Who, by a token; in place of `user`.
    token: Option<String>,
    #[param(value_type = RoomName)]
    room: String,
    #[param(value_type = Permission)]
    action: String,
}

/// How it is decided whether something may be done in a room.
#[derive(Serialize, ToSchema)]
struct Explained {
    user: UserId,
    room: RoomName,
    action: Permission,
    explanations: Vec<Explanation>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RoomExplanation)]
struct Explanation {
    /// By what it was decided: a live `connection`, a `token`, or the name of the `user` alone.
    by: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionId>,
    #[serde(flatten)]
    ruling: Ruling,
}

/// Whether a user may do something in a room, and why.
#[utoipa::path(get, path = "/v1/explain", params(Asked), responses((status = 200, body = Explained), (status = 400)))]
async fn explain(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(asked) = query.map_err(|error| Problem::new(ErrorCode::InvalidField, error.body_text()))?;
    let invalid = |field: &'static str| move |why: String| Refusal::invalid(field, &why);
    let room: RoomName = asked.room.parse().map_err(invalid("room"))?;
    let action: Permission =
        asked.action.parse().map_err(|_| Refusal::invalid("action", "must be join, publish or members"))?;
    caller.room(&room)?;
    let (user, explanations) = match (asked.user, asked.token) {
        (Some(user), None) => {
            let user: UserId = user.parse().map_err(invalid("user"))?;
            caller.user(&user)?;
            let explanations = api.explain_user(&user, action, &room).await;
            (user, explanations)
        }
        (None, Some(token)) => {
            let identity = api.parts.authenticator.authenticate(&Credential::Token(token.into()), None).await;
            let refused = |error: TokenError| Refusal::invalid("token", &format!("is refused: {}", error.detail));
            let identity = identity.map_err(refused)?;
            caller.user(&identity.user)?;
            let ruling = api.parts.rules.load().explain(&identity, action, &room);
            (identity.user, vec![Explanation { by: "token", connection: None, ruling }])
        }
        _ => return Err(Refusal::invalid("user", "or `token` is needed, and not both").into()),
    };
    Ok(json(&Explained { user, room, action, explanations }))
}

impl Api {
    /// What each connection of a user may do; if there is none, what the name alone allows.
    async fn explain_user(&self, user: &UserId, action: Permission, room: &RoomName) -> Vec<Explanation> {
        let mut explanations = Vec::new();
        for member in self.parts.hub.connections_of(user).iter().take(self.parts.limits.get().max_listed_members) {
            let asking = self.parts.errands.ask(member, action, room.clone());
            // Nothing is said by one that has gone.
            if let Some(Some(ruling)) = self.parts.clock.timeout(ANSWER_TIME, asking).await {
                explanations.push(Explanation { by: "connection", connection: Some(member.id()), ruling });
            }
        }
        if explanations.is_empty() {
            let ruling = self.parts.rules.load().explain(&Identity::of(user.clone()), action, room);
            explanations.push(Explanation { by: "user", connection: None, ruling });
        }
        explanations
    }
}
