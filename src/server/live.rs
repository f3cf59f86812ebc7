//! What can be replaced while the gateway runs.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::api::ApiKeys;
use crate::auth::Rules;
use crate::config::{Config, ConfigError};
use crate::connection::Admission;
use crate::errand::RECHECK;
use crate::parts::Parts;

use super::Gateway;
use super::certificate::Certificate;

/// Lets a gateway that runs go on with another configuration. Nobody is disconnected: whoever is in a room
/// that is no longer theirs leaves it, and is told.
#[derive(Clone)]
pub struct Live(Arc<Inner>);

struct Inner {
    parts: Parts,
    certificate: Option<Certificate>,
    keys: ApiKeys,
    admission: Arc<ArcSwap<Admission>>,
    /// What holds now.
    config: Mutex<Config>,
    /// Ends the tasks that keep the issuers' keys; none runs before the gateway does.
    keeping: Mutex<Option<CancellationToken>>,
}

impl Live {
    pub(super) fn new(
        config: Config,
        parts: Parts,
        certificate: Option<Certificate>,
        keys: ApiKeys,
        admission: Arc<ArcSwap<Admission>>,
    ) -> Self {
        let (config, keeping) = (Mutex::new(config), Mutex::default());
        Self(Arc::new(Inner { parts, certificate, keys, admission, config, keeping }))
    }

    /// Goes on with this: its issuers and their keys, API keys, rules, limits, origins and proxies. The
    /// files of the certificate are read again. All else needs another gateway. Rooms in which somebody is
    /// keep their size and presence until they are empty.
    /// Must be called within the gateway's runtime, since it fetches the issuers' keys anew.
    ///
    /// # Errors
    /// The first setting that cannot be; then nothing has changed.
    pub fn apply(&self, config: Config) -> Result<(), ConfigError> {
        let Inner { parts, certificate, keys, admission, config: before, .. } = &*self.0;
        let mut before = before.lock();
        Gateway::check(&config)?;
        // All is read before any of it holds: files may change between two looks at them.
        let put_certificate = certificate.as_ref().map(Certificate::reload).transpose()?;
        let put_keys = keys.replacing(config.api_key.as_ref(), &config.api_keys)?;
        let put_issuers = parts.authenticator.replacing(&config)?;
        if let Some(put) = put_certificate {
            put();
        }
        put_keys();
        put_issuers();
        parts.limits.set(config.limits.clone());
        admission.store(Arc::new(Admission::of(&config)));
        let who = |config: &Config| (config.rooms.clone(), config.anonymous.clone());
        if who(&before) != who(&config) {
            parts.rules.store(Arc::new(Rules::new(&config)));
            parts.backend.forget_all();
            parts.hub.everybody().iter().for_each(|member| member.notify(RECHECK));
        }
        *before = config;
        drop(before);
        self.keep_keys();
        Ok(())
    }

    /// Notes whether the configuration could be read again, for whoever looks at the metrics.
    pub fn note_reload(&self, succeeded: bool) {
        self.0.parts.metrics.reloaded(succeeded);
    }

    /// Fetches the keys that issuers publish, from now on, until the gateway stops.
    pub(super) fn keep_keys(&self) {
        let mut keeping = self.0.keeping.lock();
        if let Some(before) = keeping.take() {
            before.cancel();
        }
        let until = CancellationToken::new();
        for keeping in self.0.parts.authenticator.verifier().keep_keys(&until) {
            tokio::spawn(keeping);
        }
        *keeping = Some(until);
    }

    /// Fetches no more keys.
    pub(super) fn stop(&self) {
        if let Some(keeping) = self.0.keeping.lock().take() {
            keeping.cancel();
        }
    }
}
