//! The options that are one value each. All of them are an option of `wsgate serve`, a variable of the
//! environment and a key of the configuration file, by one name: `--max-depth`, `WSGATE_MAX_DEPTH`,
//! `max_depth`. This is the one place that says so, with the default and the sentence that explains it.

use std::error::Error;
use std::ffi::OsString;
use std::net::IpAddr;
use std::num::{NonZeroUsize, ParseIntError};
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command};
use ipnet::IpNet;

use super::{Limits, ListenAddress, OriginPattern};

/// What the names of variables of the environment begin with.
pub(super) const PREFIX: &str = "WSGATE_";

/// The options that `wsgate serve -h` shows; `--help` shows all.
const COMMON: [&str; 9] = [
    "config",
    "listen",
    "backend_listen",
    "allow_origin",
    "trusted_proxy",
    "state_file",
    "jwt_secret_file",
    "api_key_file",
    "log",
];

/// Options that take effect only at the start.
const AT_START: [&str; 10] = [
    "config",
    "listen",
    "backend_listen",
    "tls_certificate",
    "tls_key",
    "proxy_protocol",
    "reuse_port",
    "workers",
    "state_file",
    "log_format",
];

/// Every option that is one value, or a list of such.
#[derive(Debug, Clone, PartialEq, Args)]
#[allow(clippy::doc_markdown, reason = "the doc comments are also the help of the command line")]
pub struct Options {
    /// The configuration file (TOML). All that is an option here may stand in it, and whose tokens
    /// count, who may do what in which rooms, what API keys there are, and whom to ask
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Where clients connect: an address and a port, or unix: and a path. Whoever may open the file of a
    /// Unix socket is believed as a trusted proxy is
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080", help_heading = "Where it listens")]
    pub listen: ListenAddress,
    /// Where backends connect; it need not face the internet
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081", help_heading = "Where it listens")]
    pub backend_listen: ListenAddress,
    /// The certificate for TLS where clients connect, in PEM, with those between it and one that clients
    /// know; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Where it listens")]
    pub tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM; read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Where it listens")]
    pub tls_key: Option<PathBuf>,
    /// Let another gateway listen on the same ports (SO_REUSEPORT), so that a new version can come before
    /// this one drains
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Where it listens")]
    pub reuse_port: bool,
    /// Threads that serve clients; as many as there are processors, if not given
    #[arg(long, value_name = "NUMBER", help_heading = "Where it listens")]
    pub workers: Option<NonZeroUsize>,

    /// A file with the secret that tokens are signed with, in place of the variable WSGATE_JWT_SECRET;
    /// a line's end behind it does not count
    #[arg(long, value_name = "FILE", help_heading = "Who may connect")]
    pub jwt_secret_file: Option<PathBuf>,
    /// A file with the key of backends, in place of the variable WSGATE_API_KEY
    #[arg(long, value_name = "FILE", help_heading = "Who may connect")]
    pub api_key_file: Option<PathBuf>,
    /// An origin whose pages may connect, as `https://app.example.com` or `https://*.example.com`;
    /// repeatable. Without any, only pages of the gateway's own host
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',', help_heading = "Who may connect")]
    pub allow_origin: Vec<OriginPattern>,
    /// Turn away who names no origin, as programs other than browsers
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Who may connect")]
    pub require_origin: bool,
    /// A cookie that may hold a token; it needs --allow-origin
    #[arg(long, value_name = "NAME", help_heading = "Who may connect")]
    pub cookie: Option<String>,
    /// A proxy, or a network of them, whose X-Forwarded-For is believed, as 10.0.0.0/8; repeatable. If it
    /// sends none, its Forwarded (RFC 7239) is
    #[arg(long, value_name = "NETWORK", value_delimiter = ',', value_parser = network, help_heading = "Who may connect")]
    pub trusted_proxy: Vec<IpNet>,
    /// Clients come by way of --trusted-proxy, or a Unix socket, and every connection begins with a header
    /// of the PROXY protocol, version 1 or 2. Others are refused
    #[arg(long, value_name = "YES", num_args = 0..=1, require_equals = true, default_value = "false",
        default_missing_value = "true", action = clap::ArgAction::Set, help_heading = "Who may connect")]
    pub proxy_protocol: bool,
    /// The file that keeps revocations and blocks; without it they end with the process
    #[arg(long, value_name = "FILE", help_heading = "Who may connect")]
    pub state_file: Option<PathBuf>,

    /// What is limited, and how.
    #[command(flatten)]
    pub limits: Limits,

    /// What is logged: error, warn, info, debug or trace; or part by part, as info,wsgate::hub=debug
    #[arg(long, value_name = "LEVELS", default_value = "info", help_heading = "Logs")]
    pub log: String,
    /// How: for people (text), for programs (json), or as it fits: text on a terminal, else json
    #[arg(long, value_name = "FORMAT", default_value = "auto", help_heading = "Logs")]
    pub log_format: LogFormat,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
}

