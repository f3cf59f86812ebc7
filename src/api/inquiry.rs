//! What backends ask of clients.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;

use crate::hub::Member;
use crate::inquiry::AskError;
use crate::protocol::{Asked, ErrorCode, InquiryRequest, Problem, Refusal};

use super::{Api, json, text};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new().route("/v1/request", post(request))
}

/// `POST /v1/request`: an event to the connections of a user, or one connection, and their answers.
async fn request(State(api): State<Arc<Api>>, request: Request) -> Result<Response, Problem> {
    let body = api.body(request).await?;
    let InquiryRequest { to, event, data, timeout, wait } = InquiryRequest::parse(text(&body)?, api.bounds())?;
    let members = api.asked(&to)?;
    let asking = api.inquiries.ask(members, &event, data, wait).map_err(|error| not_asked(&error))?;
    let _in_time_or_not = api.config.clock.timeout(timeout, asking.done()).await;
    Ok(json(&asking.answers()))
}

impl Api {
    /// The connections that are asked.
    fn asked(&self, to: &Asked) -> Result<Vec<Arc<Member>>, Problem> {
        let members = match to {
            Asked::User(user) => self.hub.connections_of(user),
            Asked::Connection(id) => self.hub.connection(*id).into_iter().collect(),
        };
        let max = self.config.limits.max_listed_members;
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
