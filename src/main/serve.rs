//! `wsgate serve` and `wsgate dev`: until they are told to stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ArgMatches;
use parking_lot::Mutex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wsgate::config::{ListenAddress, Settings, misspelt_variables};
use wsgate::dev::Dev;
use wsgate::{Gateway, Limits, Listener, Listeners, Live, Reloaded, Reread, Secret};

use super::config::{API_KEY, JWT_SECRET, given, settings as settings_of};
use super::log::{self, Log};
use super::println;

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
    let settings = settings_of(&matches)?;
    let log = log::start(&settings.options.log, settings.options.log_format)?;
    for (name, meant) in misspelt_variables() {
        tracing::warn!("{name} is in the environment, and means nothing: is it to be {meant}?");
    }
    let config = super::config::checked(&settings)?;
    if config.state_file.is_none() {
        tracing::warn!("revocations and blocks end with this process: give --state-file to keep them");
    }
    let listeners = listeners(&settings.options.listen, &settings.options.backend_listen).await?;
    let gateway = Gateway::new(config)?;
    let reread = reread(matches, settings, gateway.live(), log);
    // Asked for now: a signal that nobody has asked for ends the process.
    tokio::spawn(reread_on_hangup(signal(SignalKind::hangup())?, Arc::clone(&reread)));
    run(listeners, gateway.with_reread(reread)).await
}

/// Reads the settings again, and goes on with them. If anything is wrong, all stays as it is.
fn reread(matches: ArgMatches, settings: Settings, live: Live, log: Log) -> Reread {
    let last = Mutex::new(settings);
    Arc::new(move || {
        let mut last = last.lock();
        let apply = || {
            let settings = settings_of(&matches)?;
            let config = super::config::checked(&settings)?;
            Log::check(&settings.options.log)?;
            live.apply(config)?;
            log.set(&settings.options.log)?;
            anyhow::Ok(settings)
        };
        let settings = apply().map_err(|error| format!("{error:#}")).inspect_err(|error| {
            tracing::error!(error, "the configuration could not be read again, and is as it was");
        })?;
        let (changed, needs_restart) = settings.changed_since(&last);
        tracing::info!(?changed, ?needs_restart, "the configuration has been read again");
        *last = settings;
        Ok(Reloaded { changed, needs_restart })
    })
}

async fn reread_on_hangup(mut hangup: Signal, reread: Reread) {
    while hangup.recv().await.is_some() {
        let reread = Arc::clone(&reread);
        // Files may be on a disk that takes its time. What comes of it is in the log.
        let _logged = tokio::task::spawn_blocking(move || reread()).await;
    }
}

/// Serves with all on defaults and with secrets made on the spot.
pub(super) async fn dev(arguments: DevArguments) -> anyhow::Result<()> {
    let DevArguments { listen, backend_listen, workers, limits } = arguments;
    if !listen.ip().is_loopback() || !backend_listen.ip().is_loopback() {
        bail!("`wsgate dev` is for this machine only: its tokens are on a page. Listen on 127.0.0.1, or use serve");
    }
    let listeners = listeners(&listen.into(), &backend_listen.into()).await?;
    let (ListenAddress::Tcp(public), ListenAddress::Tcp(backend)) =
        (listeners.public.address()?, listeners.backend.address()?)
    else {
        bail!("`wsgate dev` listens on addresses only");
    };
    // It is printed, in a line to paste.
    let api_key = given(API_KEY)?.map(|key| Secret::new(key.reveal().trim_ascii()));
    let dev = Dev::new(given(JWT_SECRET)?, api_key, (public, backend))?;
    println(&dev.guide())?;
    let mut config = dev.config();
    config.limits = limits;
    let found = || std::thread::available_parallelism().context("cannot find the number of processors: give --workers");
    config.workers = workers.map_or_else(found, Ok)?;
    run(listeners, Gateway::new(config)?.with_routes(dev.routes())).await
}

async fn listeners(public: &ListenAddress, backend: &ListenAddress) -> anyhow::Result<Listeners> {
    Ok(Listeners { public: bind(public, "--listen").await?, backend: bind(backend, "--backend-listen").await? })
}

async fn bind(address: &ListenAddress, option: &str) -> anyhow::Result<Listener> {
    let bound = Listener::bind(address).await;
    bound.with_context(|| format!("cannot listen on {address}; choose another address with {option}"))
}

async fn run(listeners: Listeners, gateway: Gateway) -> anyhow::Result<()> {
    let (public, backend) = (listeners.public.address()?, listeners.backend.address()?);
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
