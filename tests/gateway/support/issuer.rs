//! A small issuer that publishes keys, and can be made to rotate, stall, lie and die.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What it answers to a request for its keys.
#[derive(Clone)]
pub enum Answer {
    /// These keys, with these headers.
    Keys(Vec<Value>, &'static str),
    /// Whatever it is, word for word.
    Text(String),
    /// Nothing: the connection stays open.
    Silence,
    /// Elsewhere.
    Redirect(String),
}

/// A running issuer.
pub struct PublishedKeys {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    answer: Mutex<Answer>,
    issuer: Mutex<String>,
    asked: AtomicUsize,
}

impl PublishedKeys {
    pub async fn start(keys: Vec<Value>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            answer: Mutex::new(Answer::Keys(keys, "")),
            issuer: Mutex::new(format!("http://{address}")),
            asked: AtomicUsize::new(0),
        });
        let serving = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&shared)));
                }
            }
        });
        Self { address, shared, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.url())
    }

    pub fn answers(&self, answer: Answer) {
        *self.shared.answer.lock() = answer;
    }

    pub fn publishes(&self, keys: Vec<Value>) {
        self.answers(Answer::Keys(keys, ""));
    }

    /// Calls itself otherwise in its own document.
    pub fn calls_itself(&self, issuer: &str) {
        *self.shared.issuer.lock() = issuer.to_owned();
    }

    /// How often it has been asked for its keys.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Waits until it has been asked so often.
    pub async fn asked_at_least(&self, times: usize) {
        super::until("the keys to be asked for", || self.asked() >= times).await;
    }

    /// Takes no more connections.
    pub fn dies(&self) {
        self.serving.abort();
    }
}

impl Drop for PublishedKeys {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if stream.read_line(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    if request.starts_with("GET /.well-known/openid-configuration ") {
        let issuer = shared.issuer.lock().clone();
        let host = request.to_lowercase().split_once("host: ").unwrap().1.lines().next().unwrap().to_owned();
        let document = json!({"issuer": issuer, "jwks_uri": format!("http://{host}/jwks")}).to_string();
        return say(&mut stream, "200 OK", "", &document).await;
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let answer = shared.answer.lock().clone();
    match answer {
        Answer::Keys(keys, headers) => say(&mut stream, "200 OK", headers, &json!({ "keys": keys }).to_string()).await,
        Answer::Text(text) => say(&mut stream, "200 OK", "", &text).await,
        Answer::Redirect(place) => say(&mut stream, "302 Found", &format!("location: {place}\r\n"), "").await,
        Answer::Silence => std::future::pending().await,
    }
}

async fn say(stream: &mut BufReader<TcpStream>, status: &str, headers: &str, body: &str) {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // Whoever has gone away does not hear it.
    let _gone = stream.write_all(format!("{head}{body}").as_bytes()).await;
}
