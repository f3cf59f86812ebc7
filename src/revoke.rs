//! Revokes, and has those connections look at once that may be meant.

use crate::auth::{Authenticator, Concerned, Revocation, RevocationError, SECURITY, Subject};
use crate::hub::Hub;

/// Adds a revocation; see [`Revocations::add`](crate::auth::Revocations::add). Each connection
/// decides for itself whether it is meant: it alone knows what it was let in with.
pub(crate) async fn revoke(
    authenticator: &Authenticator,
    hub: &Hub,
    subject: Subject,
    until: Option<u64>,
) -> Result<Revocation, RevocationError> {
    let revocations = authenticator.revocations();
    let revocation = revocations.add(subject, until).await?;
    let concerned = match revocations.concerns(&revocation.subject) {
        Concerned::User(user) => hub.connections_of(&user),
        Concerned::Mark(mark) => hub.marked(mark),
    };
    for member in concerned {
        member.wake();
    }
    tracing::info!(target: SECURITY, revocation = ?revocation, "revoked");
    Ok(revocation)
}
