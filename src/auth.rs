//! From a token to an identity, and from an identity to what it may do. Knows no members.

mod grants;
mod verifier;

pub use grants::{Grants, Permission};
pub use verifier::{Claims, Identity, TokenError, Verifier, mint};
