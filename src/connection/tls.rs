//! TLS on a stream that a connection's task and the flushers share.
//!
//! What is encrypted must go out in the order in which it was encrypted. So plaintext is taken only
//! once all ciphertext of before is with the system; one bounded piece of it may wait here, and is
//! written by the connection's own task.

use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use libc::MSG_NOSIGNAL;
use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection};
use socket2::SockRef;

use crate::hub::Wire;

use super::handshake::read_until;
use super::wire::Bare;

/// Ciphertext that may wait here, beside what the outbox holds: two records of the largest size.
const MAX_CIPHERTEXT_BYTES: usize = 32 * 1024;
/// What stands before the content of a record.
const RECORD_HEADER_BYTES: usize = 5;
/// The type of a record that belongs to a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;
/// The most that a record may hold before anything is encrypted.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// The server's side of TLS, and the stream under it.
pub(crate) struct Tls {
    stream: Bare,
    session: Mutex<ServerConnection>,
    /// The connection's task, which writes what flushers leave behind.
    writer: AtomicWaker,
}

impl Tls {
    /// TLS on a connection that has just been accepted, of which this much has been read. Whoever has
    /// not sent a whole record yet costs what they have sent.
    pub(crate) async fn accept(stream: Bare, mut read: Vec<u8>, config: Arc<ServerConfig>) -> io::Result<Box<Self>> {
        read_until(&stream, &mut read, is_whole_record).await?;
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(MAX_CIPHERTEXT_BYTES));
        let tls = Box::new(Self { stream, session: Mutex::new(session), writer: AtomicWaker::new() });
        let mut rest = read.as_slice();
        while !rest.is_empty() {
            let mut session = tls.session.lock();
            session.read_tls(&mut rest)?;
            tls.process(&mut session)?;
        }
        Ok(tls)
    }

    /// Decrypts what has been read. Whoever is not understood is told by an alert, if it goes at once.
    fn process(&self, session: &mut ServerConnection) -> io::Result<()> {
        session.process_new_packets().map(drop).map_err(|error| {
            let _alert_is_lost = self.send_ciphertext(session);
            io::Error::new(io::ErrorKind::InvalidData, error)
        })
    }

    /// Writes the ciphertext that waits, as far as it goes at once.
    fn send_ciphertext(&self, session: &mut ServerConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut AtOnce(&self.stream))?;
        }
        Ok(())
    }

    /// Writes the ciphertext that waits. Ready when none does.
    fn poll_ciphertext(&self, session: &mut ServerConnection, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while session.wants_write() {
            match session.write_tls(&mut Polled(&self.stream, cx)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire for Tls {
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session.lock();
        self.send_ciphertext(&mut session)?;
        let mut taken = 0;
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            taken += session.writer().write(rest)?;
            if self.send_ciphertext(&mut session).is_err() {
                // It waits, or the connection is broken: that is for the connection's task.
                drop(session);
                self.writer.wake();
                break;
            }
        }
        Ok(taken)
    }

    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut session = self.session.lock();
        ready!(self.poll_ciphertext(&mut session, cx))?;
        let taken = session.writer().write_vectored(pieces)?;
        match self.poll_ciphertext(&mut session, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before it is looked at: whoever leaves something from now on wakes this task.
        self.writer.register(cx.waker());
        self.poll_ciphertext(&mut self.session.lock(), cx)
    }

    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut session = self.session.lock();
        loop {
            match session.reader().read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The end of TCP without one of TLS: what it cuts short, WebSocket finds out.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Poll::Ready(Ok(0)),
                done => return Poll::Ready(done),
            }
            // The peer may wait for it: a handshake takes turns.
            if let Poll::Ready(Err(error)) = self.poll_ciphertext(&mut session, cx) {
                return Poll::Ready(Err(error));
            }
            match session.read_tls(&mut Polled(&self.stream, cx)) {
                Ok(_) => self.process(&mut session)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut session = self.session.lock();
        session.send_close_notify();
        ready!(self.poll_ciphertext(&mut session, cx))?;
        self.stream.poll_end(cx)
    }
}

/// Whether the first record is there; or none is, which is for rustls to say.
fn is_whole_record(read: &[u8]) -> bool {
    match read {
        [HANDSHAKE, _, _, high, low, content @ ..] => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            length > MAX_RECORD_BYTES || content.len() >= length
        }
        _ => read.len() >= RECORD_HEADER_BYTES || read.first().is_some_and(|first| *first != HANDSHAKE),
    }
}

