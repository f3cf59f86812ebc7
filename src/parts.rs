//! What both doors work with.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::auth::{Authenticator, LiveRules, Rules};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LiveLimits, RoomTraits};
use crate::errand::Errands;
use crate::hub::{Hub, Presence};
use crate::inquiry::Inquiries;
use crate::metrics::Metrics;
use crate::protocol::RoomName;
use crate::trace::Tracer;

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
        let metrics = Arc::default();
        Ok(Self {
            clock: config.clock.clone(),
            tracer: config.tracer.clone(),
            hub: Hub::new(limits.clone(), config.workers, traits, presence),
            authenticator: Arc::new(Authenticator::new(config, &limits)?),
            backend: Arc::new(Backend::new(config.backend.as_ref(), &config.clock, &metrics, &config.tracer)?),
            errands: Arc::default(),
            inquiries: Arc::default(),
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
