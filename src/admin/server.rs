//! A small HTTP/1.1 server for the private listener, on a thread and runtime of its own, so that probes are answered while
//! every worker is busy.
//!
//! Decides how much time and memory its clients may take. Does not decide what they are told: see `admin.rs`.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use super::page::POLICY;
use super::{ADMIN_REQUEST_MALFORMED, Figures, HTML, Page, answer};
use crate::reply::problem::Problem;
use crate::report::civil::http_date;

/// How long a client may take to send a head, be idle in between, or take an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// How many connections may be open; more are closed at once.
const CONNECTIONS: usize = 64;
/// How long a request head may be, in bytes.
const HEAD: usize = 8 * 1024;
/// How long answers that are under way when the server ends may take.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// What holds a descriptor.
const SPARE: &str = "/dev/null";
/// How long accepting pauses where it fails, such as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The running server. When this is dropped it ends: it has accepted its last connection when the drop returns.
#[derive(Debug)]
pub struct Server {
    running: Option<oneshot::Sender<()>>,
    accepting: mpsc::Receiver<()>,
}

/// What matters of a request head.
#[derive(Debug, PartialEq, Eq)]
struct Head<'a> {
    method: &'a str,
    /// Without the query.
    path: &'a str,
    /// Whether another request may follow on the connection.
    may_continue: bool,
}

// === impl Server ===

impl Server {
    /// Answers on a bound socket from now on.
    pub fn start(listener: TcpListener, figures: Arc<dyn Figures>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let (running, stopped) = oneshot::channel();
        let (accepts, accepting) = mpsc::channel();
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                let room = Arc::new(Semaphore::new(CONNECTIONS));
                tokio::select! {
                    () = accept(listener, figures, &room) => {}
                    _ = stopped => {}
                }
                drop(accepts);
                // A scrape that has begun is not cut: another process may have taken over, and this answer is still right.
                // Whoever only keeps a connection finds it closed after the last answer, or here.
                let _ = timeout(LAST_ANSWERS, room.acquire_many(CONNECTIONS as u32)).await;
            });
        })?;
        Ok(Server { running: Some(running), accepting })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.running.take());
        // Ends as soon as the thread has heard; bounded, should it be stuck.
        let _ = self.accepting.recv_timeout(LAST_ANSWERS);
    }
}

async fn accept(listener: tokio::net::TcpListener, figures: Arc<dyn Figures>, room: &Arc<Semaphore>) {
    let mut spare = std::fs::File::open(SPARE).ok();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Probes are to be answered where descriptors have run out, too: that one is kept for them.
            Err(_) if spare.take().is_some() => continue,
            Err(error) => {
                log::warn!("accept on the private listener: {error}");
                tokio::time::sleep(PAUSE).await;
                spare = std::fs::File::open(SPARE).ok();
                continue;
            }
        };
        if spare.is_none() {
            spare = std::fs::File::open(SPARE).ok();
        }
        let Ok(place) = room.clone().try_acquire_owned() else { continue };
        let figures = figures.clone();
        tokio::spawn(async move {
            // A client that goes away or takes too long is no event: its connection is closed.
            let _ = serve(stream, &*figures).await;
            drop(place);
        });
    }
}

/// Answers one request after the other until the client is done, silent, or wrong.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, figures: &dyn Figures) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(1024);
    loop {
        let Some(end) = timeout(DEADLINE, read_head(&mut stream, &mut buffer)).await?? else { return Ok(()) };
        let (page, is_head, may_continue) = match Head::parse(&buffer[..end]) {
            Some(Head { method, path, may_continue }) => (answer(figures, method, path), method == "HEAD", may_continue),
            None => (Page::problem(&Problem::new(&ADMIN_REQUEST_MALFORMED)), false, false),
        };
        buffer.drain(..end);
        timeout(DEADLINE, stream.write_all(&response(&page, is_head, may_continue))).await??;
        if !may_continue {
            return stream.shutdown().await;
        }
    }
}

