//! Twenty reloads and five upgrades under clients of every kind, of HTTP/1.1, HTTP/2, WebSocket and gRPC, with and without TLS: none of them
//! notices.
//!
//! An error is: a connection refused or reset, an answer that is not the right one, an answer cut short, or an unannounced close. A
//! close is announced by `Connection: close` in the answer before it. The one close that needs no announcement is that of a connection
//! on which nothing was sent for as long as a stopping process lingers (1.5 s; these clients never rest that long).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use sluice::echo::{Answers, Echo};

use super::harness::*;

const TEXT: &str = r#"
server: { threads: 2, settle: 0s, drain: 10m }
listeners:
  public: { address: "127.0.0.1:{port}", deadlines: { body: 20s } }
  secure: { address: "127.0.0.1:{port:secure}", tls: { certificates: { shop: { chain: shop.pem, key: shop.key } } } }
limits:
  each: { rate: 1/h, burst: 100, by: [global] }
upstreams:
  calls: { targets: ["{calls}"], protocol: h2, timeouts: { connect: 10s, response: 20s, idle: 2m } }
  echo: { targets: ["{echo}"], health: { path: /, every: 5s }, timeouts: { connect: 10s, response: 20s, idle: 2m } }
routes:
  counted: { listeners: [public, secure], match: { path: /counted }, auth: public, limits: [each], respond: { status: 204 } }
  calls: { listeners: [public, secure], match: { path: /echo.Echo/** }, auth: public, upstream: calls }
  all: { listeners: [public, secure], match: { path: /** }, auth: public, upstream: echo }
access_log: { to: "{dir}/access.log" }
"#;

/// What the certificate is for.
const NAME: &str = "shop.example";

/// No answer may rest on a connection for longer than this, or its close is the client's own fault.
const LINGER: Duration = Duration::from_millis(1_400);

/// What the clients count.
#[derive(Default)]
struct Counts {
    is_over: AtomicBool,
    keep_alive: AtomicUsize,
    announced: AtomicUsize,
    new: AtomicUsize,
    slow: AtomicUsize,
    uploads: AtomicUsize,
    frames: AtomicUsize,
    secure: AtomicUsize,
    secure_frames: AtomicUsize,
    rested: AtomicUsize,
    errors: Mutex<Vec<String>>,
}

impl Counts {
    fn goes_on(&self) -> bool {
        !self.is_over.load(SeqCst)
    }

    fn served(&self) -> [usize; 7] {
        let Counts { keep_alive, new, slow, uploads, frames, secure, secure_frames, .. } = self;
        [keep_alive, new, slow, uploads, frames, secure, secure_frames].map(|count| count.load(SeqCst))
    }

    fn error(&self, who: &str, what: impl std::fmt::Debug) {
        self.errors.lock().unwrap().push(format!("{who}: {what:?}"));
    }
}

/// One request after the other on a connection, for as long as it is kept.
fn keep_alive(address: SocketAddr, counts: &Counts) {
    while counts.goes_on() {
        let mut client = match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => return counts.error("keep-alive connect", error),
        };
        let mut last = Instant::now();
        while counts.goes_on() {
            thread::sleep(Duration::from_millis(10));
            client.send("GET /quick HTTP/1.1\r\nHost: test\r\n\r\n");
            // From before the one request to after the other, whatever kept this thread from running in between.
            let rested = last.elapsed();
            let sent = Instant::now();
            match client.try_read() {
                Ok(response) if response.status == 200 => {
                    counts.keep_alive.fetch_add(1, SeqCst);
                    last = sent;
                    if !response.is_keep_alive() {
                        counts.announced.fetch_add(1, SeqCst);
                        break;
                    }
                }
                Ok(response) => counts.error("keep-alive", response),
                Err(_) if rested > LINGER => {
                    counts.rested.fetch_add(1, SeqCst);
                    break;
                }
                Err(error) => return counts.error("keep-alive", error),
            }
        }
    }
}

/// Requests on connections of their own; `done` counts them.
fn alone(address: SocketAddr, counts: &Counts, target: &str, done: &AtomicUsize) {
    while counts.goes_on() {
        let answer = Client::try_connect(address)
            .map_err(|error| error.to_string())
            .and_then(|mut client| client.try_request("GET", target, &[("connection", "close")], b"").map_err(|error| error.to_string()));
        match answer {
            Ok(response) if response.status == 200 => _ = done.fetch_add(1, SeqCst),
            other => counts.error(target, other),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Requests with handshakes of their own, none of them resumed.
fn alone_with_tls(address: SocketAddr, counts: &Counts, ca: &Ca) {
    while counts.goes_on() {
        match TlsClient::connect(address, NAME, ca, None).and_then(|mut client| client.get(NAME, "/quick")) {
            Ok((200, text)) if text.ends_with("ok") => _ = counts.secure.fetch_add(1, SeqCst),
            other => counts.error("with TLS", other),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// 300 KB in thirty pieces over a second and a half, again and again.
fn upload(address: SocketAddr, counts: &Counts) {
    let piece = [b'x'; 10_000];
    while counts.goes_on() {
        let mut client = match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => return counts.error("upload connect", error),
        };
        client.send("POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n");
        for _ in 0..30 {
            client.send(piece);
            thread::sleep(Duration::from_millis(50));
        }
        match client.try_read() {
            Ok(response) if response.status == 200 && response.text().contains("300000") => _ = counts.uploads.fetch_add(1, SeqCst),
            other => counts.error("upload", other),
        }
    }
}

/// A WebSocket whose process may be replaced; it lives until the test ends.
struct Tunnel<S>(S);

impl<S: Read + Write> Tunnel<S> {
    fn open(mut stream: S) -> Tunnel<S> {
        let head = "GET /socket HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        Tunnel(stream)
    }

    /// A text frame of four bytes, masked with zeros, comes back unmasked.
    fn echo(&mut self, number: u32) -> std::io::Result<bool> {
        let payload = number.to_be_bytes();
        self.0.write_all(&[&[0x82, 0x84, 0, 0, 0, 0][..], &payload].concat())?;
        let mut frame = [0; 6];
        self.0.read_exact(&mut frame)?;
        Ok(frame[..2] == [0x82, 4] && frame[2..] == payload)
    }
}

fn tunnel<S: Read + Write>(mut tunnel: Tunnel<S>, counts: &Counts, done: &AtomicUsize) {
    for number in 0.. {
        if !counts.goes_on() {
            return;
        }
        match tunnel.echo(number) {
            Ok(true) => _ = done.fetch_add(1, SeqCst),
            other => return counts.error("socket", other),
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binary {
    Good,
    Dies,
    Hangs,
}

fn order(gateway: &Gateway, what: &str) -> (bool, String) {
    let output = gateway.sluice(&[what, "sluice.yaml"]);
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn twenty_reloads_and_five_upgrades_are_noticed_by_no_client() {
    let answers = Answers::parse("/quick: { body: ok }\n/slow: { body: ok, delay: 3s }\n").unwrap();
    let echo = Echo::start("127.0.0.1:0", answers).unwrap();
    let calls = PythonServer::start("grpc_server.py", &[]);
    let ca = &Ca::new("Test");
    let leaf = ca.server(&[NAME]);
    let config = Gateway::config(TEXT).var("echo", echo.address()).var("calls", calls.address()).own_program();
    let config = config.file("shop.pem", leaf.chain).file("shop.key", leaf.key).file("ca.pem", ca.pem.clone());
    let mut gateway = config.start();
    let (address, secure, counts) = (gateway.address(), gateway.address_of("secure"), &Counts::default());
    // A call that lives in the first process to the end, and calls of HTTP/2 one after the other, which go to whichever process serves.
    // Both without TLS and with it.
    let authority = gateway.dir().join("ca.pem").display().to_string();
    let calls = ["stream", "unaries"].map(|what| {
        let plain = PythonClient::start("grpc_client.py", &[what, &address.to_string(), "{}"]);
        let with_tls = PythonClient::start("grpc_client.py", &[what, &secure.to_string(), "{}", &authority, NAME]);
        [plain, with_tls]
    });
    let [streams, unaries] = calls;
    let mut pids = vec![gateway.pid()];
    let (mut reloads, mut upgrades, begin) = (0, 0, Instant::now());
    let mut asked = 0;
    let mut check_counter = |gateway: &Gateway| {
        asked += 1;
        let left = gateway.get("/counted", &[]).header("x-ratelimit-remaining").map(str::to_owned);
        assert_eq!(left, Some((100 - asked).to_string()), "every request is counted once, whoever serves");
    };
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            // Joined before the scope ends, so that a failure below does not leave the clients running for ever.
            thread::scope(|clients| {
                for _ in 0..4 {
                    clients.spawn(|| keep_alive(address, counts));
                }
                clients.spawn(|| alone(address, counts, "/quick", &counts.new));
                clients.spawn(|| alone(address, counts, "/slow", &counts.slow));
                clients.spawn(|| alone(address, counts, "/slow", &counts.slow));
                clients.spawn(|| upload(address, counts));
                clients.spawn(|| alone_with_tls(secure, counts, ca));
                while counts.goes_on() {
                    thread::sleep(Duration::from_millis(10));
                }
            });
        });
        let changes = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for (round, binary) in [Binary::Good, Binary::Dies, Binary::Good, Binary::Hangs, Binary::Good].into_iter().enumerate() {
                let plain = TcpStream::connect(address).unwrap();
                plain.set_read_timeout(Some(PATIENCE)).unwrap();
                let socket = Tunnel::open(plain);
                scope.spawn(move || tunnel(socket, counts, &counts.frames));
                let socket = Tunnel::open(TlsClient::connect(secure, NAME, ca, None).unwrap());
                scope.spawn(move || tunnel(socket, counts, &counts.secure_frames));
                for step in 0..4 {
                    // Every other one is bad, each in its own way; the good ones change something, too.
                    let text = TEXT.replace("every: 5s", &format!("every: {}s", 5 + round + step));
                    let is_good = step % 2 == 0;
                    gateway.rewrite(&if is_good { text } else { text.replace("status: 204", "statuz: 204") });
                    let (accepted, said) = order(&gateway, "reload");
                    assert_eq!(accepted, is_good, "{said}");
                    reloads += 1;
                    check_counter(&gateway);
                }
                gateway.rewrite(TEXT);
                match binary {
                    Binary::Good => gateway.put_good_program(),
                    Binary::Dies => gateway.put_script_as_program("exit 3"),
                    Binary::Hangs => gateway.put_script_as_program("exec sleep 1000"),
                }
                let (accepted, said) = order(&gateway, "upgrade");
                assert_eq!(accepted, binary == Binary::Good, "{said}");
                if accepted {
                    pids.push(gateway.serving_pid());
                } else {
                    assert!(said.contains("ended before it was ready") || said.contains("was not ready in time"), "{said}");
                }
                upgrades += 1;
                check_counter(&gateway);
                // So that every change meets clients of every kind in the middle of what they do.
                let before = counts.served();
                eventually("clients of every kind to be served again", || {
                    let now = counts.served();
                    (now.iter().zip(before).all(|(now, before)| *now > before) || !counts.errors.lock().unwrap().is_empty()).then_some(())
                });
            }
            pids.sort_unstable();
            pids.dedup();
            assert_eq!(pids.len(), 4, "three other processes have served");
            assert!(counts.announced.load(SeqCst) > 0);
            for stream in streams {
                let told = stream.said_after_input();
                assert!(told["error"].is_null() && told["count"].as_u64() > Some(20), "{told}");
            }
            for unaries in unaries {
                let told = unaries.said_after_input();
                assert!(told["errors"].as_array().is_some_and(Vec::is_empty) && told["count"].as_u64() > Some(20), "{told}");
            }
            let mut alive = gateway.processes();
            alive.sort_unstable();
            assert_eq!(alive, pids, "a process lives as long as one of its tunnels");
        }));
        counts.is_over.store(true, SeqCst);
        let _ = running.join();
        if let Err(panic) = changes {
            eprintln!("errors so far: {:#?}", counts.errors.lock().unwrap());
            std::panic::resume_unwind(panic);
        }
    });
    // The plan is bound, each step of it by `PATIENCE`; how long it took is shown. On a machine that does nothing else it is far below a minute.
    assert_eq!((reloads, upgrades), (20, 5), "the plan was carried out");
    println!("20 reloads, 10 of them refused, and 5 upgrades, 2 of them refused, in {:.1} s", begin.elapsed().as_secs_f64());
    let show = |count: &AtomicUsize| count.load(SeqCst);
    let Counts { is_over: _, keep_alive, announced, new, slow, uploads, frames, secure, secure_frames, rested, errors } = counts;
    println!(
        "keep-alive {} (connections told to go {}, ended at rest {}), new connections {}, 3 s requests {}, uploads {}, frames {}, with TLS {} handshakes and {} frames",
        show(keep_alive),
        show(announced),
        show(rested),
        show(new),
        show(slow),
        show(uploads),
        show(frames),
        show(secure),
        show(secure_frames)
    );
    let errors = errors.lock().unwrap();
    assert!(errors.is_empty(), "{errors:#?}");
    let last = gateway.serving_pid();
    eventually("the end of those that were replaced", || {
        let _ = gateway.wait_for_first_process();
        (gateway.processes() == [last]).then_some(())
    });
}
