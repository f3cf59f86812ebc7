//! `POST /backchannel-logout`: an issuer says that a login has ended (OpenID Connect Back-Channel
//! Logout 1.0, 2.5). It is at the public door because issuers are outside; the signature decides.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};

use crate::auth::Reason;
use crate::revoke::revoke;

use super::credential::Visitor;
use super::{Door, peer};

/// What a form may have beside its token.
const FORM_BYTES: usize = 1024;

pub(super) async fn backchannel(State(door): State<Arc<Door>>, request: Request) -> Response {
    let visitor = Visitor::of(request.headers(), peer(&request), &door.admission.load().trusted_proxies);
    if let Err(problem) = door.check_attempts(&visitor) {
        return problem.into_response();
    }
    let body = Limited::new(request.into_body(), door.parts.limits.get().max_token_bytes + FORM_BYTES).collect().await;
    let Ok(body) = body.map(http_body_util::Collected::to_bytes) else {
        return refused("the body is too long or not whole");
    };
    let mut tokens = form_urlencoded::parse(&body).filter(|(name, _)| name == "logout_token").map(|(_, token)| token);
    let (Some(token), None) = (tokens.next(), tokens.next()) else { return refused("there must be one logout_token") };
    let subject = match door.parts.authenticator.verifier().verify_logout(&token).await {
        Ok(subject) => subject,
        Err(error) => {
            let close = door.refuse(&error, Some(&visitor));
            if error.reason == Reason::KeysUnavailable {
                return (StatusCode::SERVICE_UNAVAILABLE, close.reason.into_owned()).into_response();
            }
            return refused(&close.reason);
        }
    };
    match revoke(&door.parts.authenticator, &door.parts.hub, subject, None).await {
        Ok(_) => (StatusCode::OK, [(CACHE_CONTROL, "no-store")]).into_response(),
        Err(error) => {
            tracing::error!(%error, "a logout could not be stored");
            (StatusCode::SERVICE_UNAVAILABLE, [(CACHE_CONTROL, "no-store")]).into_response()
        }
    }
}

/// An answer in the form that the specification asks for (2.8).
fn refused(why: &str) -> Response {
    let body = serde_json::json!({"error": "invalid_request", "error_description": why}).to_string();
    let headers = [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "application/json")];
    (StatusCode::BAD_REQUEST, headers, body).into_response()
}