/// Where the next request head in the buffer ends, its empty line included; the whole buffer where it is too long for one. `None`
/// where the client closed.
async fn read_head(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if buffer.len() >= HEAD {
            return Ok(Some(buffer.len()));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn response(page: &Page, is_head: bool, may_continue: bool) -> Vec<u8> {
    let Page { status, content_type, allow, body } = page;
    let reason = http::StatusCode::from_u16(*status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let date = http_date(now);
    let date = String::from_utf8_lossy(&date);
    let allow = allow.map(|methods| format!("allow: {methods}\r\n")).unwrap_or_default();
    let close = if may_continue { "" } else { "connection: close\r\n" };
    let policy = match *content_type == HTML {
        true => format!("content-security-policy: {}\r\nreferrer-policy: no-referrer\r\n", *POLICY),
        false => String::new(),
    };
    let length = body.len();
    let mut out = format!(
        "HTTP/1.1 {status} {reason}\r\ndate: {date}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         cache-control: no-store\r\nx-content-type-options: nosniff\r\n{policy}{allow}{close}\r\n"
    )
    .into_bytes();
    if !is_head {
        out.extend_from_slice(body);
    }
    out
}

// === impl Head ===

impl<'a> Head<'a> {
    /// RFC 9112 section 3, for requests without a body: one that announces a body is answered, and its connection closed.
    fn parse(head: &'a [u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
        let mut lines = head.split("\r\n");
        let mut words = lines.next()?.split(' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || method.is_empty() || !target.starts_with('/') {
            return None;
        }
        let mut may_continue = match version {
            "HTTP/1.1" => true,
            "HTTP/1.0" => false,
            _ => return None,
        };
        for line in lines {
            let (name, value) = line.split_once(':')?;
            if name.is_empty() || name.bytes().any(|byte| !byte.is_ascii_graphic()) {
                return None;
            }
            let value = value.trim_matches([' ', '\t']);
            let closes = name.eq_ignore_ascii_case("connection") && value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
            let has_body = name.eq_ignore_ascii_case("transfer-encoding") || (name.eq_ignore_ascii_case("content-length") && value != "0");
            may_continue &= !closes && !has_body;
        }
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        Some(Head { method, path, may_continue })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fixed;
    use super::*;
    use std::io::{Read, Write};
    use tokio::io::duplex;

    /// Everything that is answered to these bytes until the server closes.
    async fn exchange(request: &[u8]) -> String {
        let (mut client, server) = duplex(64 * 1024);
        client.write_all(request).await.unwrap();
        client.shutdown().await.unwrap();
        serve(server, &Fixed(Ok(()))).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn one_connection_serves_many_requests_sent_in_one_go() {
        let text = exchange(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\nGET /readyz?x HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 2);
        assert!(text.contains("alive\n") && text.ends_with("ready\n"));
        assert!(!text.contains("connection: close"));
    }

    #[tokio::test]
    async fn the_answer_to_head_has_a_length_and_no_body() {
        let text = exchange(b"HEAD /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(text.contains("content-length: 6\r\n") && text.ends_with("\r\n\r\n"));
    }

    #[tokio::test]
    async fn a_refused_method_is_told_which_there_are() {
        let text = exchange(b"DELETE /status HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && text.contains("\r\nallow: GET, HEAD\r\n"), "{text}");
    }

    #[tokio::test]
    async fn whoever_asks_to_close_or_brings_a_body_is_answered_once() {
        for head in ["connection: Close", "connection: x, close", "content-length: 5", "transfer-encoding: chunked"] {
            let text = exchange(format!("GET /livez HTTP/1.1\r\n{head}\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n").as_bytes()).await;
            assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{head}");
            assert!(text.contains("\r\nconnection: close\r\n"), "{head}");
        }
        assert!(exchange(b"GET /livez HTTP/1.0\r\n\r\n").await.contains("connection: close"));
    }

    #[tokio::test]
    async fn what_is_no_request_is_a_problem_and_the_end() {
        let long = format!("GET /livez HTTP/1.1\r\nx: {}", "y".repeat(HEAD));
        for request in [
            "hello\r\n\r\n",
            "GET /livez\r\n\r\n",
            "GET  /livez HTTP/1.1\r\n\r\n",
            "GET /livez HTTP/2.0\r\n\r\n",
            "GET livez HTTP/1.1\r\n\r\n",
        ]
        .into_iter()
        .chain(["GET /livez HTTP/1.1\r\nx : y\r\n\r\n", "GET /livez HTTP/1.1\r\n folded: y\r\n\r\n", "\r\n\r\n", &long])
        {
            let text = exchange(request.as_bytes()).await;
            assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?} gave {text}");
            assert!(text.contains("connection: close") && text.contains("admin-request-malformed"), "{request:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stays_silent_is_cut_off() {
        let (mut client, server) = duplex(1024);
        client.write_all(b"GET /livez HT").await.unwrap();
        let error = serve(server, &Fixed(Ok(()))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut_off() {
        let (mut client, server) = duplex(64);
        client.write_all(b"GET /status HTTP/1.1\r\n\r\n").await.unwrap();
        let error = serve(server, &Fixed(Ok(()))).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn it_answers_on_a_socket_until_it_is_dropped_and_admits_only_so_many() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = Server::start(listener, Arc::new(Fixed(Ok(())))).unwrap();
        let ask = || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // The server may have closed already: what was read tells.
            let _ = stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n");
            let mut text = [0; 15];
            let is_answered = stream.read_exact(&mut text).is_ok() && &text == b"HTTP/1.1 200 OK";
            (stream, is_answered)
        };
        let held: Vec<_> = (0..CONNECTIONS).map(|_| ask()).collect();
        assert!(held.iter().all(|(_, is_answered)| *is_answered));
        assert!(!ask().1);
        drop(server);
        for (mut stream, _) in held {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest); // ends, since the server has gone
        }
    }
}
