//! `wsgate config`: what has been decided, by whom, and whether it can be.

use std::process::ExitCode;

use anyhow::bail;
use clap::ArgMatches;
use wsgate::config::{Options, Setting, Settings, example};
use wsgate::{Config, ConfigError, Gateway, Secret};

use super::log::Log;
use super::println;

pub(super) const JWT_SECRET: &str = "WSGATE_JWT_SECRET";
pub(super) const API_KEY: &str = "WSGATE_API_KEY";

/// What `wsgate config` can be told.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Print a configuration file with every option, its default, and what it means
    Default,
    /// Print what holds, secrets masked
    Show {
        /// Say of each setting where it comes from: a flag, the environment, a line of the file, or the default
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Say whether `wsgate serve` could start with this, or read it anew
    Check {
        #[command(flatten)]
        options: Box<Options>,
    },
}

pub(super) fn run(arguments: &Arguments, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Default => println(example().trim_end())?,
        Command::Show { origin, .. } => println(&shown(&settings(matches)?.list, *origin))?,
        Command::Check { .. } => {
            let settings = settings(matches)?;
            let config = checked(&settings)?;
            Gateway::check(&config).map_err(|error| placed(&settings, &error))?;
            for remark in settings.remarks(&config).into_iter().chain(Gateway::remarks(&config)) {
                println(&format!("Warning: {remark}."))?;
            }
            match &settings.options.config {
                Some(path) => println(&format!("All is well with {}.", path.display()))?,
                None => println("All is well, without a configuration file.")?,
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The settings as a configuration file.
fn shown(list: &[Setting], with_origin: bool) -> String {
    let line = |setting: &Setting| match (with_origin, setting.text.contains('\n')) {
        (false, _) => setting.text.clone(),
        (true, true) => format!("\n# {}\n{}", setting.origin, setting.text),
        (true, false) => format!("{:<48} # {}", setting.text, setting.origin),
    };
    list.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The settings that the arguments of a command, the environment and the configuration file give.
pub(super) fn settings(matches: &ArgMatches) -> anyhow::Result<Settings> {
    Settings::gather(matches).map_err(anyhow::Error::msg)
}

/// What the gateway runs with, which can be.
pub(super) fn checked(settings: &Settings) -> anyhow::Result<Config> {
    let placed = |error: ConfigError| placed(settings, &error);
    let config = settings.configure().map_err(placed)?;
    if config.issuers.is_empty() && config.anonymous.is_none() {
        bail!("{}", how_to_make(JWT_SECRET, 48));
    }
    if config.api_key.is_none() && config.api_keys.is_empty() {
        bail!("{}", how_to_make(API_KEY, 24));
    }
    config.check().map_err(placed)?;
    settings.check_folders().map_err(placed)?;
    Log::check(&settings.options.log).map_err(placed)?;
    Ok(config)
}

/// What cannot be, and where it stands.
pub(super) fn placed(settings: &Settings, error: &ConfigError) -> anyhow::Error {
    anyhow::Error::msg(settings.place(error))
}

/// How a secret is made that is missing.
pub(super) fn how_to_make(name: &str, bytes: usize) -> String {
    format!("{name} is not set. Make one with:\n\n    export {name}=\"$(openssl rand -base64 {bytes})\"\n")
}

/// A secret from the environment, if it is there: an argument would be seen by every user of the machine.
pub(super) fn given(name: &str) -> anyhow::Result<Option<Secret>> {
    match std::env::var(name) {
        Ok(secret) if secret.is_empty() => Ok(None),
        Ok(secret) => Ok(Some(Secret::new(secret))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}
