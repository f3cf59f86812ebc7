//! A WebSocket echo server, made of the gateway's own accept, configuration, reader, outbox and
//! close path: so that conformance suites, which speak to echo servers, judge the code that runs in
//! production. It has larger limits than the gateway, because such suites send messages of 16 MiB.
//!
//!     cargo run --release --example echo -- 127.0.0.1:9001

use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use wsgate::config::LiveLimits;
use wsgate::connection::{Message, Socket, Upgrade};
use wsgate::protocol::Frame;
use wsgate::server::{Http, Until, accept};
use wsgate::{Clock, Limits};

const MIB: usize = 1024 * 1024;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    run(TcpListener::bind(address).await?).await;
    Ok(())
}

/// Echoes to whoever connects, at any path.
pub async fn run(listener: TcpListener) {
    let limits = Limits { max_message_bytes: 64 * MIB, max_outbox_bytes: 512 * MIB, ..Limits::DEFAULT };
    let limits = LiveLimits::new(limits);
    let (clock, tasks) = (Clock::system(), TaskTracker::new());
    let routes = Router::new().fallback({
        let (limits, clock, tasks) = (limits.clone(), clock.clone(), tasks.clone());
        |request: Request| async move {
            match Upgrade::accept(request) {
                Ok(upgrade) => upgrade.on(&tasks, limits, clock, |socket, _place| echo(socket)),
                Err(problem) => problem.into_response(),
            }
        }
    });
    accept(listener, Http::public(routes, &limits, clock), tasks, Until::default()).await;
}

async fn echo(mut socket: Box<Socket>) {
    let ended = loop {
        let tomorrow = Instant::now() + Duration::from_secs(24 * 60 * 60);
        match socket.receive(tomorrow).await {
            Ok(Some(Message::Text(text))) => socket.outbox().push(Frame::data(text.as_bytes(), true)),
            Ok(Some(Message::Binary(bytes))) => socket.outbox().push(Frame::data(&bytes, false)),
            Ok(None) => continue,
            Err(ended) => break ended,
        };
    };
    socket.end(ended, None).await;
}
