//! The bodies of requests as the OpenAPI document describes them. `protocol` reads them, field by
//! field; `scripts/test-openapi` sends what is described here, and what is not, and compares.
//!
//! A field is an `Option` if it may be missing. No field may be `null`, but for `data`.

#![expect(dead_code, reason = "these describe; nothing is ever made of them")]

use std::collections::BTreeMap;

use serde_json::Value;
use utoipa::ToSchema;

use crate::auth::Permission;
use crate::protocol::{ConnectionId, EventName, Pattern, RoomName, UserId};

/// An event, and whom it is for.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PublishBody {
    to: TargetBody,
    except: Option<TargetBody>,
    event: EventName,
    /// Any JSON, passed on byte for byte; `null`, if it is missing.
    data: Option<Value>,
    /// For how many seconds it is worth to be sent; for as long as the connection lasts, if it is missing.
    #[schema(exclusive_minimum = 0, maximum = 300)]
    ttl: Option<f64>,
    /// What is published twice under the same key within 5 minutes is published once.
    #[schema(min_length = 1, max_length = 128)]
    idempotency_key: Option<String>,
}

/// Events, each as in a request of its own.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BatchBody {
    /// What is malformed in one of them is the fault of the whole: then nothing is done.
    #[schema(min_items = 1, max_items = 100)]
    publishes: Vec<PublishBody>,
}

/// Rooms, users and connections: what the fields name adds up, and each connection counts once.
#[derive(ToSchema)]
#[schema(as = Target, min_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetBody {
    room: Option<RoomName>,
    rooms: Option<Vec<RoomName>>,
    user: Option<UserId>,
    users: Option<Vec<UserId>>,
    connection: Option<ConnectionId>,
    connections: Option<Vec<ConnectionId>>,
    pattern: Option<Pattern>,
    /// The members of all rooms whose names are of these. Personal rooms are meant only by a pattern
    /// that begins with `user:`.
    patterns: Option<Vec<Pattern>>,
    /// Every connection there is.
    all: Option<bool>,
}

/// A room; no personal one, since the gateway alone decides who is in those.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RoomBody {
    #[schema(pattern = r"^(?!user:)[^\u0000-\u001f\u007f-\u009f]+$", min_length = 1, max_length = 255)]
    room: String,
}

/// An event that clients answer.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InquiryBody {
    to: AskedBody,
    event: EventName,
    /// Any JSON, passed on byte for byte; `null`, if it is missing.
    data: Option<Value>,
    /// For how many seconds to wait; 5, if it is missing.
    #[schema(exclusive_minimum = 0, maximum = 60)]
    timeout: Option<f64>,
    wait: Option<WaitBody>,
}

/// Whose answers to wait for; all, if it is missing.
#[derive(ToSchema)]
#[schema(as = Wait)]
#[serde(rename_all = "lowercase")]
pub(super) enum WaitBody {
    All,
    First,
}

/// Who is asked: all connections of a user, or one connection.
#[derive(ToSchema)]
#[schema(as = Asked, min_properties = 1, max_properties = 1)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedBody {
    user: Option<UserId>,
    connection: Option<ConnectionId>,
}

/// For whom a ticket is, and what the connection may do that is made with it.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TicketBody {
    /// Not one that begins with `anonymous:`.
    user: UserId,
    grants: Option<BTreeMap<Pattern, Vec<Permission>>>,
    /// What is known of the user, as the claims of a token.
    claims: Option<BTreeMap<String, Value>>,
    /// What others in the same rooms may see of the user: any JSON of at most 2048 bytes.
    profile: Option<Value>,
    /// By which the connection can be revoked, as a `sid`.
    #[schema(min_length = 1, max_length = 512)]
    session: Option<String>,
    /// The origin of the page that may use it; any, if it is missing.
    #[schema(min_length = 1, max_length = 512)]
    origin: Option<String>,
    /// For how many seconds it can be used; 30, if it is missing.
    #[schema(minimum = 1, maximum = 300)]
    valid_for: Option<u64>,
    /// For how many seconds the connection may last; 3600, if it is missing.
    #[schema(minimum = 1, maximum = 3_162_240_000u64)]
    expires_in: Option<u64>,
}

/// What is to be revoked: a token, the tokens of a login, or a user's older tokens.
#[derive(ToSchema)]
#[serde(untagged)]
pub(super) enum RevocationBody {
    Token(TokenBody),
    Session(SessionBody),
    User(UserBody),
}

/// One token.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    #[schema(min_length = 1, max_length = 512)]
    jti: String,
    /// Its issuer; any, if it is missing.
    #[schema(min_length = 1, max_length = 512)]
    issuer: Option<String>,
    /// When the revocation lapses, in Unix seconds: a time in the future.
    #[schema(minimum = 0, maximum = 253_402_300_799u64)]
    until: Option<u64>,
}

/// All tokens of one login.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionBody {
    #[schema(min_length = 1, max_length = 512)]
    sid: String,
    /// Its issuer; any, if it is missing.
    #[schema(min_length = 1, max_length = 512)]
    issuer: Option<String>,
    /// When the revocation lapses, in Unix seconds: a time in the future.
    #[schema(minimum = 0, maximum = 253_402_300_799u64)]
    until: Option<u64>,
}

/// All tokens of a user that were issued before a time.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UserBody {
    user: UserId,
    /// In Unix seconds; now, if it is missing.
    #[schema(minimum = 0, maximum = 253_402_300_799u64)]
    issued_before: Option<u64>,
    /// When the revocation lapses, in Unix seconds: a time in the future.
    #[schema(minimum = 0, maximum = 253_402_300_799u64)]
    until: Option<u64>,
}

/// For how long a user is blocked.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct BlockBody {
    /// When the block lapses, in Unix seconds: a time in the future. Without it the block stays.
    #[schema(minimum = 0, maximum = 253_402_300_799u64)]
    until: Option<u64>,
}
