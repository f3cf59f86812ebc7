//! stub
#![allow(missing_docs)]
use crate::protocol::{ConnectionId, EventName, RoomName, UserId};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use std::sync::Arc;
#[derive(Clone, Debug)]
pub struct Who {
    pub user: UserId,
    pub connection: ConnectionId,
    pub claims: Arc<Map<String, Value>>,
}
#[derive(Clone, Copy, Debug)]
pub enum Action {
    Join,
    Publish,
    Members,
}
#[derive(Debug)]
pub struct Verdict {
    pub allowed: bool,
    pub temporary: bool,
    pub reason: Option<String>,
    pub data: Option<Box<RawValue>>,
}
impl Verdict {
    pub fn is_temporary(&self) -> bool {
        self.temporary
    }
}
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("x")]
    NotConfigured,
    #[error("x")]
    Timeout,
    #[error("x")]
    Overloaded,
    #[error("x")]
    Unreachable,
    #[error("x")]
    Busy,
    #[error("x")]
    Failed(String),
    #[error("x")]
    Refused { status: u16, data: Option<Box<RawValue>> },
}
#[derive(Default)]
pub struct Backend;
impl Backend {
    pub async fn may(&self, _who: &Who, _room: &RoomName, _action: Action) -> Verdict {
        Verdict { allowed: false, temporary: true, reason: None, data: None }
    }
    pub async fn call(&self, _who: &Who, _event: &EventName, _data: &RawValue) -> Result<Box<RawValue>, CallError> {
        Err(CallError::NotConfigured)
    }
}
