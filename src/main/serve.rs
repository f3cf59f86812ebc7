//! `wsgate serve` and `wsgate dev`: until they are told to stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use anyhow::{Context, bail};
use clap::ArgMatches;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use wsgate::config::misspelt_variables;
use wsgate::dev::Dev;
use wsgate::{Gateway, Limits, Listeners, Secret};

use super::config::{API_KEY, JWT_SECRET, given, settings};
use super::{log, println};

/// What `wsgate dev` can be told.
#[derive(clap::Args)]
pub(super) struct DevArguments {
    // By names of their own, since the environment is not asked: it may be that of a server.
    /// Where clients connect
    #[arg(id = "dev_listen", long = "listen", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where backends connect
    #[arg(
        id = "dev_backend_listen",
        long = "backend-listen",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8081"
    )]
    backend_listen: SocketAddr,
    /// Threads that serve clients; as many as there are processors, if not given
    #[arg(long, value_name = "NUMBER")]
    workers: Option<NonZeroUsize>,
    #[command(flatten)]
    limits: Limits,
}

/// Serves by the settings that an operator has made.
pub(super) async fn serve(matches: ArgMatches) -> anyhow::Result<()> {
    let settings = settings(&matches)?;
    log::start(&settings.options.log, settings.options.log_format)?;
    for (name, meant) in misspelt_variables() {
        tracing::warn!("{name} is in the environment, and means nothing: is it to be {meant}?");
    }
    let config = super::config::checked(&settings)?;
    if config.state_file.is_none() {
        tracing::warn!("revocations and blocks end with this process: give --state-file to keep them");
    }
    let (listen, backend_listen) = (settings.options.listen, settings.options.backend_listen);
    let listeners = listeners(listen, backend_listen).await?;
    let gateway = Gateway::new(config)?;
    run(listeners, gateway).await
}

/// Serves with all on defaults and with secrets made on the spot.
pub(super) async fn dev(arguments: DevArguments) -> anyhow::Result<()> {
    let DevArguments { listen, backend_listen, workers, limits } = arguments;
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
    let found = || std::thread::available_parallelism().context("cannot find the number of processors: give --workers");
    config.workers = workers.map_or_else(found, Ok)?;
    run(listeners, Gateway::new(config)?.with_routes(dev.routes())).await
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
