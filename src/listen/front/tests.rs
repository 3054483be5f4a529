//! The front with a proxy behind it, over real sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;
use crate::ctx::Scheme;
use crate::listen::Listener;
use crate::listen::accept::{accept, bind};
use crate::listen::caps::Open;
use crate::listen::head::HeadBounds;
use crate::listen::running::RunningListener;
use crate::listen::{Buffers, ConnectionBounds, Deadlines, MinimumRates};

/// Answers by path; only `/up` asks an upstream.
struct App {
    upstream: Option<SocketAddr>,
    /// `/hold` answers once it gets a permit.
    gate: Arc<Semaphore>,
    /// Lets a test know that `/hold` has been reached.
    held: Arc<Semaphore>,
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();
    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> pingora_core::Result<bool> {
        let conn = ConnInfo::of(session).expect("every session comes through the front").clone();
        let path = session.req_header().uri.path().to_owned();
        let mut text = format!("{path} {} {}", conn.requests(), conn.listener.name);
        let mut status = 200;
        match path.as_str() {
            "/up" => return Ok(false),
            "/body" => {
                let (mut bytes, mut sum) = (0, 0u64);
                while let Some(piece) = session.downstream_session.read_request_body().await? {
                    bytes += piece.len();
                    sum += piece.iter().map(|byte| u64::from(*byte)).sum::<u64>();
                }
                text = format!("{bytes} {sum}");
            }
            "/continue" => {
                if session.req_header().headers.get("expect").is_some() {
                    session.downstream_session.write_continue_response().await?;
                }
                let body = session.downstream_session.read_request_body().await?;
                text = String::from_utf8_lossy(&body.unwrap_or_default()).into_owned();
            }
            "/hold" => {
                self.held.add_permits(1);
                self.gate.acquire().await.unwrap().forget();
            }
            "/panic" => panic!("as asked"),
            "/refuse" => status = 401,
            "/tunnel" => {
                let mut head = ResponseHeader::build(101, None)?;
                head.insert_header("upgrade", "websocket")?;
                session.write_response_header(Box::new(head), false).await?;
                while let Some(piece) = session.downstream_session.read_request_body().await? {
                    session.downstream_session.write_response_body(piece, false).await?;
                }
                return Ok(true);
            }
            "/counters" => text = format!("{} {}", conn.head_bytes(), conn.received()),
            "/large" => text = "x".repeat(300_000),
            _ => {}
        }
        let mut head = ResponseHeader::build(status, None)?;
        head.insert_header("content-length", text.len())?;
        session.write_response_header(Box::new(head), false).await?;
        session.write_response_body(Some(text.into()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        let upstream = self.upstream.expect("only where there is an upstream");
        Ok(Box::new(HttpPeer::new(upstream, false, String::new())))
    }
}

/// Answers with the bare code, and remembers.
#[derive(Default)]
struct Record {
    refused: Mutex<Vec<(&'static str, Vec<u8>)>>,
    dropped: Mutex<Vec<(String, &'static str)>>,
}

impl Refuse for Record {
    fn refuse(&self, conn: &ConnInfo, kind: &'static Kind, head: &[u8], _: Duration) -> Bytes {
        assert!(conn.peer.ip().is_loopback());
        self.refused.lock().push((kind.code, head.to_vec()));
        let (status, code) = (kind.status, kind.code);
        format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{code}", code.len()).into()
    }
    fn refuse_stream(&self, conn: &ConnInfo, kind: &'static Kind, asked: &Asked<'_>) -> (http::response::Parts, Bytes) {
        assert!(conn.peer.ip().is_loopback());
        self.refused.lock().push((kind.code, format!("{} {}", asked.method, asked.target).into_bytes()));
        (http::Response::builder().status(kind.status).body(()).unwrap().into_parts().0, kind.code.into())
    }
    fn dropped(&self, listener: &str, reason: Dropped) {
        self.dropped.lock().push((listener.to_owned(), reason.as_str()));
    }
}

struct Gateway {
    listener: Arc<RunningListener>,
    front: Arc<Front<HttpProxy<App>>>,
    record: Arc<Record>,
    open: Arc<Open>,
    gate: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

fn settings() -> Listener {
    Listener {
        address: "127.0.0.1:0".parse().unwrap(),
        access: crate::listen::socket_file::Access::default(),
        proxy_protocol: None,
        connections: ConnectionBounds { max: 100, ..ConnectionBounds::default() },
        deadlines: Deadlines {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            keep_alive: Duration::from_secs(60),
            body: Duration::from_secs(60),
            write: Duration::from_secs(60),
            linger: Duration::from_millis(1500),
        },
        minimum_rates: MinimumRates::default(),
        heads: HeadBounds { bytes: 4096, fields: 20, ..HeadBounds::default() },
        buffers: Buffers::default(),
        protocols: Default::default(),
        http2: Default::default(),
        tls: None,
        https: None,
    }
}

impl Gateway {
    fn new(settings: Listener) -> Self {
        Self::before(None, settings)
    }

    fn before(upstream: Option<SocketAddr>, settings: Listener) -> Self {
        let (gate, held) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), App { upstream, gate: gate.clone(), held: held.clone() }));
        let (record, open) = (Arc::new(Record::default()), Arc::new(Open::default()));
        let listener = RunningListener::new("public", 0, settings, open.clone(), Arc::default());
        Gateway { listener, front: Front::new(proxy, record.clone()), record, open, gate, held }
    }

    /// A connection in memory: with a paused clock, deadlines pass as soon as nobody has anything to do.
    fn connect(&self) -> Client<DuplexStream> {
        self.connect_with(1 << 20)
    }

    /// One that holds so many bytes which nobody has read yet.
    fn connect_with(&self, capacity: usize) -> Client<DuplexStream> {
        let (near, far) = tokio::io::duplex(capacity);
        let peer = "127.0.0.1:9".parse().unwrap();
        let permit = self.listener.caps.admit(IpAddr::from([127, 0, 0, 1]), self.listener.settings().connections, &self.open).unwrap();
        let conn = Arc::new(ConnInfo::new(self.listener.clone(), peer, Scheme::Http));
        tokio::spawn(self.front.clone().serve(ClientStream::new(far, permit, conn)));
        Client { io: near, buf: Vec::new() }
    }

    /// A real socket.
    fn listen(&self) -> (SocketAddr, tokio::task::JoinHandle<std::io::Result<()>>) {
        let socket = bind(self.listener.settings().address.ip().unwrap()).unwrap();
        (socket.local_addr().unwrap(), tokio::spawn(accept(socket, self.listener.clone(), self.front.clone())))
    }

    fn refused(&self) -> Vec<&'static str> {
        self.record.refused.lock().iter().map(|(code, _)| *code).collect()
    }

    fn dropped(&self) -> Vec<&'static str> {
        self.record.dropped.lock().iter().map(|(_, reason)| *reason).collect()
    }
}

