//! Keys that an issuer publishes (RFC 7517), fetched in the background and kept through an outage.
//!
//! One task fetches. Whoever needs a key that is not there asks it to and waits for its next result:
//! so there is one request at a time, and a least time between two, whatever strangers put into
//! tokens. Nothing of a token is ever part of an address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http_cache_semantics::{CacheOptions, CachePolicy};
use reqwest::redirect::Policy;
use reqwest::{Client, Request, Url};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{self, Limits, is_safe};

use super::key::{KeySet, Setting};
use super::reason::shown;

/// The longest answer that is read.
const MAX_BYTES: usize = 256 * 1024;
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 3;
/// How often keys are fetched, whatever the issuer says of caching, and if it says nothing.
const LEAST_AGE: Duration = Duration::from_secs(60);
const USUAL_AGE: Duration = Duration::from_secs(10 * 60);
const GREATEST_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest time between two attempts while they fail.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// The published keys of one issuer.
pub(super) struct RemoteKeys {
    place: Place,
    algorithms: Vec<jsonwebtoken::Algorithm>,
    timeout: Duration,
    min_interval: Duration,
    max_stale: Duration,
    clock: Clock,
    fetched: watch::Sender<Fetched>,
    /// How many attempts there must have been for all to be content.
    wanted: AtomicU64,
    asked: Notify,
    /// Whether a task keeps them.
    kept: AtomicBool,
}

/// Where the keys are.
enum Place {
    Known(Url),
    /// As the issuer's own document says.
    Discovered {
        issuer: String,
        document: Url,
    },
}

/// What is known so far.
#[derive(Clone, Default)]
struct Fetched {
    keys: KeySet,
    /// When the keys were fetched; never, if there are none.
    at: Option<Instant>,
    /// For how long they are good without being fetched anew.
    age: Duration,
    attempts: u64,
    /// Why the last attempt failed, if it did.
    problem: Option<String>,
}

/// How an issuer's published keys are, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysStatus {
    /// How many there are; none if they are too old to be used.
    pub keys: usize,
    /// How long ago they were fetched.
    pub age: Option<Duration>,
    /// Why the last attempt to fetch them failed, if it did.
    pub problem: Option<String>,
}

