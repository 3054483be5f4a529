//! The stream beside a client whose every byte a test decides.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::listen::tls::PROVIDER;

/// The server's end, and the client's: its socket and its session, so that a test decides what bytes go over.
async fn shaken(room: usize) -> (TlsStream<DuplexStream>, DuplexStream, ClientConnection) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let mut server = ServerConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], made.signing_key.into())
        .unwrap();
    server.send_tls13_tickets = 0;
    let client = ClientConfig::builder_with_provider(PROVIDER.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (near, far) = duplex(room);
    let connector = TlsConnector::from(Arc::new(client));
    let name = ServerName::try_from("localhost").unwrap();
    let (accepted, connected) = tokio::join!(TlsAcceptor::from(Arc::new(server)).accept(near), connector.connect(name, far));
    let (socket, session) = accepted.unwrap().into_inner();
    let (far, mut client) = connected.unwrap().into_inner();
    assert!(!client.wants_write());
    client.set_buffer_limit(None);
    (TlsStream::new(socket, session), far, client)
}

/// Each piece as a record.
fn sealed<'a>(client: &mut ClientConnection, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        client.writer().write_all(piece).unwrap();
        while client.wants_write() {
            client.write_tls(&mut out).unwrap();
        }
    }
    out
}

/// What the client makes of these bytes.
fn opened(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        while let Ok(chunk @ [_, ..]) = client.reader().into_first_chunk() {
            let n = chunk.len();
            out.extend_from_slice(chunk);
            client.reader().consume(n);
        }
    }
    out
}

fn text(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn large_bodies_pass_both_ways_through_a_narrow_socket() {
    let (mut server, far, client) = shaken(1000).await;
    let body = text(1 << 20);
    let mut sent = client;
    let bytes = sealed(&mut sent, [&body[..]]);
    let (mut from, mut to) = tokio::io::split(far);
    let upload = async {
        to.write_all(&bytes).await.unwrap();
    };
    let serve = async {
        let mut got = vec![0; body.len()];
        server.read_exact(&mut got).await.unwrap();
        assert!(got == body);
        server.write_all(&got).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let download = async {
        let mut all = Vec::new();
        from.read_to_end(&mut all).await.unwrap();
        all
    };
    let ((), (), all) = tokio::join!(upload, serve, download);
    assert!(opened(&mut sent, &all) == body);
}

#[tokio::test]
async fn records_of_one_byte_are_one_stream() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let body = text(300);
    far.write_all(&sealed(&mut client, body.chunks(1))).await.unwrap();
    let mut got = vec![0; 300];
    // One read of the socket brings many of them, and all that fits is given at once.
    let n = server.read(&mut got).await.unwrap();
    assert!(n > 100, "{n}");
    server.read_exact(&mut got[n..]).await.unwrap();
    assert_eq!(got, body);
}

#[tokio::test]
async fn what_a_read_leaves_is_there_for_the_next() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let body = text(4000);
    far.write_all(&sealed(&mut client, body.chunks(1000))).await.unwrap();
    let mut got = Vec::new();
    while got.len() < body.len() {
        let mut piece = [0; 7];
        let n = server.read(&mut piece).await.unwrap();
        assert!(n > 0);
        got.extend_from_slice(&piece[..n]);
    }
    assert_eq!(got, body);
}

#[tokio::test]
async fn a_record_that_comes_in_pieces_is_awaited() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let bytes = sealed(&mut client, [&b"whole"[..]]);
    let mut got = [0; 5];
    let mut reading = by_hand(server.read_exact(&mut got));
    for byte in &bytes {
        assert!(reading.poll().is_pending());
        far.write_all(&[*byte]).await.unwrap();
    }
    assert!(matches!(reading.poll(), Poll::Ready(Ok(5))));
    assert_eq!(&got, b"whole");
}

/// A future that is polled by hand; that nobody woke it is not looked at.
struct ByHand<F>(Pin<Box<F>>);