struct Client<T> {
    io: T,
    buf: Vec<u8>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn says_close(&self) -> bool {
        self.head.to_lowercase().contains("connection: close")
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Client<T> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buf, b"\r\n\r\n") {
                let head = String::from_utf8(self.buf[..end + 4].to_vec()).unwrap();
                let status = head[9..12].parse().unwrap();
                let length = head
                    .to_lowercase()
                    .split_once("content-length: ")
                    .map_or(0, |(_, rest)| rest[..rest.find('\r').unwrap()].parse().unwrap());
                if self.buf.len() >= end + 4 + length {
                    let body = String::from_utf8(self.buf[end + 4..end + 4 + length].to_vec()).unwrap();
                    self.buf.drain(..end + 4 + length);
                    return Answer { status, head, body };
                }
            }
            let n = self.io.read_buf(&mut self.buf).await.expect("an answer, not a reset");
            assert!(n > 0, "closed inside an answer: {:?}", String::from_utf8_lossy(&self.buf));
        }
    }

    /// Waits until the gateway has closed; nothing must come before.
    async fn closed(&mut self) {
        let n = self.io.read_buf(&mut self.buf).await.unwrap_or(0);
        assert_eq!(n, 0, "{:?}", String::from_utf8_lossy(&self.buf));
    }
}