/// A stream as it is now, whatever tokio has noted.
struct AtOnce<'a>(&'a Bare);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        not_none(self.0.try_send(bytes)?)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        not_none(SockRef::from(self.0).send_vectored_with_flags(pieces, MSG_NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A stream whose task is woken when it was not ready, which is then an error.
struct Polled<'a, 'b, 'c>(&'a Bare, &'b mut Context<'c>);

impl Read for Polled<'_, '_, '_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        ready_or_error(self.0.poll_read(self.1, space))
    }
}

impl Write for Polled<'_, '_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        not_none(ready_or_error(self.0.poll_write(self.1, pieces))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn ready_or_error<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Whoever asked to write something must not try for ever.
fn not_none(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::task::{Wake, Waker};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio_rustls::{TlsConnector, client::TlsStream};

    /// Both sides of TLS, after the handshake.
    async fn pair() -> (Box<Tls>, TlsStream<UnixStream>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = made.signing_key.serialize_der().try_into().unwrap();
        let server = builder.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let client = builder.unwrap().with_root_certificates(roots).with_no_client_auth();

        let (here, there) = UnixStream::pair().unwrap();
        let accepting = async {
            let tls = Tls::accept(Bare::Unix(here), Vec::new(), Arc::new(server)).await.unwrap();
            // The rest of the handshake is done by whoever reads.
            assert_eq!(poll_fn(|cx| tls.poll_read(cx, &mut [0])).await.unwrap(), 1);
            tls
        };
        let connecting = async {
            let connector = TlsConnector::from(Arc::new(client));
            let mut stream = connector.connect("localhost".try_into().unwrap(), there).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            stream
        };
        tokio::join!(accepting, connecting)
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    #[tokio::test]
    async fn what_is_taken_and_does_not_go_wakes_the_task_and_all_is_written_only_once_it_has_gone() {
        let (tls, mut client) = pair().await;
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        assert!(tls.poll_flush(&mut cx).is_ready(), "nothing waits");
        let mut taken = 0;
        for _ in 0..10_000 {
            taken += tls.try_send(&[b'x'; 10_000]).unwrap_or(0);
        }
        assert!(woken.0.load(SeqCst), "something waits that only the task can write");
        assert!(tls.session.lock().wants_write());
        assert_eq!(tls.try_send(b"x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(tls.poll_write(&mut cx, &[IoSlice::new(b"x")]).is_pending(), "nothing is taken before that has gone");
        assert!(tls.poll_flush(&mut cx).is_pending());
        assert!(tls.poll_end(&mut cx).is_pending());

        let mut read = Vec::new();
        let reading = client.read_to_end(&mut read);
        let (read_to_end, ended) = tokio::join!(reading, poll_fn(|cx| tls.poll_end(cx)));
        ended.unwrap();
        assert_eq!(read_to_end.expect("a close_notify behind all of it"), taken);
    }

    #[tokio::test]
    async fn a_wire_takes_no_more_than_its_bound_at_once_and_keeps_the_order() {
        let (tls, mut client) = pair().await;
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number as u8).collect();
        let writing = async {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let (one, two) = rest.split_at(rest.len().min(1000));
                let pieces = [IoSlice::new(one), IoSlice::new(two)];
                let taken = poll_fn(|cx| tls.poll_write(cx, &pieces)).await.unwrap();
                assert!(0 < taken && taken <= MAX_CIPHERTEXT_BYTES, "{taken}");
                rest = &rest[taken..];
            }
            poll_fn(|cx| tls.poll_end(cx)).await.unwrap();
        };
        let mut read = Vec::new();
        let (_, read_to_end) = tokio::join!(writing, client.read_to_end(&mut read));
        read_to_end.unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn a_record_is_whole_at_its_last_byte() {
        let record = [HANDSHAKE, 3, 1, 0, 3, 1, 2, 3];
        for read in 0..record.len() {
            assert!(!is_whole_record(&record[..read]), "{read} bytes");
        }
        assert!(is_whole_record(&record));
        assert!(is_whole_record(b"G"), "no handshake");
        assert!(is_whole_record(&[HANDSHAKE, 3, 1, 0xFF, 0xFF]), "longer than may be");
    }
}
