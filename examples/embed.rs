//! A program with a gateway inside: it publishes without HTTP, to a room that clients may join.
//!
//!     WSGATE_JWT_SECRET="$(openssl rand -base64 48)" cargo run --example embed

use std::sync::Arc;
use std::time::Duration;

use serde_json::value::to_raw_value;
use tokio::net::TcpListener;
use wsgate::hub::Event;
use wsgate::protocol::Target;
use wsgate::{Config, Gateway, Listeners, Secret};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let secret = Secret::new(std::env::var("WSGATE_JWT_SECRET")?);
    let gateway = Gateway::new(Config::new(secret, Secret::new("the API stays, under this key")))?;
    let hub = Arc::clone(gateway.hub());

    let listeners = Listeners {
        public: TcpListener::bind("127.0.0.1:8080").await?,
        backend: TcpListener::bind("127.0.0.1:8081").await?,
    };
    let shutdown = async {
        // Without signals there is nothing to wait for: stop at once.
        let _stopped = tokio::signal::ctrl_c().await;
    };
    let running = tokio::spawn(gateway.run(listeners, shutdown));

    let (to, nobody) = (Target::room("ticks".parse().map_err(anyhow::Error::msg)?), Target::default());
    let name = "tick".parse().map_err(anyhow::Error::msg)?;
    let mut number = 0_u64;
    while !running.is_finished() {
        let data = to_raw_value(&number)?;
        let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data, expires: None };
        let reached = hub.publish(&event, None).await;
        tracing::info!(number, reached, "ticked");
        number += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let stopped = running.await?;
    tracing::info!(?stopped, "stopped");
    Ok(())
}
