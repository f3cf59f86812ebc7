//! The command line: what `wsgate` can be told, and what runs then.

#[path = "main/completions.rs"]
mod completions;
#[path = "main/config.rs"]
mod config;
#[path = "main/explain.rs"]
mod explain;
#[path = "main/health.rs"]
mod health;
#[path = "main/log.rs"]
mod log;
#[path = "main/manual.rs"]
mod manual;
#[path = "main/serve.rs"]
mod serve;
#[path = "main/sockets.rs"]
mod sockets;
#[path = "main/token.rs"]
mod token;

use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use wsgate::config::{LogFormat, Options, wrong_variable};

/// How the process ends that was told something it cannot do, as clap has it.
const USAGE: u8 = 2;

/// A WebSocket gateway: browsers connect with a JWT, backends push events over HTTP
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve; the secrets come from WSGATE_JWT_SECRET and WSGATE_API_KEY, or from files
    Serve {
        #[command(flatten)]
        options: Box<Options>,
    },
    /// Try it: on loopback, with secrets made on the spot, a page and lines to paste
    Dev(Box<serve::DevArguments>),
    /// Print, explain and check the configuration
    Config(config::Arguments),
    /// Ask a gateway whether it is ready: ends with 0 if so, for whatever looks after a container
    Health(health::Arguments),
    /// Say whether somebody may join, publish or see the members of a room, and why
    Explain(explain::Arguments),
    /// Make tokens and keys for development, and check tokens
    Token(token::Arguments),
    /// Print what a shell needs to complete these arguments, as `source <(wsgate completions bash)` does
    Completions(completions::Arguments),
    /// Print the manual's page of wsgate, or write all of its pages into a folder
    Man(manual::Arguments),
}

// This thread is the first worker, and serves the backends beside.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let matches = match command_line().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => match wrong_variable().filter(|_| error.use_stderr()) {
            Some(why) => {
                let _nobody_reads = writeln!(std::io::stderr(), "wsgate: {why}");
                return ExitCode::from(USAGE);
            }
            None => error.exit(),
        },
    };
    let outcome = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => run(arguments.command, leaf(matches)).await,
        // It has parsed already.
        Err(error) => error.exit(),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            // For a person: what went wrong, and not where in the code.
            let _nobody_reads = writeln!(std::io::stderr(), "wsgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, matches: ArgMatches) -> anyhow::Result<ExitCode> {
    match command {
        // Its own words come later: when it is known how they are to be written.
        Command::Serve { .. } => return serve::serve(matches).await,
        Command::Config(arguments) => return config::run(&arguments, &matches),
        Command::Completions(arguments) => return completions::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Man(arguments) => return manual::run(&arguments).map(|()| ExitCode::SUCCESS),
        _ => {}
    }
    let levels = std::env::var("WSGATE_LOG").unwrap_or_else(|_| "info".to_owned());
    log::start(&levels, LogFormat::Text)?;
    match command {
        Command::Dev(arguments) => serve::dev(*arguments).await,
        Command::Health(arguments) => health::run(arguments, &matches).await,
        Command::Explain(arguments) => explain::run(arguments, &matches).await,
        Command::Token(arguments) => token::run(arguments, &matches).await.map(|()| ExitCode::SUCCESS),
        Command::Serve { .. } | Command::Config(_) | Command::Completions(_) | Command::Man(_) => Ok(ExitCode::SUCCESS),
    }
}

/// The commands with their arguments, and what the options say of themselves.
fn command_line() -> clap::Command {
    Options::dress(Arguments::command())
}

/// What was given to the innermost command.
fn leaf(mut matches: ArgMatches) -> ArgMatches {
    while let Some((_, inner)) = matches.remove_subcommand() {
        matches = inner;
    }
    matches
}

/// Prints a line. Whoever reads no further, as `head`, has had enough, and nothing is wrong.
fn println(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

/// Gives memory back soon after a burst, and is faster at the small pieces that connections are made of.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
