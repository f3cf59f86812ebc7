//! From a token to an identity (RFC 7515, RFC 7519, RFC 8725).

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, ConfigError};

use super::identity::Identity;
use super::issuer::Issuer;
use super::key::{Candidates, Key};
use super::reason::{Reason, TokenError, shown};
use super::remote::KeysStatus;
use super::token::Presented;

/// Verifies tokens of the configured issuers.
pub struct Verifier {
    issuers: Vec<Arc<Issuer>>,
    max_bytes: usize,
    clock: Clock,
    /// Turns for signatures that take long, so that a storm of them leaves a processor to the rest.
    turns: Arc<Semaphore>,
}

/// What was found while a token was verified.
#[derive(Debug)]
pub struct Explanation {
    /// What its header says, of what is read.
    pub header: Option<Value>,
    /// Its claims.
    pub claims: Option<Value>,
    /// The issuer whose keys count.
    pub issuer: Option<String>,
    /// The key that has signed it.
    pub key: Option<String>,
    /// What it proves, or why it does not.
    pub outcome: Result<Identity, TokenError>,
}

impl Verifier {
    /// A verifier for the configured issuers.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(config: &Config) -> Result<Self, ConfigError> {
        Self::of(config, &[])
    }

    /// One in the place of another, whose published keys it knows as far as the issuers are the same.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn after(config: &Config, before: &Self) -> Result<Self, ConfigError> {
        Self::of(config, &before.issuers)
    }

    fn of(config: &Config, before: &[Arc<Issuer>]) -> Result<Self, ConfigError> {
        super::install_provider();
        let issuers = config.issuers.iter().zip(0..);
        let issuers = issuers.map(|(written, number)| Issuer::new(written, number, config, before).map(Arc::new));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            issuers: issuers.collect::<Result<_, _>>()?,
            max_bytes: config.limits.max_token_bytes,
            clock: config.clock.clone(),
            turns: Arc::new(Semaphore::new((processors / 2).max(1))),
        })
    }

    /// Verifies a token.
    ///
    /// A secret's signature takes a microsecond and is checked here. That of a public key takes up to
    /// a hundred times as long: it is checked on a thread for such work, a few at a time. A key
    /// that is not known may have been published since: then the token waits for it.
    ///
    /// # Errors
    /// The first reason found not to accept it.
    pub async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        let presented = Presented::parse(token, self.max_bytes)?;
        let verified = async {
            let (issuer, _) = self.authentic(&presented).await?;
            issuer.identify(&presented, self.clock.unix())
        };
        verified.await.map_err(|error: TokenError| error.of(&presented))
    }

    /// Verifies a token, and says what was found on the way, for whoever has made or configured it.
    pub async fn explain(&self, token: &str) -> Explanation {
        let mut found =
            Explanation { header: None, claims: None, issuer: None, key: None, outcome: Err(Reason::Malformed.into()) };
        let presented = match Presented::parse(token, self.max_bytes) {
            Ok(presented) => presented,
            Err(error) => return Explanation { outcome: Err(error), ..found },
        };
        found.header = Some(json!({"alg": presented.alg, "kid": presented.kid, "typ": presented.typ}));
        found.claims = Some(presented.claims.all().clone().into());
        found.issuer = self.issuer_of(&presented).ok().map(|issuer| issuer.title());
        found.outcome = match self.authentic(&presented).await {
            Ok((issuer, key)) => {
                found.key = Some(key.describe());
                issuer.identify(&presented, self.clock.unix())
            }
            Err(error) => Err(error),
        };
        found
    }

    /// Whose token it is, and the key that has signed it.
    pub(super) async fn authentic(&self, presented: &Presented<'_>) -> Result<(Arc<Issuer>, Arc<Key>), TokenError> {
        let issuer = self.issuer_of(presented)?;
        let (algorithm, candidates) = self.candidates(issuer, presented).await?;
        let key = self.signer(algorithm, candidates, presented).await?;
        Ok((Arc::clone(issuer), key))
    }

    /// The issuer whose keys count, by the name in the token: one of ours, or none. It decides
    /// nothing else, for nobody has vouched for it yet.
    fn issuer_of(&self, presented: &Presented<'_>) -> Result<&Arc<Issuer>, TokenError> {
        let claimed = presented.claims.text("iss")?;
        let named = self.issuers.iter().find(|issuer| issuer.name().is_some() && issuer.name() == claimed);
        let found = named.or_else(|| self.issuers.iter().find(|issuer| issuer.name().is_none()));
        found.ok_or_else(|| {
            let claimed = claimed.map_or("has no `iss`".to_owned(), |iss| format!("is of \"{}\"", shown(iss)));
            let ours = self.issuers.iter().map(|issuer| issuer.title()).collect::<Vec<_>>().join(" and ");
            Reason::UnknownIssuer.because(format!("the token {claimed}, and those of {ours} are accepted"))
        })
    }

    async fn candidates(
        &self,
        issuer: &Issuer,
        presented: &Presented<'_>,
    ) -> Result<(Algorithm, Candidates), TokenError> {
        let find = || {
            let keys = issuer.keys(&self.clock)?;
            keys.candidates(presented.kid.as_deref(), &presented.alg, self.clock.unix())
        };
        let attempts = issuer.remote().map(|remote| (remote, remote.attempts()));
        let found = find();
        match (&found, attempts) {
            (Err(error), Some((remote, attempts)))
                if matches!(error.reason, Reason::UnknownKey | Reason::KeysUnavailable) =>
            {
                let refreshed = remote.refresh(attempts).await;
                find().map_err(|error| match error.reason {
                    // A new key may be there, and we cannot see it.
                    Reason::UnknownKey if !refreshed => {
                        Reason::KeysUnavailable.because(format!("{}; asked anew: {}", error.detail, remote.problem()))
                    }
                    _ => error,
                })
            }
            _ => found,
        }
    }

    /// The key that has signed the token.
    async fn signer(
        &self,
        algorithm: Algorithm,
        candidates: Candidates,
        presented: &Presented<'_>,
    ) -> Result<Arc<Key>, TokenError> {
        if candidates.iter().all(|key| key.is_secret()) {
            return search(algorithm, &candidates, presented.message, presented.signature);
        }
        let gone = || Reason::Unverifiable.because("the gateway is stopping");
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| gone())?;
        let (message, signature) = (presented.message.to_owned(), presented.signature.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            let found = search(algorithm, &candidates, &message, &signature);
            drop(turn);
            found
        });
        work.await.map_err(|_| gone())?
    }

    /// Keeps the issuers' published keys fresh: one future for each that publishes some.
    pub fn keep_keys(&self, stopping: &CancellationToken) -> Vec<impl Future<Output = ()> + Send + use<>> {
        let remotes = self.issuers.iter().filter_map(|issuer| issuer.remote());
        remotes.map(|remote| Arc::clone(remote).keep(stopping.clone())).collect()
    }

    /// Fetches the issuers' published keys once, for the command line.
    pub async fn fetch_keys(&self) {
        for remote in self.issuers.iter().filter_map(|issuer| issuer.remote()) {
            remote.fetch_once().await;
        }
    }

    /// How the published keys are, issuer by issuer, by what it is called.
    pub fn keys_status(&self) -> Vec<(String, KeysStatus)> {
        let remote = |issuer: &Arc<Issuer>| {
            issuer.remote().map(|remote| (issuer.name().unwrap_or_default().to_owned(), remote.status()))
        };
        self.issuers.iter().filter_map(remote).collect()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.unix()
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }
}

fn search(algorithm: Algorithm, keys: &Candidates, message: &str, signature: &str) -> Result<Arc<Key>, TokenError> {
    for key in keys {
        if key.has_signed(algorithm, message, signature)? {
            return Ok(Arc::clone(key));
        }
    }
    let tried = keys.iter().map(|key| key.describe()).collect::<Vec<_>>().join("; ");
    Err(Reason::BadSignature.because(format!("the token's signature is wrong: it is not that of {tried}")))
}
