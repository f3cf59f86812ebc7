//! The gateway from outside: the real server on ports of its own, spoken to over real sockets by
//! clients that share no code with it. Each file holds what its name says.
//!
//! Nothing here waits for time to pass: the gateway's clock stands still until a test moves it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]
#![allow(unreachable_pub, reason = "the helpers are for the tests of this binary")]

mod support;

mod api; // what a backend can do
mod architecture; // imports point down; documents keep their promises

mod asking; // what the backend decides and answers
mod attacks; // tokens that must not be accepted, each with its reason
mod backpressure; // who reads too slowly
mod bad_input; // what makes no sense, and that nobody else notices
mod carriers; // where a token may be: headers, query, cookie, ticket
mod commands; // the binary: serve, dev, token
mod configuration; // files, environment, arguments; and reading them again
mod conformance; // RFC 6455, byte by byte
mod connect; // proving who one is
mod contract; // every example of protocol.md
mod echo; // the echo server for conformance suites
mod hostile; // backends that answer wrongly
mod http; // requests that are no upgrades
mod inquiry; // what a backend asks of clients
mod issuers; // keys that issuers publish
mod keys; // API keys: what each may do, and where
mod limits; // how many, of whom, how fast
mod liveness; // peers that fall silent
mod load; // many publishers at once: order and completeness
mod logs; // what operators read
mod metrics; // what operators count
mod openapi; // the description of the API, and the API
mod origin; // whose pages may connect, and who may try
mod presence; // who is told that users come and go
mod providers; // tokens as well-known issuers make them
mod proxy_protocol; // for whom a proxy has connected
mod renewal; // tokens that end, and those that replace them
mod revocation; // tokens, sessions and users that are no longer welcome
mod rolling; // a new version takes over while the old one drains
mod rooms; // join, leave, publish: who gets what
mod rules; // who may do what in which rooms, and why
mod shutdown; // the gateway goes down
mod tampering; // no change of a valid token is accepted
mod targets; // to whom an event goes, for how long, and how often
mod tls; // TLS on the public door
#[cfg(feature = "otel")]
mod tracing; // traces: what is sent to a collector, and what it costs when there is none
mod tutorial; // examples/tutorial, as its README tells it
mod unix; // sockets that are files
mod websocat; // the README's way to try it
