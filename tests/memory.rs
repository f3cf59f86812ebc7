//! What a connection takes, to the byte, and what an event allocates. Exact, whatever the machine.
//!
//! A binary of its own, with an allocator that counts; the clients are bare sockets, which allocate
//! nothing. One test only, or else another's memory would be counted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, as it should"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dhat::HeapStats;
use tokio::sync::oneshot;
use wsgate::auth::{Claims, Grants, mint};
use wsgate::config::Tls;
use wsgate::{Clock, Config, Gateway, Listeners, Secret};

#[global_allocator]
static COUNTING: dhat::Alloc = dhat::Alloc;

/// No step takes longer, on however busy a machine.
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-for-tests-that-is-long-enough";

/// What an idle connection may take on the heap, its share of all tables included. Beside it the
/// kernel and the allocator have their own.
const IDLE_BYTES: u64 = 1720;
/// What a connection may take that has not proven who it is, beside what it has sent.
const STRANGER_BYTES: u64 = 4096;
/// What an idle connection may take with TLS.
const IDLE_TLS_BYTES: u64 = 9 * 1024;
/// What a stranger may take more whose TLS has begun.
const STRANGER_TLS_BYTES: u64 = 12 * 1024;
/// What an event may allocate on its way from one client to a room, however many are in it.
const BLOCKS_PER_EVENT: u64 = 14;

/// A client, already in.
struct Client(TcpStream);

