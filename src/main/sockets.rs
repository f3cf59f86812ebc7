//! The sockets that the gateway listens on: its own, or those that a service manager has opened for it.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context, anyhow, bail};
use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use wsgate::config::ListenAddress;
use wsgate::{Listener, Listeners};

/// Connections that may wait to be accepted; the system has a limit of its own.
const BACKLOG: i32 = 4096;

/// The sockets of a service manager (sd_listen_fds(3)), if it has opened any: called `public` and `backend`, or
/// in that order if they have no names.
///
/// # Errors
/// One is missing, or is none to listen on.
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
        let missing = || format!("the service manager gives no socket called {name}");
        let place = place.with_context(missing)?;
        // One of another kind stays where it is.
        if let Ok(socket) = given.take_unix_listener(place) {
            let socket = socket.with_context(missing)?;
            socket.set_nonblocking(true)?;
            return anyhow::Ok(Listener::from(UnixListener::from_std(socket)?));
        }
        let socket = given.take_tcp_listener(place);
        let socket = socket.with_context(|| format!("the socket called {name} is none to listen on"))?;
        let socket = socket.with_context(missing)?;
        socket.set_nonblocking(true)?;
        Ok(TcpListener::from_std(socket)?.into())
    };
    Ok(Some(Listeners { public: take("public", 0)?, backend: take("backend", 1)? }))
}

/// Sockets of our own. If the port is shared, another process may listen on it too.
///
/// # Errors
/// When an address cannot be had.
pub(super) fn bind(public: &ListenAddress, backend: &ListenAddress, shared: bool) -> anyhow::Result<Listeners> {
    let is_known = |address: &ListenAddress| matches!(address, ListenAddress::Tcp(address) if address.port() != 0);
    if shared && !(is_known(public) && is_known(backend)) {
        bail!("--reuse-port needs ports that are known: with port 0, or a Unix socket, nobody could share them");
    }
    Ok(Listeners { public: one(public, shared, "--listen")?, backend: one(backend, shared, "--backend-listen")? })
}

fn one(address: &ListenAddress, shared: bool, option: &str) -> anyhow::Result<Listener> {
    let bound = match address {
        ListenAddress::Tcp(address) => tcp(*address, shared).map(Listener::from),
        ListenAddress::Unix(path) => Listener::unix(path),
    };
    bound.map_err(|error| {
        let hint = match address {
            ListenAddress::Tcp(at) if at.port() < 1024 && error.kind() == ErrorKind::PermissionDenied => {
                "; a port below 1024 takes a right, or a service manager: see docs/install.md"
            }
            _ => "",
        };
        anyhow!("cannot listen on {address}: {error}{hint}; or choose another address with {option}")
    })
}

fn tcp(address: SocketAddr, shared: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // What is left of connections from before does not matter.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
