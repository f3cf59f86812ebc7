//! What backends decide about identities: tickets, revocations, blocks.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Map;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Details, Grants, Offer, Revocation, RevocationError, Subject, TicketError, profile};
use crate::config::ApiAction;
use crate::protocol::{BlockRequest, ErrorCode, Problem, Refusal, RevocationRequest, Revoked, TicketRequest, UserId};
use crate::revoke::revoke;

use super::body::{BlockBody, RevocationBody, TicketBody};
use super::key::Caller;
use super::openapi::needs;
use super::{Api, PathName, json, named, text};

/// For how many seconds a ticket can be used, if the backend does not say, and at most.
const TICKET_SECONDS: u64 = 30;
const MAX_TICKET_SECONDS: u64 = 300;
/// For how many seconds a connection may last that is made with a ticket, if the backend does not say.
const CONNECTION_SECONDS: u64 = 60 * 60;
/// The end of a connection must be a time that can be written: within a century.
const MAX_CONNECTION_SECONDS: u64 = 100 * 366 * 24 * 60 * 60;

/// The operations of this file, each with the action that the key must allow.
pub(super) fn operations() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(needs(ApiAction::Tickets, routes!(ticket)))
        .routes(needs(ApiAction::Revoke, routes!(add)))
        .routes(needs(ApiAction::Read, routes!(list)))
        .routes(needs(ApiAction::Read, routes!(one)))
        .routes(needs(ApiAction::Revoke, routes!(remove)))
        .routes(needs(ApiAction::Revoke, routes!(block)))
        .routes(needs(ApiAction::Revoke, routes!(unblock)))
}

#[derive(Serialize, ToSchema)]
struct MadeTicket {
    ticket: String,
    /// For how many seconds it can be used.
    valid_for: u64,
}

/// A ticket with which a user's page connects once.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    request_body = TicketBody,
    responses((status = 200, body = MadeTicket), (status = 503))
)]
async fn ticket(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    let body = api.body(request).await?;
    let wanted = TicketRequest::parse(text(&body)?, api.bounds())?;
    let grants = wanted.grants.map_or_else(|| Ok(Grants::default()), Grants::deserialize);
    let grants = grants.map_err(|error| Refusal::invalid("grants", &format!("cannot be: {}", in_short(&error))))?;
    caller.user(&wanted.user)?;
    // Else a key for few rooms could make a ticket for all of them.
    grants.patterns().try_for_each(|pattern| caller.pattern(pattern))?;
    if wanted.claims.is_some() {
        caller.everything("`claims`, by which rules may allow any room")?;
    }
    let details = details(&wanted)?;
    let valid_for = within("valid_for", wanted.valid_for, TICKET_SECONDS, MAX_TICKET_SECONDS)?;
    let expires_in = within("expires_in", wanted.expires_in, CONNECTION_SECONDS, MAX_CONNECTION_SECONDS)?;
    let made = api.parts.authenticator.tickets().make(Offer {
        user: wanted.user,
        grants,
        details,
        session: wanted.session,
        origin: wanted.origin,
        valid_for: Duration::from_secs(valid_for),
        expires_in: Duration::from_secs(expires_in),
    });
    match made {
        Ok(ticket) => Ok(json(&MadeTicket { ticket, valid_for })),
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
    Ok(Some(Box::new(Details { claims: Arc::new(claims), profile, guest: None })))
}

#[derive(Serialize, ToSchema)]
struct KeptRevocation {
    #[serde(flatten)]
    revocation: Revocation,
    /// Whether it is on the disk, and so outlives the gateway.
    kept: bool,
}

/// Revokes a token, a session, or a user's older tokens.
#[utoipa::path(
    post,
    path = "/v1/revocations",
    operation_id = "add_revocation",
    request_body = RevocationBody,
    responses((status = 200, body = KeptRevocation), (status = 503))
)]
async fn add(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Result<Response, Problem> {
    let body = api.body(request).await?;
    let RevocationRequest { what, until } = RevocationRequest::parse(text(&body)?, api.bounds())?;
    let now = api.parts.clock.unix();
    let subject = match what {
        Revoked::Token { jti, issuer } => Subject::Token { jti, issuer },
        Revoked::Session { sid, issuer } => Subject::Session { sid, issuer },
        Revoked::User { user, issued_before } => {
            Subject::User { user, issued_before: issued_before.map_or(now.as_secs_f64(), |time| time as f64) }
        }
    };
    caller.subject(&subject)?;
    api.revoke(subject, until).await
}

#[derive(Serialize, ToSchema)]
struct Revocations {
    /// How many there are.
    total: usize,
    /// Whether they are on the disk.
    kept: bool,
    /// The newest first, as many as one answer lists.
    revocations: Vec<Revocation>,
}

/// The newest revocations, as many as one answer lists, and how many there are.
#[utoipa::path(
    get,
    path = "/v1/revocations",
    operation_id = "list_revocations",
    responses((status = 200, body = Revocations))
)]
async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    caller.everything("the list of revocations")?;
    let revocations = api.parts.authenticator.revocations();
    let (total, listed) = revocations.list(api.parts.limits.get().max_listed_members);
    Ok(json(&Revocations { total, kept: revocations.are_kept(), revocations: listed }))
}

