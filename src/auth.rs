//! From what somebody shows to an identity, and from an identity to what it may do. Knows no members.

mod attempts;
mod authenticator;
mod grants;
mod identity;
mod issuer;
mod key;
mod logout;
mod reason;
mod remote;
mod revocation;
mod rules;
mod signer;
mod store;
mod ticket;
mod token;
mod verifier;

/// The target of log events that concern security: who is refused, revoked, sent away or held up.
pub const SECURITY: &str = "wsgate::security";

pub use attempts::{Attempts, network};
pub use authenticator::{Authenticator, Credential};
pub use grants::{Grants, Permission};
pub use identity::{ANONYMOUS_PREFIX, Authority, Details, Guest, Handles, Identity, MAX_PROFILE_BYTES, profile};
pub use reason::{Claimed, Reason, TokenError};
pub use remote::KeysStatus;
pub use revocation::{Concerned, Revocation, RevocationError, Revocations, Subject};
pub use rules::{Decision, LiveRules, Rules, Ruling};
pub use signer::{Claims, SigningKey, generate, mint};
pub use ticket::{Offer, TicketError, Tickets};
pub use verifier::{Explanation, Verifier};

/// Names the one provider of cryptography, since with two in the build (one more dependency can
/// bring a second) the library panics at the first token. An error means that it is installed.
fn install_provider() {
    let _already_installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}
