//! The stream between front and proxy: framing, write deadline, what is read ahead.

use std::future::{Future, poll_fn};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::*;
use crate::ctx::Scheme;
use crate::listen::caps::Open;
use crate::listen::chunks::CHUNK_INVALID;
use crate::listen::head::HeadBounds;
use crate::listen::pace::READER_TOO_SLOW;
use crate::listen::running::RunningListener;
use crate::listen::{Buffers, ConnectionBounds, Deadlines, Listener, MinimumRates};

const PATIENCE: Duration = Duration::from_secs(7);

/// A stream and the client's end of it.
fn stream(capacity: usize) -> (Box<ClientStream<DuplexStream>>, DuplexStream) {
    stream_with(capacity, Buffers::default())
}

fn stream_with(capacity: usize, buffers: Buffers) -> (Box<ClientStream<DuplexStream>>, DuplexStream) {
    let second = Duration::from_secs(1);
    let settings = Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        proxy_protocol: None,
        connections: ConnectionBounds { max: 9, ..ConnectionBounds::default() },
        deadlines: Deadlines {
            handshake: Duration::from_secs(10),
            header: second,
            keep_alive: second,
            body: second,
            write: PATIENCE,
            linger: second,
        },
        minimum_rates: MinimumRates::default(),
        heads: HeadBounds::default(),
        protocols: Default::default(),
        http2: Default::default(),
        buffers,
        tls: None,
        https: None,
    };
    let open = Arc::new(Open::default());
    let listener = RunningListener::new("l", 0, settings.clone(), open.clone(), Arc::default());
    let permit = listener.caps.admit([127, 0, 0, 1].into(), settings.connections, &open).unwrap();
    let (near, far) = tokio::io::duplex(capacity);
    let conn = Arc::new(ConnInfo::new(listener, "[::ffff:127.0.0.1]:9".parse().unwrap(), Scheme::Http));
    (ClientStream::new(far, permit, conn), near)
}

fn head(body: Body) -> Head {
    Head { leading: 0, len: 0, body, close: false, upgrade: false, expect_continue: false }
}

fn begin(stream: &mut ClientStream<DuplexStream>, body: Body, rest: &[u8]) {
    let demands = Demands::of(&stream.conn.listener.peek());
    stream.begin(&head(body), BytesMut::from(rest), demands);
}

/// Polls once.
async fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

async fn next_head(stream: &mut ClientStream<DuplexStream>) -> Vec<u8> {
    let mut head = BytesMut::new();
    poll_fn(|cx| stream.poll_head(cx, &mut head)).await.unwrap();
    head.to_vec()
}

