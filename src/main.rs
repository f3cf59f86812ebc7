//! The command line: `wsgate serve`, `wsgate dev`, `wsgate explain`, `wsgate token`.

#[path = "main/completions.rs"]
mod completions;
#[path = "main/explain.rs"]
mod explain;
#[path = "main/manual.rs"]
mod manual;
#[path = "main/token.rs"]
mod token;

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;
use wsgate::config::{File, Issuer, OriginPattern, Origins};
use wsgate::dev::Dev;
use wsgate::{ApiKeys, Config, Gateway, Limits, Listeners, Secret};

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

/// Who may connect.
#[derive(clap::Args)]
#[command(next_help_heading = "Who may connect")]
struct Identity {
    /// A file that says whose tokens count, and what API keys there are; for one secret and one key,
    /// WSGATE_JWT_SECRET and WSGATE_API_KEY alone will do. On SIGHUP its API keys are read again
    #[arg(long, env = "WSGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// An origin whose pages may connect, as https://app.example.com or https://*.example.com;
    /// repeatable. Without any, only pages of the gateway's own host
    #[arg(long = "allow-origin", env = "WSGATE_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    origins: Vec<OriginPattern>,
    /// Turn away who names no origin, as programs other than browsers
    #[arg(long, env = "WSGATE_REQUIRE_ORIGIN")]
    require_origin: bool,
    /// A cookie that may hold a token; it needs --allow-origin
    #[arg(long, env = "WSGATE_COOKIE", value_name = "NAME")]
    cookie: Option<String>,
    /// A proxy, or a network of them, whose X-Forwarded-For is believed, as 10.0.0.0/8; repeatable
    #[arg(long = "trusted-proxy", env = "WSGATE_TRUSTED_PROXY", value_name = "NETWORK", value_delimiter = ',', value_parser = network)]
    trusted_proxies: Vec<IpNet>,
    /// The file that keeps revocations and blocks; without it they end with the process
    #[arg(long, env = "WSGATE_STATE_FILE", value_name = "FILE")]
    state_file: Option<PathBuf>,
}

/// A network, or one address.
fn network(text: &str) -> Result<IpNet, String> {
    let one = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse().or_else(|_| one()).map_err(|_| "must be an address or a network, as 10.0.0.0/8".to_owned())
}

