//! The wire vocabulary: names, frames, errors and close codes. `protocol.md` is its contract.
//!
//! Nothing here knows a socket, a token or a member; everything above speaks in these words.

mod backend;
mod close;
mod fields;
mod name;
mod pattern;
mod problem;
mod refusal;
mod request;
mod response;
mod target;

pub use backend::{
    Asked, BackendPublish, Batch, BlockRequest, InquiryRequest, RevocationRequest, Revoked, RoomRequest, TicketRequest,
    Wait,
};
pub use close::{Close, CloseCode, Retry};
pub use name::{
    ConnectionId, EventName, InquiryId, MAX_EVENT_BYTES, MAX_ROOM_BYTES, MAX_USER_BYTES, PERSONAL, RoomName, UserId,
};
pub use pattern::Pattern;
pub use problem::Problem;
pub use refusal::{ErrorCode, Refusal};
pub use request::{Action, Bounds, Call, Echo, MAX_ID_BYTES, Proof, Publication, Request, RequestId};
pub use response::{ArrivedUser, Frame, PresentUser, Response, end_of_frame};
pub use target::Target;