fn by_hand<F: Future>(future: F) -> ByHand<F> {
    ByHand(Box::pin(future))
}

impl<F: Future> ByHand<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        self.0.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop()))
    }
}

#[tokio::test]
async fn behind_close_notify_nothing_is_read_and_the_other_way_stays_open() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let mut bytes = sealed(&mut client, [&b"last"[..]]);
    client.send_close_notify();
    client.write_tls(&mut bytes).unwrap();
    bytes.extend_from_slice(b"no record at all");
    far.write_all(&bytes).await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    assert_eq!(opened(&mut client, &all), b"answer");
    assert_eq!(client.reader().read(&mut [0]).unwrap(), 0, "an orderly end");
}

#[tokio::test]
async fn an_end_in_the_middle_of_a_record_is_an_error_behind_what_was_whole() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let mut bytes = sealed(&mut client, [&b"whole"[..], &b"broken"[..]]);
    bytes.truncate(bytes.len() - 1);
    far.write_all(&bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let mut got = [0; 11];
    assert_eq!(server.read(&mut got).await.unwrap(), 5);
    assert_eq!(server.read(&mut got).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(server.read(&mut got).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_end_without_close_notify_is_an_error() {
    let (mut server, mut far, _client) = shaken(64 << 10).await;
    far.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_record_that_was_changed_is_an_error_and_the_client_is_told() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    let mut bytes = sealed(&mut client, [&b"whole"[..]]);
    *bytes.last_mut().unwrap() ^= 1;
    far.write_all(&bytes).await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!(server.write(b"more").await.unwrap_err().kind(), ErrorKind::InvalidData);
    let mut alert = vec![0; 100];
    let n = far.read(&mut alert).await.unwrap();
    client.read_tls(&mut &alert[..n]).unwrap();
    let told = client.process_new_packets().unwrap_err();
    assert_eq!(told, rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac));
}

#[tokio::test]
async fn who_does_not_read_stops_the_writer_at_a_bound() {
    let (mut server, mut far, mut client) = shaken(1000).await;
    let body = text(1 << 20);
    let mut taken = 0;
    let mut cx = Context::from_waker(std::task::Waker::noop());
    while let Poll::Ready(n) = Pin::new(&mut server).poll_write(&mut cx, &body[taken..]) {
        taken += n.unwrap();
        assert!(taken < 128 << 10, "{taken} bytes are held for one who reads nothing");
    }
    assert!(taken > 0);
    assert!(Pin::new(&mut server).poll_flush(&mut cx).is_pending());
    let slices = [IoSlice::new(&body[taken..taken + 10]), IoSlice::new(&body[taken + 10..])];
    assert!(Pin::new(&mut server).poll_write_vectored(&mut cx, &slices).is_pending());
    // Once it reads, all of it comes, in order.
    let rest = async {
        server.write_all(&body[taken..]).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let mut all = Vec::new();
    let (_, read) = tokio::join!(rest, far.read_to_end(&mut all));
    read.unwrap();
    assert!(opened(&mut client, &all) == body);
}

#[tokio::test]
async fn nothing_is_sealed_for_nothing_and_slices_are_one_record() {
    let (mut server, mut far, mut client) = shaken(64 << 10).await;
    assert_eq!(server.write(b"").await.unwrap(), 0);
    assert_eq!(server.write_vectored(&[IoSlice::new(b""), IoSlice::new(b"")]).await.unwrap(), 0);
    assert_eq!(server.write_vectored(&[IoSlice::new(b"head "), IoSlice::new(b"body")]).await.unwrap(), 9);
    server.flush().await.unwrap();
    let mut all = vec![0; 1000];
    let n = far.read(&mut all).await.unwrap();
    // Header, content, its type and the tag.
    assert_eq!(n, 5 + 9 + 1 + 16);
    assert_eq!(opened(&mut client, &all[..n]), b"head body");
    server.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
    let n = far.read(&mut all).await.unwrap();
    assert_eq!(n, 5 + 2 + 1 + 16, "one close_notify");
}
