//! `wsgate serve` and `wsgate dev`: until they are told to stop.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::ArgMatches;
use parking_lot::Mutex;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use wsgate::config::{ListenAddress, Options, Settings};
use wsgate::dev::Dev;
use wsgate::trace::Tracer;
use wsgate::{Config, Gateway, Limits, Listeners, Live, Reloaded, Reread, Secret, Stopped};

use super::config::{API_KEY, JWT_SECRET, given, placed, settings as settings_of};
use super::log::{self, Log};
use super::{println, sockets};

/// How the process ends when some connections did not end in time.
const LEFT: u8 = 3;
/// And when it was told to stop a second time: as a shell says it of a program that was interrupted.
const AT_ONCE: u8 = 130;

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
pub(super) async fn serve(matches: ArgMatches) -> anyhow::Result<ExitCode> {
    let settings = settings_of(&matches)?;
    let log = log::start(&settings.options.log, settings.options.log_format)?;
    tokio::spawn(log.keep_reporting());
    let file = settings.options.config.as_ref().map(|path| path.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = file, "starting");
    let mut config = super::config::checked(&settings)?;
    warn_of(&settings, &config);
    config.tracer = Tracer::from_env().map_err(anyhow::Error::msg)?;
    raise_file_limit(config.limits.max_connections);
    let Options { listen, backend_listen, reuse_port, .. } = &settings.options;
    let inherited = sockets::inherited()?;
    let hands_over = inherited.is_some() || *reuse_port;
    let listeners = inherited.map_or_else(|| sockets::bind(listen, backend_listen, *reuse_port), Ok)?;
    let gateway = Gateway::new(config)?;
    let gateway = if hands_over { gateway.handing_over() } else { gateway };
    let reread = reread(matches, settings, gateway.live(), log);
    // Asked for now: a signal that nobody has asked for ends the process.
    tokio::spawn(reread_on_hangup(signal(SignalKind::hangup())?, Arc::clone(&reread)));
    run(listeners, gateway.with_reread(reread)).await
}

/// Says what an operator has probably not meant.
fn warn_of(settings: &Settings, config: &Config) {
    for remark in settings.remarks(config) {
        tracing::warn!("{remark}");
    }
}

/// Lets the process have as many files open as it may: the usual limit is a thousand, and each connection is a
/// file.
fn raise_file_limit(max_connections: usize) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(files) if files > max_connections as u64 => {}
        Ok(files) => {
            tracing::warn!(files, max_connections, "fewer files may be open than connections: raise `ulimit -n`");
        }
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

/// Reads the settings again, and goes on with them. If anything is wrong, all stays as it is.
fn reread(matches: ArgMatches, settings: Settings, live: Live, log: Log) -> Reread {
    let last = Mutex::new(settings);
    Arc::new(move || {
        let mut last = last.lock();
        let apply = || {
            let settings = settings_of(&matches)?;
            let config = super::config::checked(&settings)?;
            warn_of(&settings, &config);
            live.apply(config).map_err(|error| placed(&settings, &error))?;
            log.set(&settings.options.log)?;
            anyhow::Ok(settings)
        };
        let applied = apply().map_err(|error| format!("{error:#}"));
        live.note_reload(applied.is_ok());
        let settings = applied.inspect_err(|error| {
            tracing::error!(error, "the configuration could not be read again, and is as it was");
        })?;
        let (changed, needs_restart) = settings.changed_since(&last);
        let (now, later) = (changed.join(", "), needs_restart.join(", "));
        tracing::info!(changed = now, needs_restart = later, "the configuration has been read again");
        *last = settings;
        Ok(Reloaded { changed, needs_restart })
    })
}

async fn reread_on_hangup(mut hangup: Signal, reread: Reread) {
    while hangup.recv().await.is_some() {
        let reread = Arc::clone(&reread);
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
        // Files may be on a disk that takes its time. What comes of it is in the log.
        let _logged = tokio::task::spawn_blocking(move || reread()).await;
        notify(&[NotifyState::Ready]);
    }
}

/// Serves with all on defaults and with secrets made on the spot.
pub(super) async fn dev(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    let DevArguments { listen, backend_listen, workers, limits } = arguments;
    if !listen.ip().is_loopback() || !backend_listen.ip().is_loopback() {
        bail!("`wsgate dev` is for this machine only: its tokens are on a page. Listen on 127.0.0.1, or use serve");
    }
    let listeners = sockets::bind(&listen.into(), &backend_listen.into(), false)?;
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
    config.tracer = Tracer::from_env().map_err(anyhow::Error::msg)?;
    raise_file_limit(config.limits.max_connections);
    run(listeners, Gateway::new(config)?.with_routes(dev.routes())).await
}

/// Serves until it is told to stop, and says how that went.
async fn run(listeners: Listeners, gateway: Gateway) -> anyhow::Result<ExitCode> {
    let (public, backend) = (listeners.public.address()?, listeners.backend.address()?);
    let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (told, asked) = oneshot::channel();
    tokio::spawn(heed(interrupt, terminate, told));
    tracing::info!(%public, %backend, "listening");
    notify(&[NotifyState::Ready]);
    match gateway.run(listeners, async { drop(asked.await) }).await {
        Stopped::Empty => {
            tracing::info!("stopped: all connections have ended");
            Ok(ExitCode::SUCCESS)
        }
        Stopped::TimedOut { connections } => {
            tracing::warn!(connections, "stopped: some connections did not end in time");
            Ok(ExitCode::from(LEFT))
        }
    }
}

/// The first signal has the gateway drain, the second ends the process.
async fn heed(mut interrupt: Signal, mut terminate: Signal, told: oneshot::Sender<()>) {
    let mut next = async || {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
    };
    next().await;
    notify(&[NotifyState::Stopping]);
    // If nobody hears it, a backend has asked for the drain before.
    let _heard = told.send(());
    next().await;
    tracing::warn!("stopped at once: told to a second time");
    std::process::exit(i32::from(AT_ONCE));
}

/// Tells the service manager, if there is one (sd_notify(3)).
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}
