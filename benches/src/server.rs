//! Starts and ends the servers.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dialect::Dialect;
use crate::load::Target;

/// The floor's one thread has this one, and the subjects too, unless `--cores` gives them others.
const SERVER_CORE: &str = "0";
const START: Duration = Duration::from_secs(20);

/// What is needed to start any of them.
pub struct Programs {
    /// The gateway's binary.
    pub wsgate: PathBuf,
    /// Where the peers are, with what they need installed.
    pub peers: PathBuf,
    /// The cores of a subject, as taskset takes them.
    pub cores: String,
    /// Where the servers' output goes.
    pub logs: PathBuf,
}

/// A server that runs; dropping it ends it.
pub struct Server {
    process: Child,
    /// For the load.
    pub target: Target,
    /// Where the gateway's backend listener is.
    pub backend: SocketAddr,
}

/// What the API is shown.
pub const API_KEY: &str = "an API key for benchmarks";

impl Programs {
    /// Starts a server on a free port, and waits until it listens.
    pub fn start(&self, dialect: Dialect) -> Result<Server> {
        let (address, backend) = (free_address()?, free_address()?);
        let target = Target { dialect, address, pid: 0, secret: "a secret of 32 bytes or more, for benchmarks".into() };
        let log = File::create(self.logs.join(format!("{}.log", dialect.name())))?;
        let cores = if dialect == Dialect::Floor { SERVER_CORE } else { &self.cores };
        let process = Command::new("taskset")
            .args(["-c", cores])
            .args(self.command(dialect, address, backend)?)
            .env("WSGATE_JWT_SECRET", &target.secret)
            .env("WSGATE_API_KEY", API_KEY)
            .env("JWT_SECRET", &target.secret)
            .env("PORT", address.port().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start taskset")?;
        let mut server = Server { target: Target { pid: process.id(), ..target }, backend, process };
        server.await_listening().with_context(|| {
            let log = fs::read_to_string(self.logs.join(format!("{}.log", dialect.name()))).unwrap_or_default();
            format!("cannot start {}: {}", dialect.name(), log.trim())
        })?;
        Ok(server)
    }

    fn command(&self, dialect: Dialect, address: SocketAddr, backend: SocketAddr) -> Result<Vec<String>> {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        let (address, backend) = (address.to_string(), backend.to_string());
        let wsgate = path(self.wsgate.clone());
        Ok(match dialect {
            Dialect::Floor => vec![path(std::env::current_exe()?), "floor".into(), address],
            Dialect::Wsgate => [&wsgate, "serve", "--listen", &address, "--backend-listen", &backend]
                .into_iter()
                // No ping falls into a measurement.
                .chain(["--ping-interval", "10m"])
                .map(String::from)
                .collect(),
            Dialect::Ws => vec!["node".into(), path(self.peers.join("ws.mjs"))],
            Dialect::SocketIo => vec!["node".into(), path(self.peers.join("socket.io.mjs"))],
        })
    }
}

impl Server {
    fn await_listening(&mut self) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(self.target.address).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("it ended, with {status}");
            }
            if began.elapsed() > START {
                bail!("it does not listen on {} after {START:?}", self.target.address);
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to save. An error means that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody has, nor will have before the server does: it is below those that the kernel
/// gives to outgoing connections, of which a load has thousands.
fn free_address() -> Result<SocketAddr> {
    const FIRST: u32 = 20_000;
    const NUMBER: u32 = 12_000;
    static TRIED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..NUMBER {
        let number = std::process::id().wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed)) % NUMBER;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(FIRST + number)?));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free")
}
