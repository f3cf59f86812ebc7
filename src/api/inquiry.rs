//! What backends ask of clients.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::hub::Member;
use crate::inquiry::{Answers, AskError};
use crate::protocol::{Asked, ErrorCode, InquiryRequest, Problem, Refusal};
use crate::trace::Trace;

use super::body::InquiryBody;
use super::key::Caller;
use super::{Api, json, text};

/// An event to the connections of a user, or to one connection, and their answers.
#[utoipa::path(
    post,
    path = "/v1/request",
    request_body = InquiryBody,
    responses((status = 200, body = Answers), (status = 503))
)]
pub(super) async fn request(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Response {
    let answer = async |request, trace: Trace| {
        let body = api.body(request).await?;
        let InquiryRequest { to, event, data, timeout, wait } = InquiryRequest::parse(text(&body)?, api.bounds())?;
        match &to {
            Asked::User(user) => caller.user(user)?,
            Asked::Connection(_) => caller.everything("connections by their ids")?,
        }
        let members = api.asked(&to)?;
        let asking = api.parts.inquiries.ask(members, &event, data, wait, &trace).map_err(|error| not_asked(&error))?;
        let _in_time_or_not = api.parts.clock.timeout(timeout, asking.done()).await;
        Ok(json(&asking.answers()))
    };
    api.traced("POST /v1/request", request, answer).await
}

impl Api {
    /// The connections that are asked.
    fn asked(&self, to: &Asked) -> Result<Vec<Arc<Member>>, Problem> {
        let members = match to {
            Asked::User(user) => self.parts.hub.connections_of(user),
            Asked::Connection(id) => self.parts.hub.connection(*id).into_iter().collect(),
        };
        let max = self.parts.limits.get().max_listed_members;
        if members.len() > max {
            return Err(Refusal::invalid("to", &format!("stands for more than {max} connections")).into());
        }
        Ok(members)
    }
}

fn not_asked(error: &AskError) -> Problem {
    match error {
        AskError::TooMany => Problem::new(ErrorCode::Full, error.to_string()),
        AskError::Random(_) => {
            tracing::error!(%error, "nobody could be asked");
            Problem::new(ErrorCode::Full, error.to_string())
        }
    }
}
