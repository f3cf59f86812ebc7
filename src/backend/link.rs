//! The way to one address of the backend: bounded in time, in bytes and in requests at once, and left
//! alone for a while when nothing answers there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{Backend, ConfigError, Secret};
use crate::metrics::{Metrics, Question};
use crate::trace::{Called, Tracer};

/// For how long an idle connection is kept. Common servers close theirs after some seconds; a request
/// that meets the end of one must not be sent again, since nobody knows what has become of it.
const IDLE: Duration = Duration::from_secs(1);

/// One address of the backend.
pub(super) struct Link {
    kind: Question,
    url: String,
    client: Client,
    authorization: Option<HeaderValue>,
    timeout: Duration,
    max_answer_bytes: usize,
    turns: Semaphore,
    /// Requests under way, those that wait for a turn among them.
    under_way: AtomicUsize,
    max_under_way: usize,
    breaker: Mutex<Breaker>,
    clock: Clock,
    metrics: Arc<Metrics>,
    tracer: Tracer,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Too many requests wait already.
    Overloaded,
    /// Its turn did not come in time.
    NoTurn,
    /// It did not come in time.
    Timeout,
    /// Nothing listens there, or the connection broke.
    Unreachable,
    /// Nothing has answered there lately, and it was not asked.
    LeftAlone,
    /// It is longer than an answer may be.
    TooLong,
}

/// An answer, whatever it says.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// Leaves an address alone that does not answer. Closed: everything passes. Open: nothing does, until a
/// time; then one request passes, and by what comes of it the breaker closes or stays open.
struct Breaker {
    failures: u32,
    /// Until when nothing passes.
    open_until: Option<Instant>,
    /// Whether one request passes to see whether there is an answer again.
    probing: bool,
    max_failures: u32,
    pause: Duration,
}

/// A request that the breaker lets pass. Dropped without an outcome, it tells nothing.
struct Pass<'a> {
    link: &'a Link,
    settled: bool,
}

