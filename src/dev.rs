//! `wsgate dev`: everything that is needed to try the gateway, made on the spot.

mod site;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use thiserror::Error;

use crate::auth::{Claims, Grants, TokenError, mint};
use crate::clock::Clock;
use crate::config::{Config, Origins, RoomRule, Secret};

/// How long tokens are valid.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// Secrets, tokens and a page for one run on this machine.
#[derive(Clone)]
pub struct Dev {
    jwt_secret: Secret,
    api_key: Secret,
    alice: String,
    public: SocketAddr,
    backend: SocketAddr,
}

/// Why there is nothing to try.
#[derive(Debug, Error)]
pub enum DevError {
    /// The operating system has no randomness to give.
    #[error("no randomness for a secret: {0}")]
    Random(#[from] getrandom::Error),
    /// The tokens could not be signed.
    #[error("no token: {0}")]
    Token(#[from] TokenError),
}

impl Dev {
    /// Makes secrets, where none are given, and a token for alice, who may do anything.
    ///
    /// # Errors
    /// When the operating system or the cryptography fails.
    pub fn new(
        jwt_secret: Option<Secret>,
        api_key: Option<Secret>,
        (public, backend): (SocketAddr, SocketAddr),
    ) -> Result<Self, DevError> {
        let jwt_secret = jwt_secret.map_or_else(random_secret::<32>, Ok)?;
        let api_key = api_key.map_or_else(random_secret::<16>, Ok)?;
        let alice = token(&jwt_secret, "alice", TOKEN_LIFE, everything())?;
        Ok(Self { jwt_secret, api_key, alice, public, backend })
    }

    /// The configuration: tokens decide about rooms, in which one sees who is there.
    pub fn config(&self) -> Config {
        let mut config = Config::new(self.jwt_secret.clone(), self.api_key.clone());
        let [personal, others] = RoomRule::by_grant();
        config.rooms = vec![personal, RoomRule { presence: true, ..others }];
        config.origins = Origins::loopback();
        config.weak_secrets = true;
        config
    }

    /// What to print: where the page is, and lines to paste.
    pub fn guide(&self) -> String {
        let Self { public, backend, alice, .. } = self;
        let (key, secret) = (self.api_key.reveal(), self.jwt_secret.reveal());
        format!(
            r#"wsgate {version} in development mode: for this machine only, with secrets made on the spot

  Open a page where alice and bob talk:

    http://{public}/

  Or connect as alice,

    websocat 'ws://{public}/ws?token={alice}'

  and paste these two lines into it:

    {{"type":"join","room":"lobby","id":1}}
    {{"type":"publish","to":{{"room":"lobby"}},"event":"message","data":{{"text":"hi"}},"id":2}}

  Push an event as a backend does:

    curl http://{backend}/v1/publish -H 'Authorization: Bearer {key}' \
      -d '{{"to":{{"room":"lobby"}},"event":"message","data":{{"text":"hello from the backend"}}}}'

  Make a token for somebody else:

    export WSGATE_JWT_SECRET={secret}
    {program} token --sub carol --grant 'lobby=join,publish' --grant 'chat:*=join' --ttl 1h

  Or get one that may do anything, from a page of this machine as well:

    curl 'http://{public}/dev/token?user=carol'
"#,
            version = env!("CARGO_PKG_VERSION"),
            program = std::env::args().next().unwrap_or_else(|| "wsgate".to_owned()),
        )
    }

    /// A page where alice and bob talk, and tokens for whoever asks on this machine: for
    /// `Gateway::with_routes`.
    pub fn routes(&self) -> Router {
        site::routes(self)
    }

    fn token(&self, user: &str, life: Duration, grants: Grants) -> Result<String, DevError> {
        token(&self.jwt_secret, user, life, grants)
    }

    fn page(&self) -> String {
        include_str!("dev/playground.html")
            .replace("{{alice}}", &self.alice)
            .replace("{{public}}", &self.public.to_string())
            .replace("{{backend}}", &self.backend.to_string())
            .replace("{{api_key}}", &escape(self.api_key.reveal()))
    }
}

fn random_secret<const BYTES: usize>() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(Secret::new(BASE64_URL_SAFE_NO_PAD.encode(bytes)))
}

fn token(secret: &Secret, user: &str, life: Duration, grants: Grants) -> Result<String, DevError> {
    let exp = (Clock::system().unix() + life).as_secs() as f64;
    Ok(mint(secret, &Claims { sub: user.to_owned(), exp, nbf: None, grants })?)
}

fn everything() -> Grants {
    let mut grants = Grants::default();
    // The text is ours, and right.
    let _added = grants.add("*=join,publish,members");
    grants
}

/// A key that came from the environment may have anything in it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;").replace('\'', "&#39;")
}