impl RemoteKeys {
    /// Those of an issuer that publishes them.
    ///
    /// # Errors
    /// The setting that cannot be, and why.
    pub(super) fn of(
        written: &config::Issuer,
        limits: &Limits,
        clock: &Clock,
    ) -> Result<Option<Self>, (&'static str, String)> {
        let place = match (&written.jwks_url, &written.issuer) {
            (Some(url), _) => Place::Known(address(url).map_err(|why| (".jwks_url", why))?),
            (None, Some(issuer)) if written.discover => {
                // OpenID Connect Discovery 1.0, 4.1: a slash at the end of the issuer does not count.
                let document = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
                let document = address(&document).map_err(|why| (".issuer", why))?;
                Place::Discovered { issuer: issuer.clone(), document }
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            place,
            algorithms: written.algorithms.clone(),
            timeout: limits.keys_timeout,
            min_interval: limits.keys_min_interval,
            max_stale: limits.keys_max_stale,
            clock: clock.clone(),
            fetched: watch::Sender::default(),
            wanted: AtomicU64::new(1),
            asked: Notify::new(),
            kept: AtomicBool::new(false),
        }))
    }

    /// Whether it was made for these limits.
    pub(super) fn is_within(&self, limits: &Limits) -> bool {
        let Limits { keys_timeout, keys_min_interval, keys_max_stale, .. } = *limits;
        (self.timeout, self.min_interval, self.max_stale) == (keys_timeout, keys_min_interval, keys_max_stale)
    }

    /// The keys, unless there are none or they are too old.
    pub(super) fn keys(&self, now: Instant) -> Option<KeySet> {
        let fetched = self.fetched.borrow();
        let last = fetched.at? + fetched.age + self.max_stale;
        (now <= last).then(|| fetched.keys.clone())
    }

    /// Why they could not be fetched, in words.
    pub(super) fn problem(&self) -> String {
        self.fetched.borrow().problem.clone().unwrap_or_else(|| "they have not been fetched yet".to_owned())
    }

    /// How they are.
    pub(super) fn status(&self) -> KeysStatus {
        let now = self.clock.now();
        let keys = self.keys(now).map_or(0, |keys| keys.0.len());
        let fetched = self.fetched.borrow();
        let age = fetched.at.map(|at| now.saturating_duration_since(at));
        KeysStatus { keys, age, problem: fetched.problem.clone() }
    }

    /// How many attempts to fetch them there have been.
    pub(super) fn attempts(&self) -> u64 {
        self.fetched.borrow().attempts
    }

    /// Asks for another attempt after so many, and waits until there has been one. Says whether it
    /// succeeded.
    pub(super) async fn refresh(&self, attempts: u64) -> bool {
        if !self.kept.load(Ordering::SeqCst) {
            return self.fetched.borrow().problem.is_none();
        }
        self.wanted.fetch_max(attempts + 1, Ordering::SeqCst);
        self.asked.notify_one();
        let mut fetched = self.fetched.subscribe();
        let another = async {
            fetched.wait_for(|fetched| fetched.attempts > attempts).await.is_ok_and(|it| it.problem.is_none())
        };
        // When the gateway stops, nobody answers.
        let limit = self.min_interval + self.timeout + Duration::from_secs(1);
        self.clock.timeout(limit, another).await.unwrap_or(false)
    }

    /// Fetches the keys now, then whenever they are asked for or have become old, until it is told
    /// to stop.
    pub(super) fn keep(self: Arc<Self>, stopping: CancellationToken) -> impl Future<Output = ()> + Send {
        // From now on, and not only once the task runs: whoever comes first waits for it.
        self.kept.store(true, Ordering::SeqCst);
        async move {
            match client() {
                Ok(client) => self.keep_with(&client, &stopping).await,
                Err(error) => {
                    tracing::error!(%error, "no client to fetch keys with");
                    self.kept.store(false, Ordering::SeqCst);
                }
            }
        }
    }

    async fn keep_with(&self, client: &Client, stopping: &CancellationToken) {
        let mut failures = 0;
        loop {
            let fetched = tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                fetched = self.fetch(client) => fetched,
            };
            failures = if fetched.is_ok() { 0 } else { failures + 1 };
            let wait = match &fetched {
                Ok((_, age)) => *age,
                // Doubled each time.
                Err(_) => MAX_RETRY.min(self.min_interval * (1 << u32::min(failures - 1, 6))),
            };
            self.note(fetched);
            tokio::select! {
                () = stopping.cancelled() => return,
                () = self.due(wait) => {}
            }
        }
    }

    /// Fetches the keys once: for the command line, where no task keeps them.
    pub(super) async fn fetch_once(&self) {
        let fetched = match client() {
            Ok(client) => self.fetch(&client).await,
            Err(error) => Err(error),
        };
        self.note(fetched);
    }

    /// Waits until it is time for the next attempt: soon if somebody asks, but not at once.
    async fn due(&self, wait: Duration) {
        let now = self.clock.now();
        let asked = async {
            while self.wanted.load(Ordering::SeqCst) <= self.attempts() {
                self.asked.notified().await;
            }
            self.clock.sleep_until(now + self.min_interval).await;
        };
        tokio::select! {
            () = asked => {}
            () = self.clock.sleep_until(now + wait.max(self.min_interval)) => {}
        }
    }

    fn note(&self, result: Result<(KeySet, Duration), String>) {
        let now = self.clock.now();
        self.fetched.send_modify(|fetched| {
            fetched.attempts += 1;
            match result {
                Ok((keys, age)) => {
                    if fetched.at.is_none() || fetched.problem.is_some() {
                        tracing::info!(place = %self.place, keys = keys.0.len(), next = ?age, "fetched an issuer's keys");
                    }
                    *fetched = Fetched { keys, at: Some(now), age, attempts: fetched.attempts, problem: None };
                }
                Err(problem) => {
                    tracing::warn!(place = %self.place, problem = problem.as_str(), "an issuer's keys could not be fetched");
                    fetched.problem = Some(problem);
                }
            }
        });
    }

    /// The keys, and for how long they are good.
    async fn fetch(&self, client: &Client) -> Result<(KeySet, Duration), String> {
        let fetched = self.clock.timeout(self.timeout, async {
            let place = match &self.place {
                Place::Known(url) => url.clone(),
                Place::Discovered { issuer, document } => discover(client, issuer, document).await?,
            };
            let (json, age) = get(client, &place).await?;
            let setting = Setting { allowed: &self.algorithms, ..Setting::default() };
            let (mut keys, unused) =
                KeySet::parse(&json, place.as_str(), &setting).map_err(|why| format!("{place} {why}"))?;
            // A secret that is published is none.
            keys.0.retain(|key| !key.is_secret());
            for why in unused {
                tracing::debug!(%place, "not used: {why}");
            }
            if keys.0.is_empty() { Err(format!("{place} has no public key")) } else { Ok((keys, age)) }
        });
        fetched.await.unwrap_or_else(|| Err(format!("{} did not answer in time", self.place)))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(url) | Self::Discovered { document: url, .. } => write!(f, "{url}"),
        }
    }
}

