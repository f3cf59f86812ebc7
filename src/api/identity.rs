//! What backends decide about identities: tickets, revocations, blocks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::auth::{Details, Grants, Offer, Revocation, RevocationError, Subject, TicketError, profile};
use crate::protocol::{BlockRequest, ErrorCode, Problem, Refusal, RevocationRequest, Revoked, TicketRequest, UserId};
use crate::revoke::revoke;

use super::{Api, PathName, json, named, text};

/// For how many seconds a ticket can be used, if the backend does not say, and at most.
const TICKET_SECONDS: u64 = 30;
const MAX_TICKET_SECONDS: u64 = 300;
/// For how many seconds a connection may last that is made with a ticket, if the backend does not say.
const CONNECTION_SECONDS: u64 = 60 * 60;
/// The end of a connection must be a time that can be written: within a century.
const MAX_CONNECTION_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/tickets", post(ticket))
        .route("/v1/revocations", post(add).get(list))
        .route("/v1/revocations/{id}", delete(remove).merge(get(one)))
        .route("/v1/users/{user}/block", post(block))
        .route("/v1/users/{user}/unblock", post(unblock))
}

/// `POST /v1/tickets`: a ticket with which a user's page connects once.
async fn ticket(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        ticket: String,
        valid_for: u64,
    }
    let body = api.body(request).await?;
    let wanted = TicketRequest::parse(text(&body)?, api.bounds())?;
    let grants = wanted.grants.map_or_else(|| Ok(Grants::default()), Grants::deserialize);
    let grants = grants.map_err(|error| Refusal::invalid("grants", &format!("cannot be: {}", in_short(&error))))?;
    let details = details(&wanted)?;
    let valid_for = within("valid_for", wanted.valid_for, TICKET_SECONDS, MAX_TICKET_SECONDS)?;
    let expires_in = within("expires_in", wanted.expires_in, CONNECTION_SECONDS, MAX_CONNECTION_SECONDS)?;
    let made = api.authenticator.tickets().make(Offer {
        user: wanted.user,
        grants,
        details,
        session: wanted.session,
        origin: wanted.origin,
        valid_for: Duration::from_secs(valid_for),
        expires_in: Duration::from_secs(expires_in),
    });
    match made {
        Ok(ticket) => Ok(json(&Answer { ticket, valid_for })),
        Err(error @ TicketError::TooMany(_)) => Err(Problem::new(ErrorCode::Full, error.to_string())),
        Err(error @ TicketError::Reserved) => Err(Refusal::invalid("user", &error.to_string()).into()),
        Err(error @ TicketError::Random(_)) => {
            tracing::error!(%error, "no ticket could be made");
            Err(Problem::new(ErrorCode::NotStored, "no ticket could be made"))
        }
    }
}

/// What a ticket says beside the grants.
fn details(wanted: &TicketRequest<'_>) -> Result<Option<Box<Details>>, Problem> {
    if wanted.claims.is_none() && wanted.profile.is_none() {
        return Ok(None);
    }
    let claims = wanted.claims.map_or_else(|| Ok(Map::new()), Map::deserialize);
    let claims = claims.map_err(|_| Refusal::invalid("claims", "must be an object"))?;
    let profile = wanted.profile.map(profile).transpose().map_err(|why| Refusal::invalid("profile", &why))?;
    Ok(Some(Box::new(Details { claims: Arc::new(claims), profile })))
}

/// A revocation, and whether it is kept when the gateway ends.
#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    revocation: Revocation,
    kept: bool,
}

/// `POST /v1/revocations`: revokes a token, a session, or a user's older tokens.
async fn add(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let body = api.body(request).await?;
    let RevocationRequest { what, until } = RevocationRequest::parse(text(&body)?, api.bounds())?;
    let now = api.config.clock.unix();
    let subject = match what {
        Revoked::Token { jti, issuer } => Subject::Token { jti, issuer },
        Revoked::Session { sid, issuer } => Subject::Session { sid, issuer },
        Revoked::User { user, issued_before } => {
            Subject::User { user, issued_before: issued_before.map_or(now.as_secs_f64(), |time| time as f64) }
        }
    };
    api.revoke(subject, until).await
}

