//! **wsgate** stands between browsers and a backend: browsers hold plain WebSockets to it, each
//! proven by a JWT; backends push JSON events over HTTP to users and rooms.
//!
//! This library is the gateway itself, for programs that run it inside themselves: see [`run`], or
//! [`Gateway`] for those that publish in-process. The binary `wsgate` is made of it. The wire
//! contract is `protocol.md`; `ARCHITECTURE.md` is the tour.
//!
//! The map, where imports point down only:
//!
//! ```text
//! main            arguments, signals          dev   a page and tokens to try it with
//! server          binds, accepts, drains
//! connection api  the two doors, which do not know each other
//! parts           what both work with
//! revoke errand inquiry   what both do
//! hub  auth       who is where and fan-out · token, identity, may it?
//! protocol  config  metrics  trace
//! clock
//! ```

mod api;
pub mod auth;
pub mod backend;
pub mod clock;
pub mod config;
pub mod connection;
pub mod dev;
mod errand;
pub mod hub;
mod inquiry;
pub mod metrics;
mod parts;
pub mod protocol;
mod revoke;
pub mod server;
pub mod trace;

pub use clock::{Clock, ManualClock};
pub use config::{Config, ConfigError, Limits, Secret};
pub use server::{ApiKeys, Gateway, Listener, Listeners, Live, Reloaded, Reread, Stopped, run};