async fn dial(address: SocketAddr) -> Client<TcpStream> {
    Client { io: TcpStream::connect(address).await.unwrap(), buf: Vec::new() }
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    let mut client = dial(address).await;
    for n in 1..=3 {
        let answer = client.get("/a").await;
        assert_eq!((answer.status, answer.body), (200, format!("/a {n} public")));
        assert!(answer.head.to_lowercase().contains("connection: keep-alive"), "{}", answer.head);
    }
    assert_eq!((gateway.open.count(), gateway.listener.connections()), (1, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    let mut client = dial(address).await;
    let mut all = String::new();
    for n in 1..=50 {
        all.push_str(&format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\nPOST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"));
        all.push_str("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
    }
    client.send(all).await;
    for n in 1..=50 {
        assert_eq!(client.answer().await.body, format!("/{n} {} public", 3 * n - 2));
        assert_eq!(client.answer().await.body, "3 294");
        assert_eq!(client.answer().await.body, "2 195");
    }
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_served_waits_and_is_judged_like_all() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.held.acquire().await.unwrap().forget();
    client.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\nGET /c HTTP/1.1\r\nHost : a\r\n\r\n").await;
    gateway.gate.add_permits(1);
    assert_eq!(client.answer().await.body, "/hold 1 public");
    assert_eq!(client.answer().await.body, "/b 2 public");
    assert_eq!(client.answer().await.body, "field-name-invalid");
    client.closed().await;
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    let mut client = dial(address).await;
    client.io.set_nodelay(true).unwrap();
    for byte in "\r\nPOST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n".as_bytes() {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.body, "5 532");
    assert_eq!(client.answer().await.body, "/b 2 public", "one empty line before a request is forgiven");
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_answered_at_its_deadline_however_it_drips() {
    let gateway = Gateway::new(settings());
    for first in [true, false] {
        let mut client = gateway.connect();
        if !first {
            client.get("/").await;
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        let start = Instant::now();
        client.send("GET / HTTP/1.1\r\n").await;
        let drip = async {
            for n in 0.. {
                tokio::time::sleep(Duration::from_millis(900)).await;
                client.io.write_all(format!("x-{n}: 1\r\n").as_bytes()).await.unwrap();
                if memchr::memmem::find(&client.buf, b"header-timeout").is_some() {
                    break;
                }
                let mut seen = [0; 1024];
                if let Ok(Ok(n)) = tokio::time::timeout(Duration::ZERO, client.io.read(&mut seen)).await {
                    client.buf.extend_from_slice(&seen[..n]);
                    break;
                }
            }
        };
        drip.await;
        assert_eq!(client.answer().await.status, 408);
        assert!((10..=11).contains(&(Instant::now() - start).as_secs()), "counted from the first byte: {:?}", Instant::now() - start);
    }
    assert_eq!(gateway.refused(), ["header-timeout", "header-timeout"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_without_an_answer() {
    let gateway = Gateway::new(settings());
    let start = Instant::now();
    let mut silent = gateway.connect();
    silent.closed().await;
    assert_eq!((Instant::now() - start).as_secs(), 10, "the header deadline counts from the opening");
    assert_eq!(gateway.dropped(), ["header_deadline"]);

    let mut idle = gateway.connect();
    idle.get("/").await;
    let start = Instant::now();
    idle.send("\r\n").await;
    idle.closed().await;
    assert_eq!((Instant::now() - start).as_secs(), 60, "the keep-alive time counts from the last answer, an empty line is no request");
    assert_eq!((gateway.dropped().len(), gateway.refused().len()), (1, 0), "an idle connection that is closed is nothing to count");
    gateway.open.none().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_within_the_idle_time_starts_it_anew() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    for n in 1..5 {
        assert_eq!(client.get("/").await.body, format!("/ {n} public"));
        tokio::time::sleep(Duration::from_secs(59)).await;
    }
    let start = Instant::now();
    client.closed().await;
    assert_eq!((Instant::now() - start).as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_deadlines_of_open_connections_with_their_next_request() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.get("/").await;
    let mut shorter = settings();
    shorter.deadlines.keep_alive = Duration::from_secs(5);
    gateway.listener.update(3, shorter);
    client.get("/").await;
    let start = Instant::now();
    client.closed().await;
    assert_eq!(((Instant::now() - start).as_secs(), gateway.listener.slot()), (5, 3));
}

#[tokio::test]
async fn a_refused_head_is_answered_and_the_connection_ends() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(5000));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n", "a".repeat(5000));
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(20));
    for (head, code) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "host-duplicate"),
        ("GET / HTTP/1.1\r\n\r\n", "host-missing"),
        ("\r\n\r\n", "request-line-invalid"),
        ("\x16\x03\x01\x02", "request-line-invalid"),
        ("GET / HTTP/1.1\nHost: a\n\n", "line-ending-invalid"),
        (&long, "target-too-long"),
        (&large, "head-too-large"),
        (&many, "fields-too-many"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n",
            "framing-ambiguous",
        ),
    ] {
        let mut client = dial(address).await;
        client.send(head).await;
        let answer = client.answer().await;
        assert_eq!(answer.body, code, "{head:?}");
        client.closed().await;
        let (seen, bytes) = gateway.record.refused.lock().pop().unwrap();
        assert_eq!((seen, bytes.starts_with(&head.as_bytes()[..head.len().min(4000)])), (code, true), "{head:?}");
    }
    assert_eq!(gateway.refused().len(), 0, "each is told once");
}

#[tokio::test]
async fn a_client_that_sends_on_after_a_refusal_reads_the_answer_not_a_reset() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    for head in ["GET / HTTP/1.1\r\nHost : a\r\n\r\n", "POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"] {
        let mut client = dial(address).await;
        client.send(head).await;
        client.send(vec![b'x'; 100_000]).await;
        let answer = client.answer().await;
        assert!(matches!(answer.status, 400 | 401) && answer.says_close(), "{}", answer.head);
        // Over a real network this would overtake the answer.
        client.send(vec![b'x'; 100_000]).await;
        assert_eq!(client.io.read(&mut [0; 8]).await.map_err(|error| error.kind()), Ok(0), "an end, not a reset");
    }
    gateway.open.none().await;
}

#[tokio::test]
async fn connections_beyond_the_caps_are_closed_and_counted() {
    let mut bounds = settings();
    bounds.connections = ConnectionBounds { max: 2, ..ConnectionBounds::default() };
    let gateway = Gateway::new(bounds.clone());
    let (address, _) = gateway.listen();
    let (mut one, mut two) = (dial(address).await, dial(address).await);
    one.get("/").await;
    two.get("/").await;
    let mut three = dial(address).await;
    three.closed().await;
    assert_eq!(gateway.dropped(), ["max"]);

    bounds.connections = ConnectionBounds { max: 9, per_address: 3, ..ConnectionBounds::default() };
    gateway.listener.update(0, bounds);
    let mut four = dial(address).await;
    four.get("/").await;
    dial(address).await.closed().await;
    assert_eq!(gateway.dropped(), ["max", "per_address"]);
    drop((one, two, four));
    gateway.open.none().await;
    assert_eq!(dial(address).await.get("/").await.status, 200, "there is room again");
}

#[tokio::test]
async fn the_last_request_that_a_connection_may_carry_is_told_so() {
    let mut bounds = settings();
    bounds.connections.requests = 3;
    let gateway = Gateway::new(bounds);
    let (address, _) = gateway.listen();
    let mut client = dial(address).await;
    for n in 1..=3 {
        let answer = client.get("/").await;
        assert_eq!((answer.body.clone(), answer.says_close()), (format!("/ {n} public"), n == 3));
    }
    client.closed().await;
    // What was pipelined behind it is not served, and the answers before are read whole.
    let mut client = dial(address).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(9)).await;
    for n in 1..=3 {
        assert_eq!(client.answer().await.says_close(), n == 3);
    }
    client.closed().await;
    assert_eq!(gateway.dropped().len() + gateway.refused().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn incomplete_heads_share_a_bounded_memory() {
    let mut bounds = settings();
    bounds.heads = HeadBounds::default();
    bounds.buffers.memory = 20_000;
    let gateway = Gateway::new(bounds);
    let begun = |size: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}", "y".repeat(size));
    let (mut one, mut two, mut small) = (gateway.connect(), gateway.connect(), gateway.connect());
    one.send(begun(12_000)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    small.send(begun(4000)).await;
    two.send(begun(12_000)).await;
    let answer = two.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (503, "heads-full"));
    two.closed().await;
    for client in [&mut one, &mut small] {
        client.send("\r\n\r\n").await;
        assert_eq!(client.answer().await.status, 200, "who has a part of it goes on");
    }
    let mut again = gateway.connect();
    again.send(begun(12_000)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    again.send("\r\n\r\n").await;
    assert_eq!(again.answer().await.status, 200, "it was given back");
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_comes_within_the_linger_and_then_closes_idle_connections() {
    let gateway = Gateway::new(settings());
    let (mut idle, mut late, mut fresh) = (gateway.connect(), gateway.connect(), gateway.connect());
    idle.get("/").await;
    late.get("/").await;
    let start = Instant::now();
    gateway.listener.close_connections();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = late.get("/").await;
    assert!(answer.status == 200 && answer.says_close(), "{}", answer.head);
    late.closed().await;
    idle.closed().await;
    fresh.closed().await;
    assert_eq!((Instant::now() - start).as_millis(), 1500);
    gateway.open.none().await;
    assert_eq!(gateway.dropped().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_a_started_request_finish_and_tells_its_client() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.held.acquire().await.unwrap().forget();
    gateway.listener.close_connections();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(gateway.open.count(), 1);
    gateway.gate.add_permits(1);
    let answer = client.answer().await;
    assert!(answer.status == 200 && answer.says_close(), "{}", answer.head);
    client.closed().await;
    gateway.open.none().await;
}

#[tokio::test]
async fn a_listener_that_stops_accepting_keeps_its_connections() {
    let gateway = Gateway::new(settings());
    let (address, accepting) = gateway.listen();
    let mut client = dial(address).await;
    client.get("/").await;
    gateway.listener.stop_accepting();
    accepting.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the socket is closed");
    assert!(!client.get("/").await.says_close());
}

#[tokio::test(start_paused = true)]
async fn keep_alive_follows_the_version_and_what_the_client_says() {
    let gateway = Gateway::new(settings());
    for (head, kept) in [
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: te, close\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
    ] {
        let mut client = gateway.connect();
        client.send(head).await;
        assert_eq!((client.answer().await.says_close(), head), (!kept, head));
        if kept {
            assert_eq!(client.get("/").await.status, 200, "{head:?}");
        } else {
            client.closed().await;
        }
    }
    let mut client = gateway.connect();
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n").await;
    client.answer().await;
    client.closed().await;
    assert_eq!(start.elapsed(), Duration::ZERO, "closed at once, not when the idle time was over");
}

#[tokio::test]
async fn a_large_body_passes_both_ways() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    let mut client = dial(address).await;
    let body = vec![b'a'; 3_000_000];
    client.send(format!("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert_eq!(client.answer().await.body, format!("3000000 {}", 3_000_000u64 * 97));
    let mut chunked = b"POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(70_001) {
        chunked.extend_from_slice(format!("{:x};n=1\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
    client.send(chunked).await;
    assert_eq!(client.answer().await.body, format!("3000000 {}", 3_000_000u64 * 97));
    assert_eq!(client.get("/large").await.body.len(), 300_000);
    assert_eq!(client.get("/").await.body, "/ 4 public");
}

#[tokio::test]
async fn a_malformed_chunk_ends_the_connection_and_is_remembered() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.send("POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1 \r\nx\r\n0\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut all = String::new();
    client.io.read_to_string(&mut all).await.unwrap();
    assert!(!all.contains("evil") && !all.contains(" 200 "), "{all}");
    drop(client);
    gateway.open.none().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.send("POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.body, "hello");
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test]
async fn a_panic_in_a_hook_costs_its_connection_and_nothing_else() {
    let gateway = Gateway::new(settings());
    let (address, _) = gateway.listen();
    for _ in 0..5 {
        let mut client = dial(address).await;
        client.send("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.closed().await;
    }
    gateway.open.none().await;
    assert_eq!((gateway.listener.connections(), dial(address).await.get("/").await.status), (0, 200));
}

#[tokio::test]
async fn what_was_sent_and_received_is_counted_per_connection() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    let head = "GET /counters HTTP/1.1\r\nHost: a\r\n\r\n".len();
    assert_eq!(client.get("/counters").await.body, format!("{head} {head}"));
    assert_eq!(client.get("/counters").await.body, format!("{head} {}", 2 * head));
}

#[tokio::test]
async fn a_client_that_leaves_inside_a_head_is_counted() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect();
    client.send("GET / HT").await;
    client.io.shutdown().await.unwrap();
    client.closed().await;
    gateway.open.none().await;
    assert_eq!(gateway.dropped(), ["cut"]);
    drop(gateway.connect());
    gateway.open.none().await;
    assert_eq!(gateway.dropped(), ["cut"], "one that sent nothing is not");
}

#[tokio::test]
async fn a_handshake_becomes_a_tunnel_or_stays_a_request_like_any_other() {
    let gateway = Gateway::new(settings());
    let handshake = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    let mut client = gateway.connect();
    client.send(handshake("/refuse")).await;
    assert_eq!(client.answer().await.status, 401);
    client.send(handshake("/tunnel")).await;
    assert_eq!(client.answer().await.status, 101);
    for frame in ["GET / HTTP/1.1\r\n\r\n", "\0\0"] {
        client.send(frame).await;
        let mut echo = vec![0; frame.len()];
        client.io.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, frame.as_bytes());
    }
    client.io.shutdown().await.unwrap();
    client.closed().await;
    gateway.open.none().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_ends_its_request_after_the_body_deadline() {
    let mut short = settings();
    short.deadlines.body = Duration::from_millis(50);
    let gateway = Gateway::new(short);
    let mut client = gateway.connect();
    client.send("POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell").await;
    let mut all = String::new();
    // Pingora's own deadline would be 60 s; its clock cannot be paused.
    tokio::time::timeout(Duration::from_secs(20), client.io.read_to_string(&mut all)).await.expect("the deadline").unwrap();
    assert!(!all.contains(" 200 "), "{all}");
    drop(client);
    gateway.open.none().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answer_is_given_up_after_the_write_deadline() {
    let gateway = Gateway::new(settings());
    let mut client = gateway.connect_with(1000);
    client.get("/").await;
    let mut short = settings();
    short.deadlines.write = Duration::from_secs(7);
    gateway.listener.update(0, short);
    let start = Instant::now();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.open.none().await;
    assert!((7..10).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    assert!(memchr::memmem::find(&client.buf, b"HTTP").is_none(), "it has read nothing");
}

#[tokio::test]
async fn who_is_queued_when_a_listener_stops_accepting_is_still_served() {
    let gateway = Gateway::new(settings());
    let socket = bind(gateway.listener.settings().address.ip().unwrap()).unwrap();
    let mut client = dial(socket.local_addr().unwrap()).await;
    gateway.listener.stop_accepting();
    accept(socket, gateway.listener.clone(), gateway.front.clone()).await.unwrap();
    assert_eq!(client.get("/").await.status, 200);
}

/// An upstream that answers `ok` to each request once its body is complete. Gives what it has read of each connection that
/// has ended.
async fn upstream() -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (ended, endings) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = socket.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let (mut seen, mut answered) = (Vec::new(), 0);
                while connection.read_buf(&mut seen).await.is_ok_and(|n| n > 0) {
                    let ends = memchr::memmem::find_iter(&seen, b"END").count();
                    for _ in answered..ends {
                        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                    }
                    answered = ends;
                }
                let _ = ended.send(String::from_utf8(seen).unwrap());
            });
        }
    });
    (address, endings)
}

#[tokio::test]
async fn requests_with_bodies_pass_to_an_upstream_one_after_the_other() {
    let (address, _endings) = upstream().await;
    let gateway = Gateway::before(Some(address), settings());
    let mut client = gateway.connect();
    let sized = "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n";
    let chunked = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{sized}bodyEND")).await;
    assert_eq!(client.answer().await.body, "ok");
    client.send(sized).await;
    tokio::task::yield_now().await;
    client.send("bodyEND").await;
    assert_eq!(client.answer().await.body, "ok");
    // Two more at once: the second is there while the first still waits for its upstream.
    client.send(format!("{chunked}4\r\nbody\r\n3\r\nEND\r\n0\r\n\r\n{sized}bodyEND")).await;
    assert_eq!(client.answer().await.body, "ok");
    let last = client.answer().await;
    assert!(last.body == "ok" && !last.says_close(), "{}", last.head);
}

#[tokio::test]
async fn a_request_whose_body_turns_out_malformed_never_completes_at_its_upstream() {
    let (address, mut endings) = upstream().await;
    let gateway = Gateway::before(Some(address), settings());
    let mut client = gateway.connect();
    client.send("POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n").await;
    tokio::task::yield_now().await;
    client.send("3 \r\nEND\r\n0\r\n\r\n").await;
    let seen = endings.recv().await.unwrap();
    assert!(!seen.contains("END") && !seen.ends_with("0\r\n\r\n"), "{seen}");
    let mut all = String::new();
    client.io.read_to_string(&mut all).await.unwrap();
    assert!(!all.contains(" 200 "), "{all}");
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_upstream() {
    let (address, mut endings) = upstream().await;
    let gateway = Gateway::before(Some(address), settings());
    let mut client = gateway.connect();
    client.send("GET /up HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::task::yield_now().await;
    drop(client);
    assert!(endings.recv().await.unwrap().starts_with("GET /up"), "the upstream never answers, so only the client can have ended it");
    gateway.open.none().await;
}
