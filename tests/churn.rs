//! After ten thousand connections nothing is left of them: no task, no entry, no file descriptor.
//!
//! A binary of its own, because it counts what the whole process holds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use wsgate::auth::{Claims, Grants, mint};
use wsgate::{Clock, Config, Gateway, Listeners, Secret};

const CYCLES: usize = 10_000;
const AT_ONCE: usize = 100;
const PATIENCE: Duration = Duration::from_secs(120);

/// How a connection ends.
#[derive(Clone, Copy)]
enum End {
    /// With a Close, as it should.
    Close,
    /// TCP ends without one.
    Drop,
    /// TCP is reset.
    Reset,
    /// With a message that makes the gateway close.
    Binary,
    /// With a token that is refused.
    Refused,
    /// Before any token.
    Early,
    /// Before the end of the request.
    BeforeUpgrade,
}

const ENDS: [End; 7] = [End::Close, End::Drop, End::Reset, End::Binary, End::Refused, End::Early, End::BeforeUpgrade];

/// A connection from an address that depends on its number, so that the ports of one address are
/// not used up by those that the system still remembers.
async fn open(public: SocketAddr, number: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 1 + (number % 50) as u8, 1), 0).into()).unwrap();
    socket.connect(public).await.unwrap()
}

async fn cycle(public: SocketAddr, token: &str, number: usize) {
    let end = ENDS[number % ENDS.len()];
    let mut stream = open(public, number).await;
    let query = match end {
        End::Refused => "?token=nonsense".to_owned(),
        End::Early => String::new(),
        _ => format!("?token={token}"),
    };
    let request = format!(
        "GET /ws{query} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    if let End::BeforeUpgrade = end {
        return stream.write_all(&request.as_bytes()[..30]).await.unwrap();
    }
    stream.write_all(request.as_bytes()).await.unwrap();
    let until =
        |needle: &'static str| move |read: &[u8]| read.windows(needle.len()).any(|window| window == needle.as_bytes());
    match end {
        End::Early => read_until(&mut stream, until("\r\n\r\n")).await,
        End::Refused => read_until(&mut stream, until("4401")).await,
        _ => read_until(&mut stream, until("welcome")).await,
    }
    // In, and in a room.
    if !matches!(end, End::Early | End::Refused) {
        let join = br#"{"type":"join","room":"churn","id":1}"#;
        let frame = [&[0x81, 0x80 | join.len() as u8, 0, 0, 0, 0][..], join].concat();
        stream.write_all(&frame).await.unwrap();
        read_until(&mut stream, until("reply")).await;
    }
    match end {
        End::Close => {
            stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await.unwrap();
            while stream.read(&mut [0; 64]).await.unwrap() > 0 {}
        }
        End::Binary => {
            stream.write_all(&[0x82, 0x80, 0, 0, 0, 0]).await.unwrap();
            read_until(&mut stream, until("1003")).await;
        }
        End::Reset => stream.set_zero_linger().unwrap(),
        End::Drop | End::Refused | End::Early | End::BeforeUpgrade => {}
    }
}

async fn read_until(stream: &mut TcpStream, enough: impl Fn(&[u8]) -> bool) {
    let mut read = Vec::new();
    while !enough(&read) {
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{}", String::from_utf8_lossy(&read));
    }
}

fn file_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_ten_thousand_connections() {
    let secret = Secret::new("a-secret-for-tests-that-is-long-enough");
    let gateway = Gateway::new(Config::new(secret.clone(), Secret::new("an-api-key-for-tests"))).unwrap();
    let hub = std::sync::Arc::clone(gateway.hub());
    let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = public.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(gateway.run(Listeners { public: public.into(), backend: backend.into() }, async {
        let _asked = stopped.await;
    }));
    let exp = (Clock::system().unix() + Duration::from_secs(3600)).as_secs() as f64;
    let mut grants = Grants::default();
    grants.add("churn=join").unwrap();
    let token = mint(&secret, &Claims { sub: "churn".into(), exp, nbf: None, grants }).unwrap();

    // Once before, so that what is made on first use is there.
    cycle(address, &token, 0).await;
    let metrics = tokio::runtime::Handle::current().metrics();
    let settled = |tasks: usize, files: usize| {
        let metrics = metrics.clone();
        let hub = std::sync::Arc::clone(&hub);
        async move {
            let waited = tokio::time::timeout(PATIENCE, async {
                while hub.census() != Default::default()
                    || metrics.num_alive_tasks() > tasks
                    || file_descriptors() > files
                {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            let settled = waited.await.is_ok();
            let left = format!("{:?}, {} tasks, {} files", hub.census(), metrics.num_alive_tasks(), file_descriptors());
            assert!(settled, "left behind: {left}; before: {tasks} tasks, {files} files");
        }
    };
    // The gateway itself, its two accepting tasks, the one that sends the rooms' events, and the one
    // that announces who comes and goes.
    settled(5, usize::MAX).await;
    let (tasks, files) = (metrics.num_alive_tasks(), file_descriptors());

    for first in (0..CYCLES).step_by(AT_ONCE) {
        let cycles = (first..first + AT_ONCE).map(|number| cycle(address, &token, number));
        let all = futures_util::future::join_all(cycles);
        tokio::time::timeout(PATIENCE, all).await.expect("the cycles to end");
    }
    settled(tasks, files).await;

    stop.send(()).unwrap();
    tokio::time::timeout(PATIENCE, running).await.expect("the gateway to stop").unwrap();
    settled(0, files - 2).await;
}