impl Options {
    /// The bare options: without the environment.
    pub(super) fn command() -> Command {
        Self::augment_args(Command::new("wsgate").no_binary_name(true))
    }

    /// Gives the options of a command the names of their variables in the environment, and takes those
    /// that are rarely needed out of its short help.
    #[must_use]
    pub fn dress(command: Command) -> Command {
        let ours: Vec<_> = Self::command().get_arguments().map(|arg| arg.get_id().clone()).collect();
        let is_serve = command.get_name() == "serve";
        let dressed = command.mut_args(|arg| {
            let name = arg.get_id().as_str().to_owned();
            if !ours.contains(arg.get_id()) {
                return arg;
            }
            let rare = name != "config" && !(is_serve && COMMON.contains(&name.as_str()));
            // An empty variable counts as none: that is how some write what they leave out.
            let empty = std::env::var_os(variable(&name)).is_some_and(|value| value.is_empty());
            let arg = arg.hide_short_help(rare);
            if empty { arg } else { arg.env(variable(&name)) }
        });
        dressed.mut_subcommands(Self::dress)
    }

    /// Whether an option takes effect without a restart.
    pub(super) fn is_live(name: &str) -> bool {
        !AT_START.contains(&name)
    }
}

/// The variable of the environment that an option, or a section of the file, may stand in.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}

/// Whether several values may be given.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), clap::ArgAction::Append)
}

/// An argument as clap reads it.
pub(super) fn argument(arg: &Arg, value: &str) -> OsString {
    format!("--{}={value}", arg.get_long().unwrap_or_default()).into()
}

/// What is wrong with an argument, in one line and without the way to the help; to be read after its name
/// if the value is what is wrong.
pub(super) fn reason(error: &clap::Error) -> String {
    let (Some(ContextValue::String(given)), true) = (error.get(ContextKind::InvalidValue), is_of_a_value(error)) else {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        return line.strip_prefix("error: ").unwrap_or(line).to_owned();
    };
    let why = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) if source.is::<ParseIntError>() => {
            "must be a whole number, 0 or more, without a unit".to_owned()
        }
        (Some(source), _) => source.to_string(),
        (None, Some(ContextValue::Strings(valid))) => format!("must be one of {}", valid.join(", ")),
        (None, _) => "there is no such value".to_owned(),
    };
    format!("cannot be `{given}`: {why}")
}

fn is_of_a_value(error: &clap::Error) -> bool {
    matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| one()).map_err(|_| "must be an address or a network, as 10.0.0.0/8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::FromArgMatches;

    #[test]
    fn options_have_one_name_everywhere_and_those_named_here_exist() {
        let command = Options::command();
        let names: Vec<_> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        for arg in command.get_arguments() {
            assert_eq!(arg.get_long().map(|long| long.replace('-', "_")).as_deref(), Some(arg.get_id().as_str()));
        }
        for name in COMMON.iter().chain(&AT_START) {
            assert!(names.contains(name), "{name}");
        }
    }

    #[test]
    fn the_defaults_of_the_command_line_are_the_defaults_and_hold_their_own_check() {
        let matches = Options::command().try_get_matches_from(Vec::<String>::new()).unwrap();
        let limits = Options::from_arg_matches(&matches).unwrap().limits;
        assert_eq!(limits, Limits::DEFAULT);
        assert_eq!(limits.check(), Ok(()));
    }
}
