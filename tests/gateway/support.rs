//! A gateway in one line, and the clients that speak to it.

pub mod backend;
pub mod certificate;
mod client;
#[cfg(feature = "otel")]
pub mod collector;
pub mod issuer;
pub mod program;
mod raw;
pub mod tokens;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wsgate::auth::{Claims, mint};
use wsgate::config::File;
use wsgate::hub::Hub;
use wsgate::{ApiKeys, Clock, Config, Gateway, Limits, Listener, Listeners, ManualClock, Reloaded, Secret, Stopped};

pub use client::Client;
pub use raw::{Opcode, Raw, frame, frame_with, upgrade_request};

pub const JWT_SECRET: &str = "a-secret-for-tests-that-is-long-enough";
pub const API_KEY: &str = "an-api-key-for-tests";

/// No step of a test takes longer, on however busy a machine. Nothing waits for it to pass.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a future, and fails the test when it hangs.
pub async fn within_reason<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Waits until something is the case that cannot be waited for otherwise.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    within_reason(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Waits for an end, and lets time pass meanwhile.
pub async fn ends_in_time<T>(server: &Server, end: impl Future<Output = T>) -> T {
    let passing = async {
        loop {
            server.pass(Duration::from_secs(1));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! { ended = within_reason("the end", end) => ended, () = passing => unreachable!() }
}

/// A running gateway, which stops when the test ends.
pub struct Server {
    pub public: SocketAddr,
    pub backend: SocketAddr,
    pub hub: Arc<Hub>,
    pub keys: ApiKeys,
    pub limits: Limits,
    /// Made when it is needed: that takes longer than a test.
    http: OnceLock<reqwest::Client>,
    clock: Clock,
    time: ManualClock,
    shutdown: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<Stopped>>,
}

impl Server {
    /// A gateway with the default limits.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A gateway with other limits.
    pub async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        Self::configured(|config| change(&mut config.limits)).await
    }

    /// A gateway that serves on so many threads, of which each has a runtime of its own but the first.
    pub async fn on_workers(number: usize) -> Self {
        Self::configured(|config| config.workers = NonZeroUsize::new(number).unwrap()).await
    }

    /// A gateway with what a configuration file says.
    pub async fn with_file(text: &str) -> Self {
        let file: File = text.parse().unwrap();
        Self::configured(|config| {
            config.rooms = file.rooms;
            config.backend = file.backend;

            config.anonymous = file.anonymous;
        })
        .await
    }

    /// A gateway with another configuration.
    pub async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = public.local_addr().unwrap();
        Self { public: address, ..Self::listening(public.into(), change).await }
    }

    /// A gateway whose clients come this way, as over a Unix socket: `public` is no address then.
    pub async fn listening(public: Listener, change: impl FnOnce(&mut Config)) -> Self {
        let (clock, time) = Clock::manual();
        let mut config = Config::new(Secret::new(JWT_SECRET), Secret::new(API_KEY));
        config.clock = clock.clone();
        change(&mut config);
        let limits = config.limits.clone();
        let gateway = Gateway::new(config).unwrap().with_reread(Arc::new(|| Ok(Reloaded::default())));
        let (hub, keys) = (Arc::clone(gateway.hub()), gateway.api_keys());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap();
        let listeners = Listeners { public, backend: listener.into() };
        let public = SocketAddr::from(([0, 0, 0, 0], 0));
        let (shutdown, asked) = oneshot::channel::<()>();
        let running = tokio::spawn(gateway.run(listeners, async {
            let _dropped_is_asked_too = asked.await;
        }));
        let (shutdown, running) = (Some(shutdown), Some(running));
        Self { public, backend, hub, keys, limits, http: OnceLock::new(), clock, time, shutdown, running }
    }

    /// The time of day, since the Unix epoch.
    pub fn unix(&self) -> Duration {
        self.clock.unix()
    }

    /// A token of an hour.
    pub fn token(&self, user: &str, grants: Value) -> String {
        self.token_for(user, grants, Duration::from_secs(3600))
    }

    /// A token for a time. It ends a fraction of a second later, so that whole seconds are left.
    pub fn token_for(&self, user: &str, grants: Value, time: Duration) -> String {
        let exp = (self.clock.unix() + time).as_secs() + 1;
        let grants = serde_json::from_value(grants).unwrap();
        let claims = Claims { sub: user.to_owned(), exp: exp as f64, nbf: None, grants };
        mint(&Secret::new(JWT_SECRET), &claims).unwrap()
    }

    /// A token of an hour with other claims beside.
    pub fn token_with(&self, user: &str, mut claims: Value) -> String {
        claims["sub"] = user.into();
        claims["exp"] = (self.clock.unix().as_secs() + 3601).into();
        let key = tokens::Key { algorithm: Algorithm::HS256, private: JWT_SECRET.to_owned() };
        key.sign(None, &claims)
    }

    /// Connects a user whose token has other claims.
    pub async fn connect_with(&self, user: &str, claims: Value) -> Client {
        self.connect_by(&format!("?token={}", self.token_with(user, claims))).await
    }

    /// Connects by a query that lets in, and reads the welcome.
    pub async fn connect_by(&self, query: &str) -> Client {
        let mut client = self.dial(query).await;
        let welcome = client.receive().await;
        assert_eq!(welcome["type"], "welcome", "{welcome}");
        client.id = welcome["connection"].as_str().unwrap().to_owned();
        client
    }

    /// Connects with whatever is in the query, and reads nothing.
    pub async fn dial(&self, query: &str) -> Client {
        Client::dial(self.public, &format!("/ws{query}")).await
    }

    /// Connects a user with grants, and reads the welcome.
    pub async fn connect(&self, user: &str, grants: Value) -> Client {
        self.connect_by(&format!("?token={}", self.token(user, grants))).await
    }

    /// Connects users who are granted all there is, each in the rooms given.
    pub async fn members<const N: usize>(&self, users: [&str; N], rooms: &[&str]) -> [Client; N] {
        let mut clients = Vec::new();
        for user in users {
            let mut client = self.connect(user, serde_json::json!({"*": ["join", "publish"]})).await;
            for room in rooms {
                client.join(room).await;
            }
            clients.push(client);
        }
        clients.try_into().ok().unwrap()
    }

    /// A request to the API with the key that may do everything.
    pub async fn api(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.api_with(API_KEY, method, path, body).await
    }

    /// A request to the API with a key.
    pub async fn api_with(&self, key: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let url = format!("http://{}{path}", self.backend);
        let request =
            self.http.get_or_init(reqwest::Client::new).request(method.parse().unwrap(), url).bearer_auth(key);
        let response = within_reason("an answer of the API", request.body(body.to_owned()).send()).await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// A request to the API whose answer is waited for later: its status, and its body as it came.
    pub fn api_later(&self, method: &str, path: &str, body: &str) -> JoinHandle<(u16, String)> {
        let url = format!("http://{}{path}", self.backend);
        let request =
            self.http.get_or_init(reqwest::Client::new).request(method.parse().unwrap(), url).bearer_auth(API_KEY);
        let request = request.body(body.to_owned());
        tokio::spawn(async move {
            let response = within_reason("an answer of the API", request.send()).await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        })
    }

    /// One number of `/metrics`; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> u64 {
        let request = reqwest::get(format!("http://{}/metrics", self.backend));
        let text = within_reason("the metrics", request).await.unwrap().text().await.unwrap();
        let name = format!("{name} ");
        text.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |number| number.parse().unwrap())
    }

    /// `POST /v1/publish`, and how many connections it reached.
    pub async fn publish(&self, body: Value) -> u64 {
        let (status, answer) = self.api("POST", "/v1/publish", &body.to_string()).await;
        assert_eq!(status, 200, "{answer}");
        answer["reached"].as_u64().unwrap()
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.time.advance(time);
    }

    /// Sets the time of day forward: no timer fires.
    pub fn set_clock_forward(&self, by: Duration) {
        self.time.set_forward(by);
    }

    /// Asks the gateway to stop.
    pub fn ask_to_stop(&mut self) {
        drop(self.shutdown.take());
    }

    /// Whether it has stopped.
    pub fn is_stopped(&self) -> bool {
        self.running.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it has, and says how.
    pub async fn stopped(&mut self) -> Stopped {
        within_reason("the gateway to stop", self.running.take().unwrap()).await.unwrap()
    }
}
