//! An HTTP/1.1 upstream for trying any configuration: it describes each request that it gets, or plays fixed answers.
//!
//! Parsing and answers share nothing with the gateway, so that it does not agree with the gateway's mistakes. Speaks no TLS and no HTTP/2.

pub mod answers;
mod connection;
mod head;
mod websocket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use answers::{Answers, AnswersError};

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Counts the connections from 0.
    pub connection: u64,
    /// Request line and fields with the empty line, byte for byte.
    pub head: Vec<u8>,
    /// The body as on the wire: with the chunk framing and trailers where there are any.
    pub body: Vec<u8>,
    /// The body's content.
    pub content: Vec<u8>,
}

/// An echo that runs in this process, on a thread of its own, and records what it gets. Dropping it stops it.
pub struct Echo {
    address: SocketAddr,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    name: String,
    answers: Answers,
    recorded: Option<Arc<Mutex<Vec<Recorded>>>>,
}

// === impl Echo ===

impl Echo {
    /// Listens on an address such as `127.0.0.1:0`.
    pub fn start(address: &str, answers: Answers) -> io::Result<Echo> {
        Echo::start_as(address, "echo", answers)
    }

    /// Likewise, with a name that its descriptions show.
    pub fn start_as(address: &str, name: &str, answers: Answers) -> io::Result<Echo> {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::new(Shared { name: name.to_owned(), answers, recorded: Some(recorded.clone()) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("echo".into()).spawn(move || {
            runtime.block_on(async {
                if let Ok(listener) = TcpListener::from_std(listener) {
                    run(listener, shared, Duration::ZERO, stopped).await;
                }
            });
        })?;
        Ok(Echo { address, recorded, stop: Some(stop), thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests whose bodies have arrived so far, in that order. A request is here before its answer is sent.
    pub fn requests(&self) -> Vec<Recorded> {
        self.recorded.lock().clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It panicked where this fails, and that was printed.
            let _ = thread.join();
        }
    }
}

/// Serves until `stop` is ready, then lets started requests finish for at most `drain`.
pub async fn serve(listener: TcpListener, name: &str, answers: Answers, drain: Duration, stop: impl Future) {
    run(listener, Arc::new(Shared { name: name.to_owned(), answers, recorded: None }), drain, stop).await;
}

async fn run(listener: TcpListener, shared: Arc<Shared>, drain: Duration, stop: impl Future) {
    let (stopping, is_stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut number = 0;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, number, shared.clone(), is_stopping.clone()));
                    number += 1;
                }
                // Out of descriptors, most often: others may be freed soon.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    drop(listener);
    stopping.send_replace(true);
    let _ = tokio::time::timeout(drain, async { while connections.join_next().await.is_some() {} }).await;
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};

    use super::*;

    fn echo(answers: &str) -> Echo {
        Echo::start("127.0.0.1:0", Answers::parse(answers).unwrap()).unwrap()
    }

    /// Everything that comes back for these bytes until the echo closes; the last request must ask for that.
    fn exchange(echo: &Echo, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(echo.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all
    }

    fn text(echo: &Echo, request: &str) -> String {
        String::from_utf8(exchange(echo, request.as_bytes())).unwrap()
    }

    fn described(echo: &Echo, request: &str) -> serde_json::Value {
        let answer = text(echo, request);
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    #[test]
    fn a_request_is_described_with_its_headers_in_order_and_spelling() {
        let seen = described(
            &echo(""),
            "POST /a/b?x=1&y HTTP/1.1\r\nHost: h\r\nX-B: 2\r\nx-a: 1\r\nX-B: 3\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        );
        assert_eq!(seen["method"], "POST");
        assert_eq!((&seen["path"], &seen["query"]), (&"/a/b".into(), &"x=1&y".into()));
        assert_eq!(
            seen["headers"],
            serde_json::json!([["Host", "h"], ["X-B", "2"], ["x-a", "1"], ["X-B", "3"], ["Connection", "close"], ["Content-Length", "5"]])
        );
        assert_eq!(seen["body"]["bytes"], 5);
        assert_eq!(seen["body"]["sha256"], "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
        assert_eq!(seen["body"]["text"], "hello");
    }

    #[test]
    fn a_chunked_body_is_read_and_recorded_both_ways() {
        let echo = echo("");
        let body = "3;ext=1\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Trailer: t\r\n\r\n";
        let head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        assert_eq!(described(&echo, &format!("{head}{body}"))["body"]["text"], "abc0123456789");
        let recorded = echo.requests();
        assert_eq!(recorded, [Recorded { connection: 0, head: head.into(), body: body.into(), content: "abc0123456789".into() }]);
    }

    #[test]
    fn several_requests_share_a_connection_and_the_expectation_is_met() {
        let echo = echo("/x: { status: 201, xml: <a/> }\n/c: { body: abc, chunked: true }\n/no: { status: 204 }");
        let answer = text(
            &echo,
            "PUT /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nxGET /c HTTP/1.1\r\nHost: h\r\n\r\nHEAD /x HTTP/1.1\r\nHost: h\r\n\r\n\
             GET /no HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        );
        assert_eq!(
            answer,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-type: application/xml\r\ncontent-length: 4\r\n\r\n<a/>\
             HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
             HTTP/1.1 201 Created\r\ncontent-type: application/xml\r\ncontent-length: 4\r\n\r\n\
             HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(echo.requests().iter().map(|r| r.connection).collect::<Vec<_>>(), [0, 0, 0, 0]);
    }

    #[test]
    fn a_large_answer_has_exactly_the_size_that_was_asked_for() {
        let echo = echo("/s: { size: 1MiB }\n/c: { size: 200000, chunked: true }");
        let all = exchange(&echo, b"GET /s HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let body = &all[memchr::memmem::find(&all, b"\r\n\r\n").unwrap() + 4..];
        assert_eq!(body.len(), 1 << 20);
        assert!(body.iter().enumerate().all(|(i, byte)| *byte == b'a' + (i % 26) as u8));
        let all = exchange(&echo, b"GET /c HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert!(all.ends_with(b"\r\n0\r\n\r\n"));
        assert_eq!(all.iter().filter(|byte| **byte == b'z').count(), 200_000 / 26);
    }

    #[test]
    fn an_answer_can_close_or_reset_the_connection() {
        let echo = echo("/close: { close: true, body: bye }\n/reset: { close: reset }");
        let answer = text(&echo, "GET /close HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("bye"), "{answer}");
        let mut stream = TcpStream::connect(echo.address()).unwrap();
        stream.write_all(b"GET /reset HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let echo = echo("");
        for request in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\nx",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\na\n",
            "\x16\x03\x01 not HTTP\r\n\r\n",
        ] {
            assert!(text(&echo, request).starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}");
        }
        assert_eq!(echo.requests(), []);
    }

    #[test]
    fn websocket_frames_come_back_unmasked() {
        let echo = echo("");
        let mut request =
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
                .to_vec();
        let mask = [1, 2, 3, 4];
        let frame = |out: &mut Vec<u8>, first: u8, payload: &[u8]| {
            out.push(first);
            match payload.len() {
                n @ 0..=125 => out.push(0x80 | n as u8),
                n => {
                    out.push(0xff);
                    out.extend_from_slice(&(n as u64).to_be_bytes());
                }
            }
            out.extend_from_slice(&mask);
            out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i & 3]));
        };
        let long: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        frame(&mut request, 0x81, b"hello");
        frame(&mut request, 0x89, b"ping");
        frame(&mut request, 0x8a, b"unasked");
        frame(&mut request, 0x82, &long);
        frame(&mut request, 0x88, &[0x03, 0xe8]);
        let mut expected = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello\x8a\x04ping\x82\x7f"
            .to_vec();
        expected.extend_from_slice(&70_000u64.to_be_bytes());
        expected.extend_from_slice(&long);
        expected.extend_from_slice(b"\x88\x02\x03\xe8");
        assert!(exchange(&echo, &request) == expected);
    }

    #[test]
    fn an_unmasked_frame_ends_the_tunnel_with_a_protocol_error() {
        let request = b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x81\x05hello";
        assert!(exchange(&echo(""), request).ends_with(b"\r\n\r\n\x88\x02\x03\xea"));
    }

    #[test]
    fn stopping_closes_idle_connections_and_frees_the_port() {
        let echo = echo("");
        let address = echo.address();
        let mut idle = TcpStream::connect(address).unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 4096]).unwrap() > 0);
        drop(echo);
        let mut rest = Vec::new();
        assert!(idle.read_to_end(&mut rest).is_err() || rest.is_empty());
        let _ = idle.shutdown(Shutdown::Both);
        assert!(std::net::TcpListener::bind(address).is_ok());
    }
}
