//! `wsgate explain`: says whether somebody may do something in a room, and why, by a configuration file.

use std::io::Read;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ArgMatches;
use wsgate::auth::{Permission, Rules, Ruling, Verifier};
use wsgate::config::{Issuer, Options};
use wsgate::protocol::{RoomName, UserId};
use wsgate::{Config, Secret, auth};

use super::config::settings;
use super::println;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// What is to be done: join, publish or members
    #[arg(value_parser = permission)]
    action: Permission,
    /// Where
    room: RoomName,
    /// Who, of whom nothing is known but the name
    #[arg(long, conflicts_with = "token", required_unless_present = "token")]
    user: Option<UserId>,
    /// Who, by a token; `-` reads it from the standard input, where no other user can see it
    #[arg(long)]
    token: Option<String>,
    #[command(flatten)]
    options: Box<Options>,
}

fn permission(word: &str) -> Result<Permission, String> {
    word.parse().map_err(|_| "must be join, publish or members".to_owned())
}

/// Ends with 0 if it is allowed, with 1 if it is not, and with 2 if the backend would be asked.
pub(super) async fn run(arguments: Arguments, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Arguments { action, room, user, token, .. } = arguments;
    let mut config = settings(matches)?.configure()?;
    // Nothing is served: the keys of backends do not matter, and all else is to be checked.
    (config.api_key, config.api_keys) = (Some(Secret::new("not needed to explain")), Vec::new());
    if config.issuers.is_empty() && user.is_some() {
        // No token is looked at either.
        config.issuers.push(Issuer::with_secret(Secret::new("")));
    }
    config.check()?;
    let somebody = match (user, token) {
        (Some(user), _) => auth::Identity::of(user),
        (None, Some(token)) => proven(&config, token).await?,
        (None, None) => bail!("--user or --token is needed"),
    };
    let ruling = Rules::new(&config).explain(&somebody, action, &room);
    println(&told(&ruling, &somebody, action, &room))?;
    Ok(match ruling.allowed {
        Some(true) => ExitCode::SUCCESS,
        Some(false) => ExitCode::from(1),
        None => ExitCode::from(2),
    })
}

async fn proven(config: &Config, mut token: String) -> anyhow::Result<auth::Identity> {
    if token == "-" {
        token.clear();
        std::io::stdin().read_to_string(&mut token).context("the token cannot be read")?;
    }
    let verifier = Verifier::new(config)?;
    verifier.fetch_keys().await;
    verifier
        .explain(token.trim())
        .await
        .outcome
        .map_err(|error| anyhow::anyhow!("the token is refused: {}. `wsgate token check` says more", error.detail))
}

/// The ruling as a person reads it.
fn told(ruling: &Ruling, somebody: &auth::Identity, action: Permission, room: &RoomName) -> String {
    let what = format!("{} {action} {room}", somebody.user);
    let mut lines = vec![match ruling.allowed {
        Some(true) => format!("Yes: {what}"),
        Some(false) => format!("No: {what}"),
        None => format!("The backend decides: {what}"),
    }];
    lines.push(format!("  because  {}", ruling.because));
    if let Some(rule) = &ruling.rule {
        lines.push(match rule.line {
            Some(line) => format!("  rule     rooms[{}], line {line}: {action} = \"{}\"", rule.number, rule.access),
            None => "  rule     none is written: tokens decide".to_owned(),
        });
    }
    for needed in &ruling.needed {
        lines.push(format!("  needed   {needed}"));
    }
    lines.join("\n")
}
