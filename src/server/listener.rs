//! Where connections come from: a network, or a socket that is a file.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::ListenAddress;
use crate::connection::{Bare, Peer};

/// A socket that connections are accepted from.
#[derive(Debug)]
pub struct Listener(Source);

#[derive(Debug)]
enum Source {
    Tcp(TcpListener),
    /// With its file, if it is for this to remove.
    Unix(UnixListener, #[allow(dead_code, reason = "it is there to be dropped")] Option<SocketFile>),
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Self(Source::Tcp(listener))
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Self(Source::Unix(listener, None))
    }
}

impl Listener {
    /// Listens on a socket that is a file. One that nobody listens on any more is replaced; the file is
    /// removed when this is dropped.
    ///
    /// # Errors
    /// When it cannot be had, as when another listens on it.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path)? => {
                tracing::info!(path = %path.display(), "a socket that nobody listens on any more is replaced");
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            bound => bound,
        }?;
        let file = SocketFile::of(path)?;
        Ok(Self(Source::Unix(listener, Some(file))))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say, or the socket's file has no name.
    pub fn address(&self) -> io::Result<ListenAddress> {
        match &self.0 {
            Source::Tcp(listener) => listener.local_addr().map(ListenAddress::Tcp),
            Source::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().ok_or_else(|| io::Error::other("the socket's file has no name"))?;
                Ok(ListenAddress::Unix(path.to_owned()))
            }
        }
    }

    /// The same socket on the runtime that this is called on.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(match &self.0 {
            Source::Tcp(listener) => {
                let listener = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
                TcpListener::from_std(listener)?.into()
            }
            Source::Unix(listener, _) => {
                let listener = std::os::unix::net::UnixListener::from(listener.as_fd().try_clone_to_owned()?);
                UnixListener::from_std(listener)?.into()
            }
        })
    }

    /// The next connection, and who is at its other end.
    pub(super) async fn accept(&self) -> io::Result<(Bare, Peer)> {
        match &self.0 {
            Source::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                tcp(stream, address)
            }
            Source::Unix(listener, _) => Ok((Bare::Unix(listener.accept().await?.0), Peer::UNIX)),
        }
    }

    /// The next connection, if one waits. The system itself is asked: the runtime would say no until it has
    /// heard of it.
    pub(super) fn accept_now(&self) -> Option<io::Result<(Bare, Peer)>> {
        let accepted = match &self.0 {
            Source::Tcp(listener) => SockRef::from(listener).accept().and_then(|(socket, address)| {
                socket.set_nonblocking(true)?;
                let address = address.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
                tcp(TcpStream::from_std(socket.into())?, address)
            }),
            Source::Unix(listener, _) => SockRef::from(listener).accept().and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok((Bare::Unix(UnixStream::from_std(socket.into())?), Peer::UNIX))
            }),
        };
        Some(accepted).filter(|accepted| !matches!(accepted, Err(error) if error.kind() == io::ErrorKind::WouldBlock))
    }
}

/// A connection that has been accepted.
fn tcp(stream: TcpStream, address: SocketAddr) -> io::Result<(Bare, Peer)> {
    // Events are small and must not wait for one another.
    stream.set_nodelay(true)?;
    Ok((Bare::Tcp(stream), Peer::at(address.ip())))
}

/// Whether a file is a socket that nobody listens on.
fn is_stale(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and it is no socket"));
    }
    // Without waiting: whoever listens may be too busy to accept.
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let connected = socket.connect(&SockAddr::unix(path)?);
    Ok(connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// The file of a socket, which is gone when this is dropped, unless it is another's by then.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "the file of a socket could not be removed");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
