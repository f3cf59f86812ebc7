//! What both doors work with.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::auth::{Authenticator, LiveRules, Reason, Rules};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LiveLimits, RoomTraits};
use crate::errand::Errands;
use crate::hub::{Hub, Presence};
use crate::inquiry::Inquiries;
use crate::metrics::Metrics;
use crate::protocol::{CloseCode, RoomName};
use crate::trace::Tracer;

/// Why connections are refused, other than for what they have shown to prove who they are.
const OTHER_REASONS: [&str; 11] = [
    "bad_frame",
    "bad_preface",
    "max_connections",
    "max_connections_per_address",
    "max_connections_per_user",
    "max_connects_per_second",
    "no_token",
    "not_a_proxy",
    "origin_not_allowed",
    "too_many_attempts",
    "wrong_user",
];

/// The parts of a gateway that more than one of its layers use. A clone is the same gateway.
#[derive(Clone)]
pub(crate) struct Parts {
    /// What is allowed.
    pub(crate) limits: LiveLimits,
    /// What tells the time.
    pub(crate) clock: Clock,
    /// Makes spans of requests.
    pub(crate) tracer: Tracer,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Who is where.
    pub(crate) hub: Arc<Hub>,
    /// Decides who gets in.
    pub(crate) authenticator: Arc<Authenticator>,
    /// Who may do what in rooms.
    pub(crate) rules: LiveRules,
    /// Whom to ask what rules leave open.
    pub(crate) backend: Arc<Backend>,
    /// What backends want to know of live connections.
    pub(crate) errands: Arc<Errands>,
    /// What backends ask of clients.
    pub(crate) inquiries: Arc<Inquiries>,
    /// Asks the gateway to drain, and says that it does.
    pub(crate) drain: CancellationToken,
}

impl Parts {
    /// Those of a gateway in which nobody is yet.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let limits = LiveLimits::new(config.limits.clone());
        let rules: LiveRules = Arc::new(ArcSwap::from_pointee(Rules::new(config)));
        let presence = Presence::new(config.clock.clone(), limits.clone());
        let traits = Box::new(traits(&rules, &limits));
        let metrics: Arc<Metrics> = Arc::default();
        let reasons = Reason::ALL.map(Reason::as_str).into_iter().chain(OTHER_REASONS);
        metrics.begin_at_zero(reasons, CloseCode::ALL.map(CloseCode::word).into_iter());
        Ok(Self {
            clock: config.clock.clone(),
            tracer: config.tracer.clone(),
            hub: Hub::new(limits.clone(), config.workers, traits, presence),
            authenticator: Arc::new(Authenticator::new(config, &limits)?),
            backend: Arc::new(Backend::new(config.backend.as_ref(), &config.clock, &metrics, &config.tracer)?),
            errands: Arc::default(),
            inquiries: Arc::default(),
            drain: CancellationToken::new(),
            limits,
            metrics,
            rules,
        })
    }
}

/// What a room is to be like that somebody is the first in.
fn traits(rules: &LiveRules, limits: &LiveLimits) -> impl Fn(&RoomName) -> RoomTraits + use<> {
    let (rules, limits) = (Arc::clone(rules), limits.clone());
    move |room| {
        let traits = rules.load().traits(room);
        let unlimited = traits.max_members == usize::MAX;
        let max_members = if unlimited { limits.get().max_members } else { traits.max_members };
        RoomTraits { max_members, ..traits }
    }
}
