//! From an HTTP request to a WebSocket (RFC 6455, 4.2).

use std::future::Future;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    TRANSFER_ENCODING,
};
use axum::http::header::{HeaderName, HeaderValue, SEC_WEBSOCKET_VERSION, UPGRADE};
use axum::http::{HeaderMap, Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::FutureExt;
use futures_util::future::OptionFuture;
use hyper::upgrade::{OnUpgrade, Upgraded};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::LiveLimits;
use crate::protocol::{ErrorCode, Frame, Problem};

use super::handshake::{Handshake, Stream};
use super::place::Place;
use super::socket::Socket;
use super::wire::Bare;

/// The subprotocol that clients may ask for. None is needed; but a browser that asks for one and
/// is answered none gives up.
const SUBPROTOCOL: &str = "wsgate.v1";

/// A request that may become a WebSocket.
pub struct Upgrade {
    accept: HeaderValue,
    subprotocol: bool,
    upgraded: OnUpgrade,
}

impl Upgrade {
    /// Checks that a request asks for a WebSocket, and asks rightly.
    ///
    /// # Errors
    /// The HTTP answer for one that does not: 405 for another method than GET, 426 where the
    /// WebSocket or its version is missing, 400 where the request breaks the RFC.
    pub fn accept(request: Request) -> Result<Self, Problem> {
        if request.method() != Method::GET {
            return Err(Problem::new(ErrorCode::MethodNotAllowed, "a WebSocket upgrade is a GET").header(ALLOW, "GET"));
        }
        let headers = request.headers();
        if !has_token(headers, &UPGRADE, "websocket") || !has_token(headers, &CONNECTION, "upgrade") {
            let detail = "this is a WebSocket endpoint: connect with new WebSocket(url) or websocat";
            return Err(Problem::new(ErrorCode::UpgradeRequired, detail).header(UPGRADE, "websocket"));
        }
        if request.version() != Version::HTTP_11 {
            return Err(Problem::new(ErrorCode::BadUpgrade, "a WebSocket upgrade needs HTTP/1.1"));
        }
        // Its bytes could not be told from the first frames.
        if headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
            return Err(Problem::new(ErrorCode::BadUpgrade, "a WebSocket upgrade has no body"));
        }
        if only(headers, &SEC_WEBSOCKET_VERSION)?.as_bytes() != b"13" {
            return Err(Problem::new(ErrorCode::UpgradeRequired, "only version 13 of WebSocket is spoken here")
                .header(SEC_WEBSOCKET_VERSION, "13"));
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY)?;
        if BASE64_STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
            return Err(Problem::new(ErrorCode::BadUpgrade, "Sec-WebSocket-Key must be 16 bytes in base64"));
        }
        let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()))
            .map_err(|_| Problem::new(ErrorCode::BadUpgrade, "Sec-WebSocket-Key cannot be answered"))?;
        let subprotocol = has_token(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
        let Some(upgraded) = request.into_parts().0.extensions.remove::<OnUpgrade>() else {
            return Err(Problem::new(ErrorCode::BadUpgrade, "this connection cannot be upgraded"));
        };
        Ok(Self { accept, subprotocol, upgraded })
    }

    /// Answers 101, and runs a task with the socket once the answer has been sent. The task holds
    /// nothing of HTTP any more. It drops the connection's place once the client has proven who it is.
    pub fn on<F, Task>(self, tasks: &TaskTracker, limits: LiveLimits, clock: Clock, serve: F) -> Response
    where
        F: FnOnce(Box<Socket>, Place) -> Task + Send + 'static,
        Task: Future<Output = ()> + Send + 'static,
    {
        // Combinators, not an `async` block: what is done with takes no room beside what follows.
        tasks.spawn(self.upgraded.then(move |upgraded| {
            // An error here means that the client went away before it was answered.
            let socket = upgraded.ok().and_then(|upgraded| open(upgraded, limits, clock));
            OptionFuture::from(socket.map(|(socket, place)| serve(socket, place))).map(drop)
        }));
        let mut response = (StatusCode::SWITCHING_PROTOCOLS, Body::empty()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if self.subprotocol {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        response
    }
}

/// The socket over an upgraded connection, with what hyper has read of it beyond the request. The
/// answer to the upgrade is the first thing that is written.
fn open(upgraded: Upgraded, limits: LiveLimits, clock: Clock) -> Option<(Box<Socket>, Place)> {
    let Ok(parts) = upgraded.downcast::<Handshake>() else {
        tracing::error!("an upgraded connection is not the stream that it was");
        return None;
    };
    let (stream, early, answer, place) = parts.io.into_parts();
    let read_ahead = [parts.read_buf, early].concat();
    let socket = Box::new(match stream {
        Stream::Bare(Bare::Tcp(stream)) => Socket::new(stream, &read_ahead, limits, clock),
        Stream::Bare(Bare::Unix(stream)) => Socket::new(stream, &read_ahead, limits, clock),
        Stream::Tls(stream) => Socket::new(*stream, &read_ahead, limits, clock),
    });
    socket.outbox().push(Frame::whole(answer.into()));
    Some((socket, place))
}

/// Whether a list header has a word in it, in any case.
fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    let lists = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// A header that must be there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a HeaderValue, Problem> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Problem::new(ErrorCode::BadUpgrade, format!("the header {name} is missing"))),
        (Some(_), Some(_)) => Err(Problem::new(ErrorCode::BadUpgrade, format!("the header {name} stands there twice"))),
    }
}