/// `GET /v1/revocations`: the newest, as many as one answer lists, and how many there are.
async fn list(State(api): State<Arc<Api>>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        total: usize,
        kept: bool,
        revocations: Vec<Revocation>,
    }
    let revocations = api.authenticator.revocations();
    let (total, listed) = revocations.list(api.config.limits.max_listed_members);
    json(&Answer { total, kept: revocations.are_kept(), revocations: listed })
}

/// `GET /v1/revocations/{id}`: one of them.
async fn one(State(api): State<Arc<Api>>, id: Path<String>) -> Result<Response, Problem> {
    let revocations = api.authenticator.revocations();
    let found = id.parse().ok().and_then(|id| revocations.get(id)).ok_or_else(no_such_revocation)?;
    Ok(json(&Answer { revocation: found, kept: revocations.are_kept() }))
}

/// `DELETE /v1/revocations/{id}`: takes one off the list. What it has ended stays ended.
async fn remove(State(api): State<Arc<Api>>, id: Path<String>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        removed: u64,
    }
    let id: u64 = id.parse().map_err(|_| no_such_revocation())?;
    match api.authenticator.revocations().remove_one(id).await {
        Ok(true) => Ok(json(&Answer { removed: id })),
        Ok(false) => Err(no_such_revocation()),
        Err(error) => Err(not_done(&error)),
    }
}

/// `POST /v1/users/{user}/block`: ends a user's connections, and lets the user in no more.
async fn block(State(api): State<Arc<Api>>, path: PathName, request: Request) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    let body = api.body(request).await?;
    let until = BlockRequest::parse(text(&body)?, api.bounds())?.until;
    api.revoke(Subject::Block { blocked: user }, until).await
}

/// `POST /v1/users/{user}/unblock`: lets a user in again.
async fn unblock(State(api): State<Arc<Api>>, path: PathName) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Answer {
        unblocked: bool,
    }
    let user: UserId = named("user", path)?;
    let unblocked = api.authenticator.revocations().unblock(&user).await.map_err(|error| not_done(&error))?;
    Ok(json(&Answer { unblocked }))
}

impl Api {
    async fn revoke(&self, subject: Subject, until: Option<u64>) -> Result<Response, Problem> {
        if until.is_some_and(|until| until <= self.config.clock.unix().as_secs()) {
            return Err(Refusal::invalid("until", "must be in the future").into());
        }
        match revoke(&self.authenticator, &self.hub, subject, until).await {
            Ok(revocation) => {
                let kept = self.authenticator.revocations().are_kept();
                Ok(json(&Answer { revocation, kept }))
            }
            Err(error) => Err(not_done(&error)),
        }
    }
}

fn within(field: &'static str, seconds: Option<u64>, usual: u64, most: u64) -> Result<u64, Problem> {
    match seconds.unwrap_or(usual) {
        seconds if (1..=most).contains(&seconds) => Ok(seconds),
        _ => Err(Refusal::invalid(field, &format!("must be between 1 and {most} seconds")).into()),
    }
}

fn no_such_revocation() -> Problem {
    Problem::new(ErrorCode::NotFound, "there is no such revocation: it was removed, has lapsed, or never was")
}

fn not_done(error: &RevocationError) -> Problem {
    match error {
        RevocationError::TooMany(_) => Problem::new(ErrorCode::Full, error.to_string()),
        RevocationError::Store(_) => {
            tracing::error!(%error, "revocations could not be stored");
            Problem::new(ErrorCode::NotStored, "it could not be stored, and has not been done")
        }
    }
}

/// serde_json's words without the position, which counts within the field.
fn in_short(error: &serde_json::Error) -> String {
    error.to_string().split(" at line ").next().unwrap_or_default().chars().take(100).collect()
}