/// One of the requests under way.
struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Link {
    /// The way to an address.
    ///
    /// # Errors
    /// The setting that cannot be.
    pub(super) fn new(
        kind: Question,
        url: &str,
        timeout: Duration,
        config: &Backend,
        secret: Option<&Secret>,
        (clock, metrics, tracer): (&Clock, &Arc<Metrics>, &Tracer),
    ) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::new("backend", why);
        let name = concat!("wsgate/", env!("CARGO_PKG_VERSION"));
        // Straight to the address that is configured, and nowhere else.
        let client = Client::builder().redirect(Policy::none()).no_proxy().user_agent(name).referer(false);
        let client = client.pool_idle_timeout(IDLE).build();
        let authorization = secret.map(|secret| HeaderValue::try_from(format!("Bearer {}", secret.reveal())));
        let mut authorization = authorization.transpose().map_err(|error| wrong(error.to_string()))?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self {
            kind,
            url: url.to_owned(),
            // With its cause, as that the machine has no certificates to trust in.
            client: client.map_err(|error| wrong(format!("{:#}", anyhow::Error::new(error))))?,
            authorization,
            timeout,
            max_answer_bytes: config.max_answer_bytes,
            turns: Semaphore::new(config.max_concurrent.min(Semaphore::MAX_PERMITS)),
            under_way: AtomicUsize::new(0),
            max_under_way: config.max_concurrent.saturating_add(config.max_waiting),
            breaker: Mutex::new(Breaker {
                failures: 0,
                open_until: None,
                probing: false,
                max_failures: config.breaker_failures,
                pause: config.breaker_pause,
            }),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
            tracer: tracer.clone(),
        })
    }

    /// Sends a request, and gives the answer, whatever it says.
    ///
    /// # Errors
    /// There is none.
    pub(super) async fn post(&self, body: Vec<u8>) -> Result<Answer, Fault> {
        let begun = self.clock.now();
        if self.under_way.fetch_add(1, Ordering::SeqCst) >= self.max_under_way {
            drop(UnderWay(&self.under_way));
            return Err(Fault::Overloaded);
        }
        let _under_way = UnderWay(&self.under_way);
        let answer = self.ask(body).await;
        let outcome = answer.as_ref().map_or_else(|fault| fault.as_str(), |_| "ok");
        self.metrics.answered(self.kind, outcome, self.clock.now().saturating_duration_since(begun));
        answer
    }

    async fn ask(&self, body: Vec<u8>) -> Result<Answer, Fault> {
        let deadline = self.clock.now() + self.timeout;
        self.check_alone()?;
        // Whoever waits for a turn in vain has asked nothing: that is no failure of the backend.
        let turn = self.clock.timeout(self.timeout, self.turns.acquire()).await.ok_or(Fault::NoTurn)?;
        let _turn = turn.map_err(|_| Fault::Overloaded)?;
        let left = deadline.saturating_duration_since(self.clock.now());
        if left.is_zero() {
            return Err(Fault::NoTurn);
        }
        let pass = self.pass()?;
        let span = self.tracer.call(self.kind.name(), &self.url);
        let answer = self.clock.timeout(left, self.exchange(body, &span)).await.unwrap_or(Err(Fault::Timeout));
        pass.settle(&answer);
        span.answered(answer.as_ref().map(|answer| answer.status.as_u16()).map_err(|fault| fault.as_str()));
        answer
    }

    async fn exchange(&self, body: Vec<u8>, span: &Called) -> Result<Answer, Fault> {
        let broken = |error: reqwest::Error| {
            tracing::debug!(error = ?error.without_url(), "the backend cannot be reached");
            Fault::Unreachable
        };
        let mut headers = HeaderMap::new();
        span.inject(&mut headers);
        let request = self.client.post(&self.url).headers(headers);
        let mut request = request.header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let mut response = request.send().await.map_err(broken)?;
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(broken)? {
            if body.len() + chunk.len() > self.max_answer_bytes {
                return Err(Fault::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, body })
    }

    /// What is asked there, and whether it is left alone now. Once its pause is over it is not: the next who
    /// asks tries it.
    pub(super) fn left_alone(&self) -> (Question, bool) {
        let until = self.breaker.lock().open_until;
        (self.kind, until.is_some_and(|until| self.clock.now() < until))
    }

    /// Whether the address is left alone now: then nobody need wait for a turn.
    fn check_alone(&self) -> Result<(), Fault> {
        let breaker = self.breaker.lock();
        let alone = breaker.open_until.is_some_and(|until| breaker.probing || self.clock.now() < until);
        if alone { Err(Fault::LeftAlone) } else { Ok(()) }
    }

    /// Lets a request pass, if the address is not left alone.
    fn pass(&self) -> Result<Pass<'_>, Fault> {
        let mut breaker = self.breaker.lock();
        match breaker.open_until {
            None => {}
            Some(until) if breaker.probing || self.clock.now() < until => return Err(Fault::LeftAlone),
            Some(_) => breaker.probing = true,
        }
        Ok(Pass { link: self, settled: false })
    }
}

impl Pass<'_> {
    /// Notes what has come of the request. Any answer shows that somebody is there, but for one that says
    /// that there is not (RFC 9110, 15.6: 502, 503, 504).
    fn settle(mut self, answer: &Result<Answer, Fault>) {
        // Some calls take long, and clients choose which: by that none must have the others left alone.
        if self.link.kind == Question::Call && matches!(answer, Err(Fault::Timeout)) {
            return;
        }
        let there = match answer {
            Ok(answer) => !matches!(answer.status.as_u16(), 502..=504),
            Err(fault) => *fault == Fault::TooLong,
        };
        self.settled = true;
        let link = self.link;
        let mut breaker = link.breaker.lock();
        breaker.probing = false;
        let was_open = breaker.open_until.is_some();
        if there {
            breaker.failures = 0;
            breaker.open_until = None;
        } else {
            breaker.failures = breaker.failures.saturating_add(1);
            if was_open || breaker.failures >= breaker.max_failures {
                breaker.open_until = Some(link.clock.now() + breaker.pause);
            }
        }
        let is_open = breaker.open_until.is_some();
        drop(breaker);
        if was_open != is_open {
            match is_open {
                true => tracing::warn!(url = link.url, "the backend does not answer: it is left alone for a while"),
                false => tracing::info!(url = link.url, "the backend answers again"),
            }
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if !self.settled {
            // Whoever asked has gone: the next one may try.
            self.link.breaker.lock().probing = false;
        }
    }
}
