//! Events from backends, one or many.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::hub::{Event, Expiry};
use crate::protocol::{BackendPublish, Batch, Problem, Refusal};
use crate::trace::Trace;

use super::body::{BatchBody, PublishBody};
use super::idempotency::Attempt;
use super::key::Caller;
use super::{Api, json, text};

/// What has come of an event.
#[derive(Serialize, ToSchema)]
pub(super) struct Published {
    /// How many connections it was handed to.
    reached: usize,
    /// Whether it had been published before under its key: then `reached` is what was answered then.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// An event to rooms, users, connections or all.
#[utoipa::path(
    post,
    path = "/v1/publish",
    request_body = PublishBody,
    responses((status = 200, body = Published), (status = 409), (status = 503))
)]
pub(super) async fn publish(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Response {
    let answer = async |request, trace: Trace| {
        let body = api.body(request).await?;
        let written = text(&body)?;
        let publish = BackendPublish::parse(written, api.bounds())?;
        Ok(json(&api.publish(&caller, &publish, written, &trace).await?))
    };
    api.traced("POST /v1/publish", request, answer).await
}

/// What has come of several events, in their order.
#[derive(Serialize, ToSchema)]
struct Results {
    results: Vec<Outcome>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = BatchResult)]
enum Outcome {
    Published(Published),
    Refused { error: Fault },
}

/// Why an event of several was not published.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchError)]
struct Fault {
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    message: String,
}

/// Several events, one after the other, each on its own.
#[utoipa::path(post, path = "/v1/batch", request_body = BatchBody, responses((status = 200, body = Results)))]
pub(super) async fn batch(State(api): State<Arc<Api>>, caller: Caller, request: Request) -> Response {
    let answer = async |request, trace: Trace| {
        let body = api.body(request).await?;
        let mut results = Vec::new();
        for (written, publish) in Batch::parse(text(&body)?, api.bounds())?.0 {
            let outcome = api.publish(&caller, &publish, written, &trace).await.map_err(Problem::into_refusal);
            results.push(outcome.map_or_else(Outcome::refused, Outcome::Published));
        }
        Ok(json(&Results { results }))
    };
    api.traced("POST /v1/batch", request, answer).await
}

impl Outcome {
    fn refused(refusal: Refusal) -> Self {
        let (code, field) = (refusal.code.as_str(), refusal.field.map(Into::into));
        Self::Refused { error: Fault { code, field, message: refusal.message } }
    }
}

impl Api {
    /// Publishes an event, unless it has been already. `written` is the event as it came.
    async fn publish(
        &self,
        caller: &Caller,
        publish: &BackendPublish<'_>,
        written: &str,
        trace: &Trace,
    ) -> Result<Published, Problem> {
        caller.target(&publish.to)?;
        let attempt = match &publish.idempotency_key {
            Some(key) => match self.idempotency.begin(caller.name(), key, written).await? {
                Attempt::First(turn) => Some(turn),
                Attempt::Again(reached) => return Ok(Published { reached, duplicate: true }),
            },
            None => None,
        };
        let expires = publish.ttl.map(|ttl| Expiry::after(&self.parts.clock, ttl));
        let event = Event {
            to: &publish.to,
            except: &publish.except,
            name: &publish.event,
            from: None,
            data: publish.data,
            expires: expires.as_ref(),
        };
        let reached = self.parts.hub.publish(&event, None).traced(trace.clone()).await;
        if let Some(turn) = attempt {
            turn.done(reached);
        }
        Ok(Published { reached, duplicate: false })
    }
}
