//! `wsgate health`: whether a gateway is ready, for whatever looks after its container.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ArgMatches;
use wsgate::config::Options;

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
    let url = format!("http://{}/health/{path}", reachable(settings(matches)?.options.backend_listen));
    let client = reqwest::Client::builder().no_proxy().timeout(arguments.timeout).build()?;
    let response = client.get(&url).send().await.with_context(|| format!("nobody answers at {url}"))?;
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