impl Identity {
    /// The configuration that this and the environment give.
    fn configure(self) -> anyhow::Result<Config> {
        let file =
            self.config.as_deref().map_or_else(|| Ok(File::default()), File::read).map_err(anyhow::Error::msg)?;
        // With a file, the secret in the environment is one more issuer, if there is one.
        let jwt_secret = match secret(JWT_SECRET, 48) {
            Ok(secret) => Some(Issuer::with_secret(secret)),
            Err(_) if self.config.is_some() => None,
            Err(error) => return Err(error),
        };
        let mut config = Config::new(Secret::new(""), Secret::new(""));
        (config.api_key, config.api_keys) = (given(API_KEY)?, file.api_keys);
        config.issuers = file.issuers.into_iter().chain(jwt_secret).collect();
        config.rooms = file.rooms;
        config.backend = file.backend;
        config.anonymous = file.anonymous;
        config.origins = Origins::list(self.origins).required(self.require_origin);
        config.cookie = self.cookie;
        config.trusted_proxies = self.trusted_proxies;
        config.state_file = self.state_file;
        Ok(config)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Serve; the secrets come from WSGATE_JWT_SECRET and WSGATE_API_KEY, or a file
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
        identity: Identity,
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
    let command = Arguments::parse().command;
    let filter = EnvFilter::try_from_env("WSGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let outcome = match command {
        Command::Serve { listen, backend_listen, workers, identity, limits } => {
            serve(listen, backend_listen, &workers, identity, limits).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Dev { listen, backend_listen, workers, limits } => {
            dev(listen, backend_listen, &workers, limits).await.map(|()| ExitCode::SUCCESS)
        }
        Command::Explain(arguments) => explain::run(arguments).await,
        Command::Token(arguments) => token::run(arguments).await.map(|()| ExitCode::SUCCESS),
        Command::Completions(arguments) => completions::run(&arguments).map(|()| ExitCode::SUCCESS),
        Command::Man(arguments) => manual::run(&arguments).map(|()| ExitCode::SUCCESS),
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

async fn serve(
    listen: SocketAddr,
    backend_listen: SocketAddr,
    workers: &Workers,
    identity: Identity,
    limits: Limits,
) -> anyhow::Result<()> {
    let file = identity.config.clone();
    let mut config = identity.configure()?;
    if config.api_key.is_none() && config.api_keys.is_empty() {
        secret(API_KEY, 24)?;
    }
    if config.state_file.is_none() {
        tracing::warn!("revocations and blocks end with this process: give --state-file to keep them");
    }
    config.limits = limits;
    config.workers = workers.number()?;
    config.check()?;
    let listeners = listeners(listen, backend_listen).await?;
    let api_key = config.api_key.clone();
    let gateway = Gateway::new(config)?;
    // Asked for now: a signal that nobody has asked for ends the process.
    tokio::spawn(reload_keys(signal(SignalKind::hangup())?, gateway.api_keys(), api_key, file));
    run(listeners, gateway).await
}

/// Reads the API keys again whenever the operator says that they have changed. Nothing else of the
/// file is, and if anything in it is wrong, all keys stay as they are.
async fn reload_keys(mut hangup: Signal, keys: ApiKeys, api_key: Option<Secret>, file: Option<PathBuf>) {
    while hangup.recv().await.is_some() {
        let Some(file) = file.clone() else {
            tracing::warn!("there is nothing to read again: no --config was given");
            continue;
        };
        let (keys, api_key) = (keys.clone(), api_key.clone());
        let read = move || {
            let file = File::read(&file)?;
            keys.replace(api_key.as_ref(), &file.api_keys).map_err(|error| error.to_string())
        };
        // A file may be on a disk that takes its time.
        match tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string()).flatten() {
            Ok(()) => tracing::info!("the API keys have been read again, and nothing else of the file"),
            Err(error) => tracing::error!(error, "the API keys could not be read again, and are as they were"),
        }
    }
}

async fn dev(listen: SocketAddr, backend_listen: SocketAddr, workers: &Workers, limits: Limits) -> anyhow::Result<()> {
    if !listen.ip().is_loopback() || !backend_listen.ip().is_loopback() {
        bail!("`wsgate dev` is for this machine only: its tokens are on a page. Listen on 127.0.0.1, or use serve");
    }
    let listeners = listeners(listen, backend_listen).await?;
    let addresses = (listeners.public.local_addr()?, listeners.backend.local_addr()?);
    // It is printed, in a line to paste.
    let api_key = given(API_KEY)?.map(|key| Secret::new(key.reveal().trim_ascii()));
    let dev = Dev::new(given(JWT_SECRET)?, api_key, addresses)?;
    println(&dev.guide())?;
    let mut config = dev.config();
    config.limits = limits;
    config.workers = workers.number()?;
    run(listeners, Gateway::new(config)?.with_routes(dev.routes())).await
}

/// Reads a secret from the environment: an argument would be seen by every user of the machine.
fn secret(name: &str, bytes: usize) -> anyhow::Result<Secret> {
    let how =
        || format!("{name} is not set. Make one with:\n\n    export {name}=\"$(openssl rand -base64 {bytes})\"\n");
    given(name)?.with_context(how)
}

/// The same, if it is there.
fn given(name: &str) -> anyhow::Result<Option<Secret>> {
    match std::env::var(name) {
        Ok(secret) if secret.is_empty() => Ok(None),
        Ok(secret) => Ok(Some(Secret::new(secret))),
        Err(std::env::VarError::NotPresent) => Ok(None),
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

async fn run(listeners: Listeners, gateway: Gateway) -> anyhow::Result<()> {
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
    gateway.run(listeners, asked).await;
    Ok(())
}

fn println(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Gives memory back soon after a burst, and is faster at the small pieces that connections are made of.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