/// A revocation.
#[utoipa::path(
    get,
    path = "/v1/revocations/{id}",
    operation_id = "get_revocation",
    responses((status = 200, body = KeptRevocation), (status = 404))
)]
async fn one(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let revocation = api.revocation(&caller, path)?;
    Ok(json(&KeptRevocation { revocation, kept: api.parts.authenticator.revocations().are_kept() }))
}

#[derive(Serialize, ToSchema)]
struct Removed {
    /// The revocation's id.
    removed: u64,
}

/// Takes a revocation off the list. What it has ended stays ended.
#[utoipa::path(
    delete,
    path = "/v1/revocations/{id}",
    operation_id = "remove_revocation",
    responses((status = 200, body = Removed), (status = 404), (status = 503))
)]
async fn remove(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let id = api.revocation(&caller, path)?.id;
    match api.parts.authenticator.revocations().remove_one(id).await {
        Ok(true) => Ok(json(&Removed { removed: id })),
        Ok(false) => Err(no_such_revocation()),
        Err(error) => Err(not_done(&error)),
    }
}

/// Ends a user's connections, and lets the user in no more.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/block",
    request_body = Option<BlockBody>,
    responses((status = 200, body = KeptRevocation), (status = 503))
)]
async fn block(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: PathName,
    request: Request,
) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    caller.user(&user)?;
    let body = api.body(request).await?;
    let until = BlockRequest::parse(text(&body)?, api.bounds())?.until;
    api.revoke(Subject::Block { blocked: user }, until).await
}

#[derive(Serialize, ToSchema)]
struct Unblocked {
    /// Whether the user was blocked.
    unblocked: bool,
}

/// Lets a user in again.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/unblock",
    responses((status = 200, body = Unblocked), (status = 503))
)]
async fn unblock(State(api): State<Arc<Api>>, caller: Caller, path: PathName) -> Result<Response, Problem> {
    let user: UserId = named("user", path)?;
    caller.user(&user)?;
    let unblocked = api.parts.authenticator.revocations().unblock(&user).await.map_err(|error| not_done(&error))?;
    Ok(json(&Unblocked { unblocked }))
}

impl Api {
    /// The revocation in the path, if the key reaches it.
    fn revocation(&self, caller: &Caller, path: PathName) -> Result<Revocation, Problem> {
        let id = path.ok().and_then(|id| id.parse().ok());
        let found = id.and_then(|id| self.parts.authenticator.revocations().get(id)).ok_or_else(no_such_revocation)?;
        caller.subject(&found.subject).map(|()| found)
    }

    async fn revoke(&self, subject: Subject, until: Option<u64>) -> Result<Response, Problem> {
        if until.is_some_and(|until| until <= self.parts.clock.unix().as_secs()) {
            return Err(Refusal::invalid("until", "must be in the future").into());
        }
        match revoke(&self.parts.authenticator, &self.parts.hub, subject, until).await {
            Ok(revocation) => {
                let kept = self.parts.authenticator.revocations().are_kept();
                Ok(json(&KeptRevocation { revocation, kept }))
            }
            Err(error) => Err(not_done(&error)),
        }
    }
}

impl Caller {
    /// Whether the key reaches what is revoked: a token or a session may be anybody's.
    fn subject(&self, subject: &Subject) -> Result<(), Problem> {
        match subject {
            Subject::User { user, .. } | Subject::Block { blocked: user } => self.user(user),
            Subject::Token { .. } => self.everything("tokens by their `jti`"),
            Subject::Session { .. } => self.everything("sessions by their `sid`"),
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
