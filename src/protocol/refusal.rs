//! Why something that was asked for is not done: one vocabulary for both doors.

use std::borrow::Cow;

/// The machine's word for a refusal. On a socket it is the `code` of an `error` frame, over HTTP
/// that of a problem document; `protocol.md` lists them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The text is not JSON.
    NotJson,
    /// The JSON is not an object.
    NotAnObject,
    /// The JSON is nested deeper than the limit.
    TooDeep,
    /// A field that is needed is not there.
    MissingField,
    /// A field has the wrong type or a value that cannot be.
    InvalidField,
    /// A field that this request does not have.
    UnknownField,
    /// A field stands there twice.
    DuplicateField,
    /// A frame of a type that does not exist.
    UnknownType,
    /// The token does not grant it.
    Forbidden,
    /// The connection is not in the room.
    NotJoined,
    /// The connection is in as many rooms as it may be.
    TooManyRooms,
    /// As many connections are in the room as may be.
    RoomFull,
    /// Nobody has asked this connection what it answers, or not any more.
    NotAsked,
    /// The data of the event is larger than the room's rule allows.
    DataTooLarge,
    /// The connection publishes faster than the room's rule allows.
    TooFast,
    /// As many requests of the connection wait for the backend as may.
    TooManyPending,
    /// The backend cannot be reached, or takes no more.
    BackendUnavailable,
    /// The backend has not answered in time.
    BackendTimeout,
    /// The backend's answer is none.
    BackendFailed,
    /// The backend has refused a call.
    CallRefused,
    /// The gateway has no backend for this.
    NotConfigured,
    /// The configuration that was read again cannot be.
    NotReloaded,
    /// The token that was to renew this connection is not accepted.
    TokenRefused,
    /// The token that was to renew this connection belongs to another user.
    WrongUser,
    /// HTTP only: the API key is missing or wrong.
    Unauthorized,
    /// HTTP only: there is nothing at this path.
    NotFound,
    /// HTTP only: the path exists, the method does not.
    MethodNotAllowed,
    /// HTTP only: the body is larger than the limit.
    BodyTooLarge,
    /// HTTP only: the body did not arrive whole, or not in time.
    BodyIncomplete,
    /// HTTP only: this path speaks WebSocket, and the request did not ask for it.
    UpgradeRequired,
    /// HTTP only: a WebSocket upgrade that breaks RFC 6455.
    BadUpgrade,
    /// HTTP only: pages of this origin may not connect.
    OriginNotAllowed,
    /// HTTP only: too many failed attempts from this address.
    TooManyAttempts,
    /// An address has as many connections as one may.
    TooManyConnections,
    /// HTTP only: something else was published under this idempotency key.
    KeyReused,
    /// HTTP only: there are as many of these as there may be.
    Full,
    /// HTTP only: a change could not be stored, and has not been made.
    NotStored,
}

impl ErrorCode {
    /// Every code there is, in the order of `protocol.md`.
    pub const ALL: [Self; 37] = [
        Self::NotJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::MissingField,
        Self::InvalidField,
        Self::UnknownField,
        Self::DuplicateField,
        Self::UnknownType,
        Self::Forbidden,
        Self::NotJoined,
        Self::TooManyRooms,
        Self::RoomFull,
        Self::NotAsked,
        Self::DataTooLarge,
        Self::TooFast,
        Self::TooManyPending,
        Self::BackendUnavailable,
        Self::BackendTimeout,
        Self::BackendFailed,
        Self::CallRefused,
        Self::NotConfigured,
        Self::NotReloaded,
        Self::TokenRefused,
        Self::WrongUser,
        Self::Unauthorized,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::BodyTooLarge,
        Self::BodyIncomplete,
        Self::UpgradeRequired,
        Self::BadUpgrade,
        Self::OriginNotAllowed,
        Self::TooManyAttempts,
        Self::TooManyConnections,
        Self::KeyReused,
        Self::Full,
        Self::NotStored,
    ];

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::MissingField => "missing_field",
            Self::InvalidField => "invalid_field",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::UnknownType => "unknown_type",
            Self::Forbidden => "forbidden",
            Self::NotJoined => "not_joined",
            Self::TooManyRooms => "too_many_rooms",
            Self::RoomFull => "room_full",
            Self::NotAsked => "not_asked",
            Self::DataTooLarge => "data_too_large",
            Self::TooFast => "too_fast",
            Self::TooManyPending => "too_many_pending",
            Self::BackendUnavailable => "backend_unavailable",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendFailed => "backend_failed",
            Self::CallRefused => "call_refused",
            Self::NotConfigured => "not_configured",
            Self::NotReloaded => "not_reloaded",
            Self::TokenRefused => "token_refused",
            Self::WrongUser => "wrong_user",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyIncomplete => "body_incomplete",
            Self::UpgradeRequired => "upgrade_required",
            Self::BadUpgrade => "bad_upgrade",
            Self::OriginNotAllowed => "origin_not_allowed",
            Self::TooManyAttempts => "too_many_attempts",
            Self::TooManyConnections => "too_many_connections",
            Self::KeyReused => "key_reused",
            Self::Full => "full",
            Self::NotStored => "not_stored",
        }
    }

    /// Whether a connection may be refused for this only so many times: no correct client sends
    /// malformed frames at all, or one bad token after the other.
    pub fn is_counted(self) -> bool {
        matches!(
            self,
            Self::NotJson
                | Self::NotAnObject
                | Self::TooDeep
                | Self::MissingField
                | Self::InvalidField
                | Self::UnknownField
                | Self::DuplicateField
                | Self::UnknownType
                | Self::TokenRefused
                | Self::WrongUser
        )
    }

    /// Whether the same request may succeed later without anything being changed.
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::RoomFull
                | Self::TooFast
                | Self::TooManyPending
                | Self::BackendUnavailable
                | Self::BackendTimeout
                | Self::BodyIncomplete
                | Self::TooManyAttempts
                | Self::Full
                | Self::NotStored
        )
    }
}

/// Something that was asked for and is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The machine's word for it.
    pub code: ErrorCode,
    /// The path of the field at fault, as in `to.rooms[1]`.
    pub field: Option<Cow<'static, str>>,
    /// A sentence for a person. It never holds a token.
    pub message: String,
}

impl Refusal {
    /// A refusal that concerns no single field.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, field: None, message: message.into() }
    }

    /// A refusal because of one field.
    pub fn of(code: ErrorCode, field: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code, field: Some(field.into()), message: message.into() }
    }

    /// A field whose value cannot be; `why` is read after the field's name.
    pub fn invalid(field: impl Into<Cow<'static, str>>, why: &str) -> Self {
        let field = field.into();
        let message = format!("`{field}` {why}");
        Self::of(ErrorCode::InvalidField, field, message)
    }
}
