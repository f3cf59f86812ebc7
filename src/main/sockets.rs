//! The sockets that the gateway listens on: its own, or those that a service manager has opened for it.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use wsgate::Listeners;

/// Connections that may wait to be accepted; the system has a limit of its own.
const BACKLOG: i32 = 4096;

/// The sockets of a service manager (sd_listen_fds(3)), if it has opened any: called `public` and `backend`, or
/// in that order if they have no names.
///
/// # Errors
/// One is missing, or is no TCP socket.
pub(super) fn inherited() -> anyhow::Result<Option<Listeners>> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        return Ok(None);
    }
    let mut take = |name: &str, order: usize| {
        let named = names.split(':').position(|other| other == name);
        // Without names each is called `unknown`, or after its unit.
        let place = if names.split(':').any(|name| matches!(name, "public" | "backend")) { named } else { Some(order) };
        let socket = place.and_then(|place| given.take_tcp_listener(place).transpose());
        let socket = socket.with_context(|| format!("the service manager gives no socket called {name}"))?;
        let socket = socket.with_context(|| format!("the socket called {name} is no listening TCP socket"))?;
        socket.set_nonblocking(true)?;
        anyhow::Ok(TcpListener::from_std(socket)?)
    };
    Ok(Some(Listeners { public: take("public", 0)?, backend: take("backend", 1)? }))
}

/// Sockets of our own. If the port is shared, another process may listen on it too.
///
/// # Errors
/// When an address cannot be had.
pub(super) fn bind(public: SocketAddr, backend: SocketAddr, shared: bool) -> anyhow::Result<Listeners> {
    if shared && (public.port() == 0 || backend.port() == 0) {
        bail!("--reuse-port needs ports that are known: with port 0 nobody could share them");
    }
    Ok(Listeners { public: one(public, shared, "--listen")?, backend: one(backend, shared, "--backend-listen")? })
}

fn one(address: SocketAddr, shared: bool, option: &str) -> anyhow::Result<TcpListener> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // What is left of connections from before does not matter.
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(shared)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().with_context(|| format!("cannot listen on {address}; choose another address with {option}"))
}
