//! A backend that is asked, and says what a test wants it to.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

type Answering = Pin<Box<dyn Future<Output = (u16, String)> + Send>>;
type Answers = Box<dyn Fn(Value) -> Answering + Send + Sync>;

/// A running backend, which stops when the test ends.
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    answers: Mutex<Arc<Answers>>,
    asked: Mutex<Vec<Value>>,
    headers: Mutex<Vec<HeaderMap>>,
}

impl Backend {
    /// One that answers each question as it is told.
    pub async fn start(answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            answers: Mutex::new(at_once(answer)),
            asked: Mutex::default(),
            headers: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(answer_one).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            // Aborted with this task: a backend that has gone leaves no connection behind.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(routes.clone());
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, shared, serving }
    }

    /// The `[backend]` of a configuration file.
    pub fn file(&self) -> String {
        let Self { address, .. } = self;
        format!("\n[backend]\naccess_url = \"http://{address}/access\"\ncall_url = \"http://{address}/call\"\n")
    }

    /// Answers otherwise from now on.
    pub fn answers(&self, answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) {
        *self.shared.answers.lock() = at_once(answer);
    }

    /// Answers nothing from now on; the connections stay open.
    pub fn falls_silent(&self) {
        *self.shared.answers.lock() = Arc::new(Box::new(|_| Box::pin(std::future::pending())));
    }

    /// Answers from now on when it is let.
    pub fn waits(&self, answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Arc<Semaphore> {
        let (turns, answer) = (Arc::new(Semaphore::new(0)), Arc::new(answer));
        let kept = Arc::clone(&turns);
        *self.shared.answers.lock() = Arc::new(Box::new(move |asked| {
            let (turns, answer) = (Arc::clone(&kept), Arc::clone(&answer));
            Box::pin(async move {
                turns.acquire().await.unwrap().forget();
                let (status, body) = answer(&asked);
                (status, body.to_string())
            })
        }));
        turns
    }

    /// What it has been asked so far.
    pub fn asked(&self) -> Vec<Value> {
        self.shared.asked.lock().clone()
    }

    /// The headers of what it has been asked so far.
    #[cfg(feature = "otel")]
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.shared.headers.lock().clone()
    }

    /// Waits until it has been asked so often.
    pub async fn asked_at_least(&self, times: usize) {
        super::until("the backend to be asked", || self.asked().len() >= times).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn at_once(answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) -> Arc<Answers> {
    Arc::new(Box::new(move |asked| {
        let (status, body) = answer(&asked);
        Box::pin(std::future::ready((status, body.to_string())))
    }))
}

async fn answer_one(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let asked: Value = serde_json::from_str(&body).unwrap();
    shared.headers.lock().push(headers);
    shared.asked.lock().push(asked.clone());
    let answers = Arc::clone(&shared.answers.lock());
    let (status, body) = answers(asked).await;
    (StatusCode::from_u16(status).unwrap(), body)
}
