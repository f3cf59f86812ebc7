//! What operators do: have the configuration read again, and have the gateway drain; and see how it is.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::config::ApiAction;
use crate::protocol::{ErrorCode, Problem};

use super::key::Caller;
use super::openapi::needs;
use super::{Api, json};

/// Reads the configuration again, wherever it is, and goes on with it; or says in words what is wrong, and
/// then nothing has changed.
pub type Reread = Arc<dyn Fn() -> Result<Reloaded, String> + Send + Sync>;

/// What has changed since the configuration was last read, by the names of options and sections.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// What holds now. Keys in files are read again whether anything else has changed or not.
    pub changed: Vec<String>,
    /// What is as it was, and will be otherwise after a restart.
    pub needs_restart: Vec<String>,
}

pub(super) fn operations() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(needs(ApiAction::Operate, routes!(reload)))
        .routes(needs(ApiAction::Operate, routes!(drain)))
}

/// Reads the configuration file again, and the keys in files that it names. No connection is dropped.
#[utoipa::path(post, path = "/v1/reload", responses((status = 200, body = Reloaded)))]
async fn reload(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    caller.everything("the configuration, which concerns all rooms")?;
    let Some(reread) = api.reread.clone() else {
        return Err(Problem::new(ErrorCode::NotConfigured, "this gateway has no configuration to read again"));
    };
    // One after the other, and each on a thread only when its turn has come.
    let _turn = api.reloading.lock().await;
    // Files may be on a disk that takes its time.
    let read = tokio::task::spawn_blocking(move || reread()).await;
    match read.map_err(|error| error.to_string()).flatten() {
        Ok(reloaded) => Ok(json(&reloaded)),
        Err(why) => Err(Problem::new(ErrorCode::NotReloaded, format!("nothing has changed: {why}"))),
    }
}

#[derive(Serialize, ToSchema)]
struct Draining {
    /// How many connections there are still.
    connections: usize,
}

/// Has the gateway drain, as SIGTERM does: it takes no more clients, tells those that there are when to come
/// back, and ends once they have gone. `/health/ready` and `/metrics` tell how far it is.
#[utoipa::path(post, path = "/v1/drain", responses((status = 200, body = Draining)))]
async fn drain(State(api): State<Arc<Api>>, caller: Caller) -> Result<Response, Problem> {
    caller.everything("all clients")?;
    api.parts.drain.cancel();
    Ok(json(&Draining { connections: api.parts.hub.census().connections }))
}