#[tokio::test]
async fn reads_end_where_the_body_ends_and_what_follows_is_kept() {
    for read in [1, 3, 4096] {
        for (body, bytes) in [(Body::Length(5), "hello"), (Body::Chunked, "5;a\r\nhello\r\n0\r\nx: y\r\n\r\n")] {
            // Part of it was read with the head, part of it comes later.
            for early in 0..bytes.len() + 3 {
                let (mut stream, mut client) = stream(1 << 16);
                let all = format!("{bytes}GET /next");
                begin(&mut stream, body, &all.as_bytes()[..early]);
                tokio::task::yield_now().await;
                client.write_all(&all.as_bytes()[early..]).await.unwrap();
                let (mut seen, mut space) = (Vec::new(), vec![0; read]);
                while let Poll::Ready(n) = now(stream.read(&mut space)).await {
                    seen.extend_from_slice(&space[..n.unwrap()]);
                    // Or the runtime makes a task that reads so much look as if there were nothing to read.
                    tokio::task::yield_now().await;
                }
                assert_eq!(String::from_utf8(seen).unwrap(), bytes, "{early} bytes early, read by {read}");
                assert!(stream.is_at_rest());
                let mut next = next_head(&mut stream).await;
                if next.len() < "GET /next".len() {
                    next.extend(next_head(&mut stream).await);
                }
                assert_eq!(next, b"GET /next");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_while_it_waits_is_noticed_one_that_sends_early_is_not() {
    let (mut stream, mut client) = stream(1 << 16);
    begin(&mut stream, Body::None, b"");
    assert!(now(stream.read_u8()).await.is_pending());
    client.write_all(b"GET").await.unwrap();
    assert!(now(stream.read_u8()).await.is_pending());
    drop(client);
    assert!(now(stream.read_u8()).await.is_pending(), "what it has asked for is still answered");
    assert_eq!(next_head(&mut stream).await, b"GET");
    assert_eq!(next_head(&mut stream).await, b"");

    let (mut stream, client) = self::stream(1 << 16);
    begin(&mut stream, Body::None, b"");
    drop(client);
    assert!(matches!(now(stream.read(&mut [0; 8])).await, Poll::Ready(Ok(0))));
}

#[tokio::test]
async fn no_more_than_a_bound_is_read_early() {
    for ahead in [1 << 10, 16 << 10, 100 << 10] {
        let (mut stream, mut client) = stream_with(1 << 20, Buffers { ahead, ..Buffers::default() });
        begin(&mut stream, Body::None, b"");
        client.write_all(&vec![b'x'; 200_000]).await.unwrap();
        assert!(now(stream.read_u8()).await.is_pending());
        assert!((ahead..ahead + SCRATCH_BYTES).contains(&stream.ahead.len()), "{}", stream.ahead.len());
    }
}

#[tokio::test]
async fn a_malformed_chunk_is_an_error_and_a_fault_of_the_connection() {
    let (mut stream, mut client) = stream(1 << 16);
    begin(&mut stream, Body::Chunked, b"");
    client.write_all(b"2\r\nab\r\nx").await.unwrap();
    assert_eq!(stream.read(&mut [0; 64]).await.unwrap_err().kind(), ErrorKind::InvalidData);
    assert_eq!((stream.conn.fault(), stream.is_at_rest()), (Some(&CHUNK_INVALID), false));
    assert!(stream.read(&mut [0; 64]).await.is_err(), "and stays one");
}

#[tokio::test]
async fn head_and_body_of_a_small_answer_go_out_together() {
    let (mut stream, mut client) = stream(1 << 16);
    stream.write_all(b"head").await.unwrap();
    stream.write_all(b"body").await.unwrap();
    assert!(now(client.read_u8()).await.is_pending(), "nothing goes out before the flush");
    stream.flush().await.unwrap();
    let mut all = [0; 64];
    let n = client.read(&mut all).await.unwrap();
    assert_eq!((&all[..n], stream.conn.sent(), stream.out.capacity()), (&b"headbody"[..], 8, 0));
}

#[tokio::test]
async fn what_is_written_arrives_in_order_whatever_the_sizes() {
    let (mut stream, mut client) = stream(1000);
    let writer = async {
        let mut expected = Vec::new();
        for (n, size) in [3, 4096, 1, 4095, 5000, 0, 10_000, 7].into_iter().enumerate() {
            let piece = vec![n as u8; size];
            expected.extend_from_slice(&piece);
            if n % 2 == 0 {
                stream.write_all(&piece).await.unwrap();
            } else {
                let (a, b) = piece.split_at(size / 2);
                let mut both = Buf::chain(a, b);
                stream.write_all_buf(&mut both).await.unwrap();
            }
        }
        AsyncWriteExt::shutdown(&mut *stream).await.unwrap();
        expected
    };
    let reader = async {
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).await.unwrap();
        seen
    };
    let (expected, seen) = tokio::join!(writer, reader);
    assert_eq!(expected, seen);
    assert_eq!(stream.conn.sent(), expected.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_write_is_given_up_after_the_deadline_without_progress() {
    let (mut stream, mut client) = stream(1000);
    let start = Instant::now();
    let reader = async {
        tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
        client.read_exact(&mut [0; 500]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let error = tokio::select! {
        written = stream.write_all(&[b'x'; 100_000]) => written.unwrap_err(),
        () = reader => unreachable!("waits for ever"),
    };
    assert_eq!((error.kind(), (Instant::now() - start).as_secs()), (ErrorKind::TimedOut, 8), "500 bytes make up for 2 of 6 seconds");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_byte_now_and_then_is_given_up_when_it_is_too_far_behind() {
    let (mut stream, mut client) = stream(1000);
    let start = Instant::now();
    let reader = async {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            client.read_exact(&mut [0; 1]).await.unwrap();
        }
    };
    let error = tokio::select! {
        written = stream.write_all(&[b'x'; 100_000]) => written.unwrap_err(),
        () = reader => unreachable!("reads for ever"),
    };
    // Each byte is worth 1/256 s.
    assert_eq!((error.kind(), (Instant::now() - start).as_secs()), (ErrorKind::TimedOut, 7));
    assert_eq!(stream.conn.fault(), Some(&READER_TOO_SLOW));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_to_the_minimum_rate_may_take_as_long_as_it_likes() {
    let (mut stream, mut client) = stream(1000);
    let reader = async {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            client.read_exact(&mut [0; 600]).await.unwrap();
        }
    };
    tokio::join!(
        async {
            stream.write_all(&[b'x'; 30_000]).await.unwrap();
            stream.flush().await.unwrap();
        },
        reader
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_when_it_is_too_far_behind() {
    let (mut stream, mut client) = stream(1000);
    begin(&mut stream, Body::Length(1000), b"");
    let start = Instant::now();
    let writer = async {
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.write_all(b"x").await.unwrap();
        }
    };
    let mut body = [0; 1000];
    let error = tokio::select! {
        read = stream.read_exact(&mut body) => read.unwrap_err(),
        () = writer => unreachable!("writes for ever"),
    };
    assert_eq!((error.kind(), (Instant::now() - start).as_millis()), (ErrorKind::TimedOut, 1012), "the deadline, and 3 bytes");
    assert_eq!((stream.conn.fault(), stream.is_at_rest()), (Some(&BODY_TOO_SLOW), false));
}