impl Client {
    fn connect(public: SocketAddr, number: usize, room: &str) -> Self {
        let mut stream = TcpStream::connect(public).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(upgrade_request(&format!("u{number}")).as_bytes()).unwrap();
        let mut client = Self(stream);
        client.read_until("\"max_message_bytes\":65536}");
        client.say(&format!(r#"{{"type":"join","room":"{room}","id":"joined"}}"#));
        client.read_until(&format!("\"room\":\"{room}\"}}"));
        client
    }

    fn say(&mut self, text: &str) {
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend_from_slice(&(text.len() as u16).to_be_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text.as_bytes());
        self.0.write_all(&frame).unwrap();
    }

    /// Reads on until what has been read ends so.
    fn read_until(&mut self, end: &str) {
        let (mut space, mut kept) = ([0; 16 * 1024], Vec::new());
        while !kept.ends_with(end.as_bytes()) {
            let count = self.0.read(&mut space).unwrap();
            assert_ne!(count, 0, "the gateway has closed: {}", String::from_utf8_lossy(&kept));
            kept.extend_from_slice(&space[..count]);
            kept.drain(..kept.len().saturating_sub(200));
        }
    }
}

fn upgrade_request(user: &str) -> String {
    let exp = (Clock::system().unix() + Duration::from_secs(3600)).as_secs() as f64;
    let mut grants = Grants::default();
    grants.add("*=join,publish").unwrap();
    let token = mint(&Secret::new(SECRET), &Claims { sub: user.to_owned(), exp, nbf: None, grants }).unwrap();
    format!(
        "GET /ws?token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// The heap once nothing has happened for a while.
fn steady_heap() -> u64 {
    let mut last = heap();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = heap();
        if now == last {
            return now;
        }
        last = now;
    }
}

fn heap() -> u64 {
    HeapStats::get().curr_bytes as u64
}

/// Waits until the gateway has let go of what it needs no more.
fn settles_at(what: &str, most: u64, used: impl Fn() -> u64) {
    let began = Instant::now();
    while used() > most {
        assert!(began.elapsed() < PATIENCE, "{what}: {} bytes, of {most} at most", used());
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_idle_connection_is_small_and_an_event_allocates_the_same_for_few_and_for_many() {
    let _counting = dhat::Profiler::builder().testing().build();
    let (public, stop, gateway) = start(None);

    // What is made on first use.
    drop(Client::connect(public, 0, "first"));
    thread::sleep(Duration::from_millis(50));

    const COUNT: usize = 300;
    let before = heap();
    let mut clients: Vec<Client> = (0..COUNT).map(|number| Client::connect(public, number, "large")).collect();
    let own = (COUNT * size_of::<Client>()) as u64;
    let each = || (heap() - before - own) / COUNT as u64;
    settles_at("an idle connection", IDLE_BYTES, each);
    let idle = each();

    // A burst of a mebibyte to each, then a large message from each: nothing keeps its largest size.
    let large = "x".repeat(60_000);
    for round in 0..16 {
        let text = r#"{"type":"publish","to":{"room":"large"},"event":"e","data":"#;
        clients[0].say(&format!(r#"{text}"{large} {round}"}}"#));
        for client in &mut clients {
            client.read_until(&format!(" {round}\"}}"));
        }
    }
    for client in &mut clients {
        client.say(&format!(r#"{{"type":"ping","id":"p","filler":"{large}"}}"#));
        client.read_until("\"temporary\":false}");
    }
    drop(large);
    settles_at("an idle connection after a burst", idle + 64, each);

    let few =
        blocks_per_event(&mut (0..10).map(|number| Client::connect(public, number, "few")).collect::<Vec<_>>(), "few");
    let many = blocks_per_event(&mut clients, "large");
    assert!(few <= BLOCKS_PER_EVENT, "{few} allocations for an event to 10");
    // Each turn of the flusher at a room of several slices has a few, and a timer may come in between.
    assert!(many <= few + 20, "{many} allocations for an event to {COUNT}, {few} to 10: none may be per delivery");

    drop(clients);
    unauthenticated_connections_are_small(public);
    stop.send(()).unwrap();
    gateway.join().unwrap();
    connections_with_tls_are_bounded();
}

/// What TLS takes beside that: rustls keeps a buffer of 4 KiB to read into, and the keys.
fn connections_with_tls_are_bounded() {
    const COUNT: usize = 100;
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = std::env::temp_dir().join(format!("wsgate-memory-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let tls = Tls { certificate: folder.join("certificate.pem"), key: folder.join("key.pem") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let (public, stop, gateway) = start(Some(tls));
    std::fs::remove_dir_all(&folder).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    // Its side of TLS is let go: what is left is the gateway's.
    let idle = |number: usize| {
        let session = rustls::ClientConnection::new(Arc::clone(&config), "localhost".try_into().unwrap()).unwrap();
        let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(public).unwrap());
        stream.sock.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(upgrade_request(&format!("u{number}")).as_bytes()).unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\"max_message_bytes\":65536}") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            read.push(byte[0]);
        }
        stream.sock
    };
    drop(idle(0));
    let before = steady_heap();
    let clients: Vec<TcpStream> = (0..COUNT).map(|number| idle(number % 4)).collect();
    let own = (COUNT * size_of::<TcpStream>()) as u64;
    let each = (steady_heap() - before - own) / COUNT as u64;
    assert!(each <= IDLE_TLS_BYTES, "an idle connection with TLS takes {each} bytes");
    drop(clients);

    // A record that says it has 512 bytes, and a part of it; then a whole one that a ClientHello begins in.
    let half = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 200]].concat();
    let begun = [&[22, 3, 1, 0, 200, 1, 0, 1, 252, 3, 3][..], &[7; 194]].concat();
    for (what, sent, most) in
        [("half a record", half, STRANGER_BYTES), ("half a ClientHello", begun, STRANGER_BYTES + STRANGER_TLS_BYTES)]
    {
        let before = steady_heap();
        let strangers: Vec<TcpStream> = (0..COUNT).map(|_| TcpStream::connect(public).unwrap()).collect();
        strangers.iter().for_each(|mut stranger| stranger.write_all(&sent).unwrap());
        thread::sleep(Duration::from_millis(100));
        let each = (steady_heap() - before - own) / COUNT as u64;
        assert!(each <= most + sent.len() as u64 * 2, "who has sent {what} takes {each} bytes");
    }
    stop.send(()).unwrap();
    gateway.join().unwrap();
}

/// Whatever a stranger does, short of proving who it is: it is bounded in number, and each by this.
fn unauthenticated_connections_are_small(public: SocketAddr) {
    const STRANGERS: usize = 100;
    let head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // A masked text frame that says it has as many bytes as a token may have, and a part of them.
    let begun = |bytes: usize| [&[0x81, 0xFE, 0x20, 0x00, 0, 0, 0, 0][..], &vec![b'x'; bytes]].concat();
    for (what, sent, upgraded) in [
        ("says nothing", Vec::new(), false),
        ("has begun its request", head.as_bytes()[..60].to_vec(), false),
        ("is upgraded", head.as_bytes().to_vec(), true),
        ("is upgraded and has begun a frame", [head.as_bytes(), &begun(0)].concat(), true),
        ("is upgraded and has sent half a token", [head.as_bytes(), &begun(4000)].concat(), true),
    ] {
        let before = steady_heap();
        let strangers: Vec<TcpStream> = (0..STRANGERS).map(|_| TcpStream::connect(public).unwrap()).collect();
        let own = (STRANGERS * size_of::<TcpStream>()) as u64;
        for mut stranger in &strangers {
            stranger.write_all(&sent).unwrap();
            if upgraded {
                let mut answer = [0; 129];
                stranger.read_exact(&mut answer).unwrap();
            }
        }
        let each = (steady_heap() - before - own) / STRANGERS as u64;
        assert!(each <= STRANGER_BYTES + sent.len() as u64 * 2, "who {what} takes {each} bytes");
    }
}

/// The allocations of the gateway while events go to a room, each after the one before has arrived.
fn blocks_per_event(clients: &mut [Client], room: &str) -> u64 {
    const EVENTS: u64 = 20;
    let texts: Vec<String> = (0..EVENTS)
        .map(|number| {
            format!(r#"{{"type":"publish","to":{{"room":"{room}"}},"event":"e","data":"some data {number}"}}"#)
        })
        .collect();
    let mut blocks = 0;
    for (number, text) in texts.iter().enumerate() {
        let before = HeapStats::get().total_blocks;
        clients[0].say(text);
        // Until it has arrived at one of them the clients do nothing that allocates.
        let mut peeked = [0; 8];
        for client in clients.iter_mut() {
            while client.0.peek(&mut peeked).unwrap() == 0 {}
        }
        // One block is the frame that `say` made.
        blocks += HeapStats::get().total_blocks - before - 1;
        for client in clients.iter_mut() {
            client.read_until(&format!(" {number}\"}}"));
        }
    }
    blocks / EVENTS
}

/// A gateway on a thread of its own.
fn start(tls: Option<Tls>) -> (SocketAddr, oneshot::Sender<()>, thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let gateway = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bind = || tokio::net::TcpListener::bind("127.0.0.1:0");
            let public = bind().await.unwrap();
            let address = public.local_addr().unwrap();
            let listeners = Listeners { public: public.into(), backend: bind().await.unwrap().into() };
            let mut config = Config::new(Secret::new(SECRET), Secret::new("an-api-key-for-tests"));
            config.tls = tls;
            let asked = async {
                let _asked = stopped.await;
            };
            let gateway = Gateway::new(config).unwrap();
            tell.send(address).unwrap();
            gateway.run(listeners, asked).await;
        });
    });
    (told.recv().unwrap(), stop, gateway)
}
