//! `wsgate token`: makes tokens and keys for development, and says why a token is accepted or not.

use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, bail};
use clap::{ArgMatches, Subcommand};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};
use wsgate::auth::{Explanation, Grants, SigningKey, Verifier, generate};
use wsgate::config::Options;
use wsgate::protocol::UserId;
use wsgate::{Clock, Config};

use super::config::{JWT_SECRET, given, how_to_make, settings};
use super::println;

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sign: Sign,
}

#[derive(Subcommand)]
enum Command {
    /// Say in words why a token would be accepted or refused
    Check {
        /// The token; `-` reads it from the standard input, where no other user can see it
        token: String,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Make a private key (PEM), or a secret, for development
    Key {
        /// What it is for, as in RS256, ES256, EdDSA, HS256
        algorithm: Algorithm,
    },
    /// Print the public parts of private keys as a JWKS (RFC 7517)
    Jwks {
        /// Private keys in PEM
        #[arg(required = true)]
        keys: Vec<PathBuf>,
    },
}

#[derive(clap::Args)]
struct Sign {
    /// The user
    #[arg(long, required = true)]
    sub: Option<UserId>,
    /// A pattern of rooms and what is allowed in them, as in 'chat:*=join,publish'; repeatable
    #[arg(long = "grant", value_name = "PATTERN=PERMISSIONS")]
    grants: Vec<String>,
    /// How long it is valid, as in 90s, 1h, 7d
    #[arg(long, value_parser = humantime::parse_duration, default_value = "1h")]
    ttl: Duration,
    /// A private key in PEM to sign with, in place of WSGATE_JWT_SECRET
    #[arg(long)]
    key: Option<PathBuf>,
    /// The algorithm, if it is not the usual one of the key (HS256 for a secret)
    #[arg(long)]
    algorithm: Option<Algorithm>,
    /// The key's id in the header; for a private key, what `wsgate token jwks` prints, if not given
    #[arg(long)]
    kid: Option<String>,
    /// Another claim, as in 'iss="https://login.example.com"' or 'aud=["chat"]'; repeatable
    #[arg(long = "claim", value_name = "NAME=JSON")]
    claims: Vec<String>,
}

pub(super) async fn run(arguments: Arguments, matches: &ArgMatches) -> anyhow::Result<()> {
    match arguments.command {
        None => sign(arguments.sign),
        Some(Command::Check { token, .. }) => check(&token, matches).await,
        Some(Command::Key { algorithm }) => println(&generate(algorithm).map_err(anyhow::Error::msg)?),
        Some(Command::Jwks { keys }) => jwks(&keys),
    }
}

fn sign(sign: Sign) -> anyhow::Result<()> {
    let Some(sub) = sign.sub else { bail!("--sub is missing") };
    let mut grants = Grants::default();
    for grant in &sign.grants {
        grants.add(grant).map_err(anyhow::Error::msg).with_context(|| format!("--grant '{grant}'"))?;
    }
    let key = match &sign.key {
        Some(path) => {
            let key = private_key(path, sign.algorithm)?;
            let kid = sign.kid.map_or_else(|| key.kid(), Ok)?;
            key.with_kid(Some(kid))
        }
        None => SigningKey::secret(
            &given(JWT_SECRET)?.with_context(|| how_to_make(JWT_SECRET, 48))?,
            sign.algorithm.unwrap_or(Algorithm::HS256),
        )
        .map_err(anyhow::Error::msg)
        .context("--algorithm")?
        .with_kid(sign.kid),
    };
    let now = Clock::system().unix();
    let mut claims = Map::new();
    claims.insert("sub".to_owned(), json!(sub));
    claims.insert("iat".to_owned(), json!(now.as_secs()));
    claims.insert("exp".to_owned(), json!(now.saturating_add(sign.ttl).as_secs()));
    claims.insert("grants".to_owned(), json!(grants));
    for claim in &sign.claims {
        let (name, value) =
            claim.split_once('=').with_context(|| format!("--claim '{claim}' must look like 'name=JSON'"))?;
        let value = serde_json::from_str(value);
        claims.insert(name.to_owned(), value.with_context(|| format!("--claim '{claim}': a string needs its quotes"))?);
    }
    println(&key.sign(&claims)?)
}

fn private_key(path: &PathBuf, algorithm: Option<Algorithm>) -> anyhow::Result<SigningKey> {
    let pem = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    SigningKey::pem(&pem, algorithm).map_err(|why| anyhow::anyhow!("{} {why}", path.display()))
}

fn jwks(paths: &[PathBuf]) -> anyhow::Result<()> {
    let keys = paths.iter().map(|path| Ok(private_key(path, None)?.jwk()?)).collect::<anyhow::Result<Vec<Value>>>()?;
    println(&serde_json::to_string_pretty(&json!({ "keys": keys }))?)
}

async fn check(token: &str, matches: &ArgMatches) -> anyhow::Result<()> {
    let mut token = token.to_owned();
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token).context("the token cannot be read")?;
    }
    let config = settings(matches)?.configure()?;
    if config.issuers.is_empty() {
        bail!("{}", how_to_make(JWT_SECRET, 48));
    }
    let verifier = Verifier::new(&config)?;
    verifier.fetch_keys().await;
    let explanation = verifier.explain(token.trim()).await;
    println(&told(&explanation, &config))?;
    if explanation.outcome.is_err() {
        std::process::exit(1);
    }
    Ok(())
}

/// The explanation as a person reads it.
fn told(explanation: &Explanation, config: &Config) -> String {
    let mut lines = Vec::new();
    match &explanation.outcome {
        Ok(identity) => {
            let left = identity.expires_at.saturating_sub(config.clock.unix()).as_secs();
            let left = humantime::format_duration(Duration::from_secs(left));
            lines.push(format!("Accepted: user {}, for {left}", identity.user));
            lines.push(format!("  grants  {}", json!(identity.grants)));
        }
        Err(error) => {
            lines.push(format!("Refused: {}", error.reason));
            lines.push(format!("  why     {}", error.detail));
            lines.push(format!("  advice  {}", error.reason.advice()));
            lines.push(format!("  A client is told: {}", error.reason.sentence()));
        }
    }
    let known = |what: &Option<String>| what.clone().unwrap_or_else(|| "none was found".to_owned());
    lines.push(format!("  issuer  {}", known(&explanation.issuer)));
    lines.push(format!("  key     {}", known(&explanation.key)));
    if let Some(header) = &explanation.header {
        lines.push(format!("  header  {header}"));
    }
    if let Some(claims) = &explanation.claims {
        lines.push(format!("  claims  {claims}"));
        for claim in ["iat", "nbf", "exp"] {
            if let Some(time) = claims.get(claim).and_then(Value::as_u64).filter(|time| *time < 253_402_300_800) {
                let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(time));
                lines.push(format!("  {claim:<7} {time}"));
            }
        }
    }
    lines.join("\n")
}
