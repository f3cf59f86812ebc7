//! `wsgate health`: whether a gateway is ready, for whatever looks after its container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use clap::ArgMatches;
use wsgate::config::{ListenAddress, Options};

use super::config::settings;
use super::println;

/// What `wsgate health` can be told.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// Ask whether it is alive, and not whether it is ready
    #[arg(long)]
    live: bool,
    /// How long to wait for its answer
    #[arg(long, value_parser = humantime::parse_duration, default_value = "2s")]
    timeout: Duration,
    #[command(flatten)]
    options: Box<Options>,
}

/// Asks the gateway that listens where this configuration says; prints its answer, and ends with 0 if that is
/// yes.
pub(super) async fn run(arguments: Arguments, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let path = if arguments.live { "live" } else { "ready" };
    let client = reqwest::Client::builder().no_proxy().timeout(arguments.timeout);
    let (client, host) = match settings(matches)?.options.backend_listen {
        ListenAddress::Tcp(listen) => (client, reachable(listen).to_string()),
        ListenAddress::Unix(path) => (client.unix_socket(path), "localhost".to_owned()),
    };
    let client = client.build()?;
    let url = format!("http://{host}/health/{path}");
    let response = client.get(&url).send().await.map_err(|error| {
        let why = if error.is_timeout() { "in time" } else { "there" };
        anyhow!("nobody answers {why}: {url}. If it listens elsewhere, give --config or --backend-listen")
    })?;
    let succeeded = response.status().is_success();
    println(&response.text().await?)?;
    Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where to reach what listens on an address: on all of them means on this machine too.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
