//! The command line: `wsgate serve`, `wsgate dev`, `wsgate token`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use wsgate::auth::{Claims, Grants, mint};
use wsgate::dev::Dev;
use wsgate::protocol::UserId;
use wsgate::{Clock, Config, Limits, Listeners, Secret};

const JWT_SECRET: &str = "WSGATE_JWT_SECRET";
const API_KEY: &str = "WSGATE_API_KEY";

/// A WebSocket gateway: browsers connect with a JWT, backends push events over HTTP
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Workers {
    /// Threads that serve clients; as many as there are processors, if not given
    #[arg(long = "workers", env = "WSGATE_WORKERS", value_name = "NUMBER")]
    number: Option<NonZeroUsize>,
}

impl Workers {
    fn number(&self) -> anyhow::Result<NonZeroUsize> {
        let found =
            || std::thread::available_parallelism().context("cannot find the number of processors: give --workers");
        self.number.map_or_else(found, Ok)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve; the secrets come from WSGATE_JWT_SECRET and WSGATE_API_KEY
    Serve {
        /// Where clients connect
        #[arg(long, env = "WSGATE_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        /// Where backends connect; it need not face the internet
        #[arg(long, env = "WSGATE_BACKEND_LISTEN", default_value = "127.0.0.1:8081")]
        backend_listen: SocketAddr,
        #[command(flatten)]
        workers: Workers,
        #[command(flatten)]
        limits: Limits,
    },
    /// Try it: on loopback, with secrets made on the spot, a page and lines to paste
    Dev {
        /// Where clients connect
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        /// Where backends connect
        #[arg(long, default_value = "127.0.0.1:8081")]
        backend_listen: SocketAddr,
        #[command(flatten)]
        workers: Workers,
        #[command(flatten)]
        limits: Limits,
    },
    /// Mint a token for development, signed with WSGATE_JWT_SECRET
    Token {
        /// The user
        #[arg(long)]
        sub: UserId,
        /// A pattern of rooms and what is allowed in them, as in 'chat:*=join,publish'; repeatable
        #[arg(long = "grant", value_name = "PATTERN=PERMISSIONS")]
        grants: Vec<String>,
        /// How long it is valid, as in 90s, 1h, 7d
        #[arg(long, value_parser = humantime::parse_duration, default_value = "1h")]
        ttl: Duration,
    },
}

// This thread is the first worker, and serves the backends beside.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let filter = EnvFilter::try_from_env("WSGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let outcome = match command {
        Command::Serve { listen, backend_listen, workers, limits } => {
            serve(listen, backend_listen, &workers, limits).await
        }
        Command::Dev { listen, backend_listen, workers, limits } => dev(listen, backend_listen, &workers, limits).await,
        Command::Token { sub, grants, ttl } => token(&sub, &grants, ttl),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // For a person: what went wrong, and not where in the code.
            let _nobody_reads = writeln!(std::io::stderr(), "wsgate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(
    listen: SocketAddr,
    backend_listen: SocketAddr,
    workers: &Workers,
    limits: Limits,
) -> anyhow::Result<()> {
    let mut config = Config::new(secret(JWT_SECRET, 48)?, secret(API_KEY, 24)?);
    config.limits = limits;
    config.workers = workers.number()?;
    config.check()?;
    let listeners = listeners(listen, backend_listen).await?;
    run(listeners, config).await
}

async fn dev(listen: SocketAddr, backend_listen: SocketAddr, workers: &Workers, limits: Limits) -> anyhow::Result<()> {
    if !listen.ip().is_loopback() || !backend_listen.ip().is_loopback() {
        bail!("`wsgate dev` is for this machine only: its tokens are on a page. Listen on 127.0.0.1, or use serve");
    }
    let listeners = listeners(listen, backend_listen).await?;
    let addresses = (listeners.public.local_addr()?, listeners.backend.local_addr()?);
    let given = |name| std::env::var(name).ok().map(Secret::new);
    let dev = Dev::new(given(JWT_SECRET), given(API_KEY), addresses)?;
    println(&dev.guide())?;
    let mut config = dev.config();
    config.limits = limits;
    config.workers = workers.number()?;
    run(listeners, config).await
}

fn token(sub: &UserId, grants: &[String], ttl: Duration) -> anyhow::Result<()> {
    let secret = secret(JWT_SECRET, 48)?;
    let mut granted = Grants::default();
    for grant in grants {
        granted.add(grant).map_err(anyhow::Error::msg).with_context(|| format!("--grant '{grant}'"))?;
    }
    let exp = Clock::system().unix().saturating_add(ttl).as_secs() as f64;
    let claims = Claims { sub: sub.to_string(), exp, nbf: None, grants: granted };
    println(&mint(&secret, &claims)?)
}

/// Reads a secret from the environment: an argument would be seen by every user of the machine.
fn secret(name: &str, bytes: usize) -> anyhow::Result<Secret> {
    match std::env::var(name) {
        Ok(secret) if !secret.is_empty() => Ok(Secret::new(secret)),
        Ok(_) | Err(std::env::VarError::NotPresent) => {
            bail!("{name} is not set. Make one with:\n\n    export {name}=\"$(openssl rand -base64 {bytes})\"\n")
        }
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}

async fn listeners(public: SocketAddr, backend: SocketAddr) -> anyhow::Result<Listeners> {
    Ok(Listeners { public: bind(public, "--listen").await?, backend: bind(backend, "--backend-listen").await? })
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with {option}"))
}

async fn run(listeners: Listeners, config: Config) -> anyhow::Result<()> {
    let (public, backend) = (listeners.public.local_addr()?, listeners.backend.local_addr()?);
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tracing::info!(%public, %backend, "listening");
    let asked = async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        // Whoever asks twice means now.
        tokio::spawn(async move {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            std::process::exit(130);
        });
    };
    wsgate::run(listeners, config, asked).await?;
    Ok(())
}

fn println(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Gives memory back soon after a burst, and is faster at the small pieces that connections are made of.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