/// Where the issuer says that its keys are. Its document must be its own (OpenID Connect Discovery
/// 1.0, 4.3).
async fn discover(client: &Client, issuer: &str, document: &Url) -> Result<Url, String> {
    #[derive(Deserialize)]
    struct Document {
        issuer: String,
        jwks_uri: String,
    }
    let (json, _) = get(client, document).await?;
    let found: Document =
        serde_json::from_slice(&json).map_err(|error| format!("{document} cannot be read: {error}"))?;
    if found.issuer != issuer {
        return Err(format!("{document} is of the issuer \"{}\", not of \"{issuer}\"", shown(&found.issuer)));
    }
    address(&found.jwks_uri).map_err(|why| format!("{document} names keys whose address {why}"))
}

/// A whole answer, within limits, and for how long it may be kept (RFC 9111).
async fn get(client: &Client, url: &Url) -> Result<(Vec<u8>, Duration), String> {
    let words = |error: reqwest::Error| {
        // The cause is what helps: that the name is unknown, that the certificate has expired.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        format!("{url}: {cause}")
    };
    let request = client.get(url.clone()).header("accept", "application/json").build().map_err(words)?;
    let asked: Request = request.try_clone().ok_or_else(|| format!("{url} cannot be asked for"))?;
    let mut response = client.execute(request).await.map_err(words)?;
    if !response.status().is_success() {
        return Err(format!("{url} answered {}", response.status()));
    }
    let options = CacheOptions { shared: false, ..CacheOptions::default() };
    let now = SystemTime::now();
    let policy = CachePolicy::new_options(&asked, &response, now, options);
    let said = ["cache-control", "expires"].iter().any(|name| response.headers().contains_key(*name));
    let age = if said { policy.time_to_live(now).clamp(LEAST_AGE, GREATEST_AGE) } else { USUAL_AGE };
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(words)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return Err(format!("{url} answers more than {MAX_BYTES} bytes"));
        }
    }
    Ok((body, age))
}

/// A client, or in words why there is none, as that the machine has no certificates to trust in.
fn client() -> Result<Client, String> {
    let follow = Policy::custom(|attempt| match (attempt.previous().len() > MAX_REDIRECTS, is_safe(attempt.url())) {
        (false, true) => attempt.follow(),
        (true, _) => attempt.error("too many redirects"),
        (false, false) => attempt.error("a redirect leads to an address without TLS"),
    });
    let name = concat!("wsgate/", env!("CARGO_PKG_VERSION"));
    let client = Client::builder().redirect(follow).user_agent(name).referer(false).build();
    client.map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// An address that keys may come from.
fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not an address: {error}"))?;
    if is_safe(&url) { Ok(url) } else { Err("must begin with https://, or be on this machine".to_owned()) }
}
