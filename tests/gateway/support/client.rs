//! A WebSocket client: tokio-websockets, which shares no code with the gateway and is strict.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_websockets::{ClientBuilder, Limits, Message, WebSocketStream};

use super::within_reason;

/// Whatever bytes can go over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

pub struct Client {
    /// The connection's id, once it is welcome.
    pub id: String,
    socket: WebSocketStream<Box<dyn Stream>>,
    /// What came while something else was waited for.
    early: VecDeque<String>,
    last_id: u64,
}

impl Client {
    pub async fn dial(address: SocketAddr, path: &str) -> Self {
        let stream = within_reason("a TCP connection", TcpStream::connect(address)).await.unwrap();
        Self::dial_on(stream, address, path).await
    }

    pub async fn dial_on(stream: impl Stream + 'static, address: SocketAddr, path: &str) -> Self {
        let stream: Box<dyn Stream> = Box::new(stream);
        let builder = ClientBuilder::new().uri(&format!("ws://{address}{path}")).unwrap();
        let builder = builder.limits(Limits::unlimited());
        let (socket, _) = within_reason("the upgrade", builder.connect_on(stream)).await.unwrap();
        Self { id: String::new(), socket, early: VecDeque::new(), last_id: 0 }
    }

    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text.to_owned())).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        within_reason("a frame to be sent", self.socket.send(message)).await.unwrap();
    }

    /// The next message as it came, or the code and reason of the Close.
    pub async fn next(&mut self) -> Result<String, (u16, String)> {
        if let Some(text) = self.early.pop_front() {
            return Ok(text);
        }
        loop {
            match within_reason("a message", self.socket.next()).await {
                Some(Ok(message)) if message.is_text() => return Ok(message.as_text().unwrap().to_owned()),
                Some(Ok(message)) if message.is_close() => {
                    let (code, reason) = message.as_close().unwrap();
                    return Err((code.into(), reason.to_owned()));
                }
                Some(Ok(_)) => {}
                end => panic!("the connection ended without a Close: {end:?}"),
            }
        }
    }

    /// Waits until the gateway has read all that was sent, and listens again; for what else comes
    /// meanwhile there is `next`.
    pub async fn is_heard(&mut self) {
        self.send_message(Message::ping("heard?")).await;
        loop {
            match within_reason("a pong", self.socket.next()).await {
                Some(Ok(message)) if message.is_pong() => return,
                Some(Ok(message)) if message.is_text() => self.early.push_back(message.as_text().unwrap().to_owned()),
                Some(Ok(message)) if message.is_ping() => {}
                end => panic!("no pong, but {end:?}"),
            }
        }
    }

    /// The next message.
    pub async fn receive(&mut self) -> Value {
        let text = self.next().await.expect("a message and not a Close");
        serde_json::from_str(&text).unwrap()
    }

    /// The `closing` message that must come next, and the Close after it.
    pub async fn closed(&mut self) -> (u16, String) {
        let closing = self.receive().await;
        assert_eq!(closing["type"], "closing", "{closing}");
        let (code, reason) = self.next().await.expect_err("nothing between closing and the Close");
        assert_eq!((&closing["code"], &closing["reason"]), (&json!(code), &json!(reason)));
        (code, reason)
    }

    /// Reads until the connection has ended, with a Close or without.
    pub async fn ended(&mut self) {
        while let Some(Ok(_)) = within_reason("the end", self.socket.next()).await {}
    }

    /// Sends a request under an id of its own, and reads the answer, which must come next.
    pub async fn request(&mut self, mut request: Value) -> Value {
        self.last_id += 1;
        request["id"] = json!(self.last_id);
        self.send(&request.to_string()).await;
        let answer = self.receive().await;
        assert_eq!(answer["id"], json!(self.last_id), "{answer}");
        answer
    }

    pub async fn join(&mut self, room: &str) {
        let answer = self.request(json!({"type": "join", "room": room})).await;
        assert_eq!(answer["type"], "reply", "{answer}");
    }

    pub async fn leave(&mut self, room: &str) {
        let answer = self.request(json!({"type": "leave", "room": room})).await;
        assert_eq!(answer["type"], "reply", "{answer}");
    }

    /// Publishes without an id: what comes next is not an answer.
    pub async fn publish(&mut self, to: Value, event: &str, data: Value) {
        self.send(&json!({"type": "publish", "to": to, "event": event, "data": data}).to_string()).await;
    }

    /// Reads the next message, which must be an event, and gives its name.
    pub async fn event(&mut self) -> String {
        let event = self.receive().await;
        assert_eq!(event["type"], "event", "{event}");
        event["event"].as_str().unwrap().to_owned()
    }

    /// Makes sure that nothing is waiting to be read: all that was sent before has come when the
    /// answer to a ping comes.
    pub async fn hears_nothing(&mut self) {
        let answer = self.request(json!({"type": "ping"})).await;
        assert_eq!(answer["ok"], true, "{answer}");
    }

    /// Closes as a browser does when the page says so.
    pub async fn close(mut self) {
        within_reason("the closing handshake", self.socket.close()).await.unwrap();
        self.ended().await;
    }
}
