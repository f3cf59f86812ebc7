//! Compares wsgate with the floor of the machine and with its peers. `scripts/bench` runs it.
//!
//! What a figure is worth depends on the machine and on what else it does. So the same work is given
//! to the floor and to a subject in turn, and what counts is the ratio of such a pair.

mod connection;
mod dialect;
mod floor;
mod frame;
mod load;
mod report;
mod scenario;
mod server;
mod storm;
mod usage;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::thread::sleep;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::dialect::Dialect;
use crate::load::Target;
use crate::report::{Report, Row};
use crate::scenario::Scenario;
use crate::server::{Programs, Server};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Compares
    Compare(Comparison),
    /// Watches bystanders while thousands of connections close, or join and leave; on both cores
    Storm {
        /// The gateway's binary
        #[arg(long, env = "WSGATE_BIN", default_value = "target/release/wsgate")]
        wsgate: PathBuf,
        /// Connections that close at once
        #[arg(long, default_value_t = 15_000)]
        closing: usize,
    },
    /// Holds connections until it is killed; used by `storm`
    #[command(hide = true)]
    Hold {
        /// Where the gateway listens
        address: SocketAddr,
        /// What tokens for it are signed with
        secret: String,
        /// How many
        connections: usize,
        /// When their tokens end, in Unix seconds; then they wait for their end and say when it came
        until: Option<u64>,
    },
    /// Serves as the floor
    Floor {
        /// Where to listen
        listen: SocketAddr,
    },
}

/// Compares wsgate with the floor of the machine and with its peers
#[derive(clap::Args)]
struct Comparison {
    /// Pairs of runs, floor and subject, for each figure
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    runs: u16,
    /// Scenarios, as in fanout-1,idle; all, if not given
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Whom to compare with the floor; all that can run here, if not given
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<Dialect>,
    /// Everything tiny and once, only to see whether all arrives; without peers, if not asked for
    #[arg(long)]
    smoke: bool,
    /// The subjects' cores, as taskset takes them; the floor has core 0
    #[arg(long, default_value = "0")]
    cores: String,
    /// Where the results go, with each run
    #[arg(long, default_value = "target/bench/results.json")]
    json: PathBuf,
    /// The gateway's binary
    #[arg(long, env = "WSGATE_BIN", default_value = "target/release/wsgate")]
    wsgate: PathBuf,
    /// The peers' folder
    #[arg(long, default_value = "benches/peers")]
    peers: PathBuf,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        What::Compare(comparison) => comparison.run(),
        What::Storm { wsgate, closing } => {
            let logs = PathBuf::from("target/bench");
            fs::create_dir_all(&logs)?;
            let programs = Programs { wsgate, peers: PathBuf::new(), cores: "0,1".to_owned(), logs };
            let server = programs.start(Dialect::Wsgate)?;
            for line in storm::run(&server, closing)? {
                println!("{line}");
            }
            Ok(ExitCode::SUCCESS)
        }
        What::Hold { address, secret, connections, until } => {
            storm::hold(&Target { dialect: Dialect::Wsgate, address, pid: 0, secret }, connections, until)?;
            Ok(ExitCode::SUCCESS)
        }
        What::Floor { listen } => {
            floor::serve(listen)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Comparison {
    fn run(&self) -> Result<ExitCode> {
        let subjects = self.subjects();
        let scenarios = self.scenarios()?;
        let logs = self.json.parent().context("--json needs the name of a file")?.to_owned();
        fs::create_dir_all(&logs)?;
        if subjects.iter().any(|&subject| needs_node(subject)) {
            self.install_peers()?;
        }
        let programs =
            Programs { wsgate: self.wsgate.clone(), peers: self.peers.clone(), cores: self.cores.clone(), logs };
        let mut report = Report::new(subjects, self.runs());
        for scenario in scenarios {
            self.measure(&scenario, &programs, &mut report);
            fs::write(&self.json, report.json())?;
        }
        println!("\n{}", report.table());
        println!("Each run is in {}.", self.json.display());
        Ok(if report.failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Floor, subject, floor, subject, … A server lives through all runs of the scenario, so that
    /// all but the first find it warm, unless its memory is what is measured.
    fn measure(&self, scenario: &Scenario, programs: &Programs, report: &mut Report) {
        let mut row = Row::new(scenario);
        let mut servers = BTreeMap::new();
        for _ in 0..self.runs() {
            for &subject in &report.subjects {
                match pair(scenario, programs, &mut servers, subject) {
                    Ok(pair) => row.add(subject, pair),
                    Err(error) => row.fail(subject, &error),
                }
            }
        }
        report.add(row);
    }

    fn runs(&self) -> u16 {
        if self.smoke { 1 } else { self.runs }
    }

    fn subjects(&self) -> Vec<Dialect> {
        if !self.subjects.is_empty() {
            return self.subjects.clone();
        }
        if self.smoke {
            return vec![Dialect::Wsgate];
        }
        let node = Command::new("node").arg("--version").stdout(Stdio::null()).status().is_ok_and(|it| it.success());
        if !node {
            eprintln!("Without the peers: they need node.");
        }
        let all = [Dialect::Wsgate, Dialect::Ws, Dialect::SocketIo];
        all.into_iter().filter(|&subject| node || !needs_node(subject)).collect()
    }

    fn scenarios(&self) -> Result<Vec<Scenario>> {
        let mut all = Scenario::all();
        let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
        for name in &self.only {
            ensure!(names.contains(&name.as_str()), "there is no scenario {name}; there are {}", names.join(", "));
        }
        all.retain(|scenario| self.only.is_empty() || self.only.iter().any(|name| name == scenario.name));
        Ok(if self.smoke { all.into_iter().map(Scenario::tiny).collect() } else { all })
    }

    fn install_peers(&self) -> Result<()> {
        let status = Command::new("npm")
            .args(["ci", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"])
            .current_dir(&self.peers)
            .stdout(Stdio::null())
            .status()
            .context("cannot start npm")?;
        ensure!(status.success(), "npm ci has failed in {}", self.peers.display());
        Ok(())
    }
}

/// The figures of the floor and of a subject, one after the other.
fn pair(
    scenario: &Scenario,
    programs: &Programs,
    servers: &mut BTreeMap<Dialect, Server>,
    subject: Dialect,
) -> Result<(f64, f64)> {
    let mut measure = |dialect: Dialect| {
        let server = match servers.remove(&dialect) {
            Some(server) => server,
            None => {
                let server = programs.start(dialect)?;
                sleep(scenario.settle);
                server
            }
        };
        let figure = load::run(&server.target, scenario).with_context(|| dialect.name())?;
        // One that has failed has not come here: the next run has another.
        if !scenario.needs_fresh_process() {
            servers.insert(dialect, server);
        }
        Ok::<_, anyhow::Error>(figure)
    };
    Ok((measure(Dialect::Floor)?, measure(subject)?))
}

fn needs_node(subject: Dialect) -> bool {
    matches!(subject, Dialect::Ws | Dialect::SocketIo)
}
