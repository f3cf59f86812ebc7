//! Why somebody is not let in: a stable word for logs and metrics, a sentence that a client may see,
//! and the details, which only operators see.

use std::fmt;

use thiserror::Error;

use super::token::Presented;

/// Why a token, or whatever was shown in its place, is not accepted. The words are for machines and
/// do not change; `docs/identity.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Longer than the limit; it was not looked into.
    TooLong,
    /// Not three parts of base64url, or a part that is not a JSON object, or a name in it twice.
    Malformed,
    /// A header parameter of the wrong type, or a `typ` of something that is no access token.
    WrongType,
    /// A header with `crit` (RFC 7515, 4.1.11).
    Critical,
    /// No configured issuer has this `iss`.
    UnknownIssuer,
    /// The issuer's keys are for other algorithms; `none` is among those that no key is for.
    AlgorithmNotAllowed,
    /// The issuer has no key of this id.
    UnknownKey,
    /// The key has been replaced, and its time is over.
    RetiredKey,
    /// The issuer's keys could not be fetched, or not for too long: nothing is known of the token.
    KeysUnavailable,
    /// Signed with another key, or changed since.
    BadSignature,
    /// A claim that is needed is not there.
    MissingClaim,
    /// A claim has a wrong type, or a value that cannot be.
    InvalidClaim,
    /// Meant for somebody else.
    WrongAudience,
    /// A claim has not the value that the configuration demands.
    WrongClaim,
    /// The user's id begins with what is kept for others.
    ReservedUser,
    /// Past `exp`.
    Expired,
    /// Before `nbf`.
    NotYetValid,
    /// Revoked: the token, its session, or all of its user's of that time.
    Revoked,
    /// The user is blocked.
    Blocked,
    /// No such ticket: it has been used, has lapsed, or never was.
    UnknownTicket,
    /// The ticket was made for pages of another origin.
    WrongOrigin,
    /// Nobody may connect without a token.
    AnonymousNotAllowed,
    /// As many anonymous connections as there may be.
    TooManyAnonymous,
    /// The same claim to be somebody stands there twice, as in two cookies of one name.
    Ambiguous,
    /// The cryptography itself failed.
    Unverifiable,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 25] = [
        Self::TooLong,
        Self::Malformed,
        Self::WrongType,
        Self::Critical,
        Self::UnknownIssuer,
        Self::AlgorithmNotAllowed,
        Self::UnknownKey,
        Self::RetiredKey,
        Self::KeysUnavailable,
        Self::BadSignature,
        Self::MissingClaim,
        Self::InvalidClaim,
        Self::WrongAudience,
        Self::WrongClaim,
        Self::ReservedUser,
        Self::Expired,
        Self::NotYetValid,
        Self::Revoked,
        Self::Blocked,
        Self::UnknownTicket,
        Self::WrongOrigin,
        Self::AnonymousNotAllowed,
        Self::TooManyAnonymous,
        Self::Ambiguous,
        Self::Unverifiable,
    ];

    /// The word for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::WrongType => "wrong_type",
            Self::Critical => "critical_header",
            Self::UnknownIssuer => "unknown_issuer",
            Self::AlgorithmNotAllowed => "algorithm_not_allowed",
            Self::UnknownKey => "unknown_key",
            Self::RetiredKey => "retired_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim => "missing_claim",
            Self::InvalidClaim => "invalid_claim",
            Self::WrongAudience => "wrong_audience",
            Self::WrongClaim => "wrong_claim",
            Self::ReservedUser => "reserved_user",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Revoked => "revoked",
            Self::Blocked => "blocked",
            Self::UnknownTicket => "unknown_ticket",
            Self::WrongOrigin => "wrong_origin",
            Self::AnonymousNotAllowed => "anonymous_not_allowed",
            Self::TooManyAnonymous => "too_many_anonymous",
            Self::Ambiguous => "ambiguous",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// What a client is told. It says nothing about the configuration: which issuers, keys and
    /// audiences there are is for operators.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::TooLong => "the token is too long",
            Self::Malformed => "this is not a JWT",
            Self::WrongType => "this is not a token for connecting",
            Self::Critical => "the token's header has `crit`, which is not supported",
            Self::UnknownIssuer => "the token is of an issuer that is not accepted here",
            Self::AlgorithmNotAllowed => "the token is signed with an algorithm that is not accepted here",
            Self::UnknownKey | Self::RetiredKey => "the token is signed with a key that is not accepted here",
            Self::KeysUnavailable => "the token cannot be verified at the moment",
            Self::BadSignature => "the token's signature is wrong",
            Self::MissingClaim | Self::InvalidClaim => "the token's claims are wrong",
            Self::WrongAudience | Self::WrongClaim => "the token is not meant for this gateway",
            Self::ReservedUser => "the token is of a user whose id is not accepted here",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Revoked => "the token has been revoked",
            Self::Blocked => "this user is blocked",
            Self::UnknownTicket => "there is no such ticket: each is good once, for a short time",
            Self::WrongOrigin => "the ticket is for another page",
            Self::AnonymousNotAllowed => "nobody may connect without a token",
            Self::TooManyAnonymous => "there are too many connections without a token",
            Self::Ambiguous => "there is more than one token",
            Self::Unverifiable => "the token could not be verified",
        }
    }

    /// What an operator can do, by the setting that decides.
    pub fn advice(self) -> &'static str {
        match self {
            Self::TooLong => "put less into the token, or raise max_token_bytes",
            Self::Malformed => "send the whole token as it was issued: three parts of base64url, joined by dots",
            Self::WrongType => "send an access token, whose `typ` is JWT, at+jwt or missing",
            Self::Critical => "have the issuer leave out `crit`",
            Self::UnknownIssuer => "add the issuer to the configuration, just as `iss` spells it",
            Self::AlgorithmNotAllowed => {
                "name the algorithm in the issuer's `algorithms`, or have tokens signed otherwise"
            }
            Self::UnknownKey => "add the key to the issuer's `keys`, or its place as `jwks_url`",
            Self::RetiredKey => "sign with the new key, or set a later `until`",
            Self::KeysUnavailable => "see whether the issuer's jwks_url can be reached from here",
            Self::BadSignature => "compare the key that signs with the one that is configured, to the last byte",
            Self::MissingClaim => {
                "have the issuer add the claim, or name another in user_claim, audience_claim or require"
            }
            Self::InvalidClaim => "have the issuer write the claim as docs/identity.md says",
            Self::WrongAudience => "ask the issuer for a token for this audience, or add its audience to `audience`",
            Self::WrongClaim => "see the issuer's `require`",
            Self::ReservedUser => "choose another id for this user, or set user_prefix",
            Self::Expired => "get a fresh token; if it is fresh, set the clocks",
            Self::NotYetValid => "set the clocks, or raise `leeway`",
            Self::Revoked | Self::Blocked => "see GET /v1/revocations",
            Self::UnknownTicket | Self::WrongOrigin => "make a ticket for each connection, just before it",
            Self::AnonymousNotAllowed | Self::TooManyAnonymous => "see [anonymous] in the configuration",
            Self::Ambiguous => "send one token, by one way",
            Self::Unverifiable => "see the log",
        }
    }

    /// Whether whoever gets this is guessing or forging, rather than late: such attempts are counted.
    pub fn is_suspicious(self) -> bool {
        !matches!(
            self,
            Self::Expired
                | Self::NotYetValid
                | Self::Revoked
                | Self::Blocked
                | Self::KeysUnavailable
                | Self::TooManyAnonymous
        )
    }

    pub(super) fn because(self, detail: impl Into<String>) -> TokenError {
        TokenError { reason: self, detail: detail.into(), claimed: None }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token that is not accepted. Its text is for operators; clients are told [`Reason::sentence`].
/// It never repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct TokenError {
    /// Why, in a word.
    pub reason: Reason,
    /// Why, in words.
    pub detail: String,
    /// What the token says of itself, where it could be read.
    pub claimed: Option<Box<Claimed>>,
}

/// What a token that is refused says of itself: nobody has vouched for it. For operators only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Its `sub`.
    pub sub: Option<String>,
    /// Its `kid`.
    pub kid: Option<String>,
    /// Its `iss`.
    pub iss: Option<String>,
}

impl TokenError {
    /// Notes whose token it is about, by its own word.
    pub(super) fn of(self, presented: &Presented<'_>) -> Self {
        let claim = |name| presented.claims.at(name).map(|value| shown(value.as_str().unwrap_or(&value.to_string())));
        let claimed = Claimed { sub: claim("sub"), kid: presented.kid.as_deref().map(shown), iss: claim("iss") };
        Self { claimed: Some(Box::new(claimed)), ..self }
    }
}

impl From<Reason> for TokenError {
    fn from(reason: Reason) -> Self {
        reason.because(reason.sentence())
    }
}

/// The beginning of a text that a stranger chose, on one line and short enough to be repeated.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push('…');
    }
    shown
}
