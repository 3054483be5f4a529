//! Twenty thousand requests and sequences of frames that are nearly sound, made from a seed: the gateway goes on answering, its memory is
//! bounded, and nothing malformed reaches the upstream.

use crate::harness::http2::{self as h2, Frame, PREFACE, block, fields};
use crate::harness::{Answer, Client, Gateway, Step, Upstream, h11};

const CONFIG: &str = r#"
server: { threads: 1 }
access_log: { to: "{dir}/access.log" }
listeners: { public: { address: "127.0.0.1:{port}", deadlines: { header: 1s, keep_alive: 1s, body: 1s, write: 1s } } }
upstreams: { up: { targets: ["{up}"], timeouts: { response: 2s, idle: 2s } } }
routes: { any: { match: { path: /** }, auth: public, upstream: up } }
"#;

/// Half of them speak HTTP/1, half HTTP/2.
const CASES: u64 = 20_000;
/// Resident memory that may be added by all of it: what a few hundred connections hold at once.
const ROOM: u64 = 96 << 20;

/// xorshift64*: the same in every run.
struct Prng(u64);

impl Prng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

const VALUES: [&str; 23] = [
    "",
    "0",
    "5",
    "-1",
    "5, 5",
    "chunked",
    "gzip",
    "close",
    "a.example",
    "b.example",
    "a@b",
    "/",
    "/a",
    "/a/../b",
    "/a%2fb",
    "//",
    "/\u{e9}",
    "*",
    "http://b/",
    "GET",
    "trailers",
    "\0",
    "websocket",
];
const NAMES: [&str; 20] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
    "upgrade",
    "cookie",
    "x-a",
    "X-A",
    ":method",
    ":path",
    ":authority",
    ":scheme",
    ":status",
    ":protocol",
    "content_length",
    "x a",
    "",
    "expect",
    "trailer",
];

/// A request of HTTP/1 with some bytes changed, removed, doubled or put in.
fn request(random: &mut Prng) -> Vec<u8> {
    let mut bytes = match random.below(4) {
        0 => b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\n\r\n".to_vec(),
        1 => b"POST /a HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        2 => b"POST /a HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_vec(),
        _ => {
            let (name, value) = (random.pick(&NAMES), random.pick(&VALUES));
            format!("GET /a HTTP/1.1\r\nHost: a.example\r\n{name}: {value}\r\n\r\n").into_bytes()
        }
    };
    for _ in 0..random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = random.next() as u8,
            1 => drop(bytes.remove(at)),
            2 => bytes.insert(at, *random.pick(&[&b'\r', &b'\n', &b' ', &b'\t', &0, &b':', &b';', &0xff])),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + random.below(20)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
        }
        if bytes.is_empty() {
            bytes.push(b'G');
        }
    }
    bytes
}

/// A preface and frames in some order, some of them broken.
fn frames(random: &mut Prng) -> Vec<u8> {
    let mut bytes = [PREFACE, &Frame::new(h2::SETTINGS, 0, 0, []).bytes()].concat();
    for _ in 0..1 + random.below(8) {
        let stream = random.below(8) as u32;
        let mut head = fields(
            random.pick(&["GET", "POST", "HEAD", "CONNECT", "OPTIONS"]),
            random.pick(&["/a", "/a?b", "/a/../b", "*", "/\u{e9}"]),
            &[],
        );
        for _ in 0..random.below(3) {
            let at = random.below(head.len() + 1);
            match random.below(3) {
                0 => {
                    let value = random.pick(&VALUES);
                    head.insert(at, (random.pick(&NAMES), random.pick(&[value, "a\r\nx-injected: 1"])));
                }
                1 if at < head.len() => drop(head.remove(at)),
                _ => head.push((random.pick(&NAMES), random.pick(&VALUES))),
            }
        }
        let noise: Vec<u8> = (0..random.below(40)).map(|_| random.next() as u8).collect();
        let flags = if random.below(3) == 0 { random.next() as u8 } else { h2::END_HEADERS | h2::END_STREAM };
        let mut frame = match random.below(10) {
            0..5 => Frame::new(h2::HEADERS, flags, stream | 1, block(&head)),
            5 => Frame::new(h2::DATA, random.below(2) as u8, stream, &noise),
            6 => Frame::new(h2::CONTINUATION, flags, stream | 1, block(&head[..1.min(head.len())])),
            7 => Frame::new(h2::RST_STREAM, 0, stream | 1, (random.below(14) as u32).to_be_bytes()),
            8 => Frame::new(h2::WINDOW_UPDATE, 0, stream, (random.next() as u32).to_be_bytes()),
            _ => Frame::new(random.below(12) as u8, random.next() as u8, stream, &noise),
        }
        .bytes();
        if random.below(4) == 0 {
            let at = random.below(frame.len());
            frame[at] = random.next() as u8;
        }
        bytes.extend(frame);
    }
    if random.below(8) == 0 {
        let at = random.below(bytes.len());
        bytes.truncate(at.max(1));
    }
    bytes
}

fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[test]
fn twenty_thousand_broken_requests_leave_it_answering_and_forward_nothing_malformed() {
    let upstream = Upstream::script(|_| [vec![Step::ReadBody], Answer::ok("x").steps()].concat());
    let gateway = Gateway::config(CONFIG).var("up", upstream.address()).start();
    let mut random = Prng(0x51_1ce);
    assert_eq!(gateway.get("/good", &[]).status, 200);
    let before = resident(gateway.pid());
    let mut most = before;
    // Clients that have sent theirs; each is closed a while later, answered or not.
    let mut open: Vec<Client> = Vec::new();
    for case in 0..CASES {
        let bytes = if case % 2 == 0 { request(&mut random) } else { frames(&mut random) };
        let mut client = Client::connect(gateway.address());
        client.send(&bytes);
        // Half of them go at once, the other half look whether an answer comes.
        if random.below(2) == 0 {
            client.finish_sending();
        }
        open.push(client);
        if open.len() >= 100 {
            open.drain(..50);
        }
        if case % 500 == 499 {
            assert_eq!(gateway.get("/good", &[]).status, 200, "after {case} cases");
            assert_eq!(h2::Http2::connect(gateway.address()).get(1, "/good").status, 200, "after {case} cases");
            most = most.max(resident(gateway.pid()));
        }
    }
    drop(open);
    assert!(most - before < ROOM, "{} KiB more than {} KiB", (most - before) >> 10, before >> 10);
    let log = std::fs::read_to_string(gateway.dir().join("access.log")).unwrap();
    let faults: Vec<&str> = log.lines().filter(|line| line.contains("internal-error")).take(5).collect();
    assert!(faults.is_empty(), "faults of the gateway's own: {faults:#?}");

    let raw = upstream.raw();
    let seen: usize = raw.iter().map(Vec::len).sum();
    assert!(seen > 100_000, "only {seen} bytes were forwarded: the cases are all broken");
    // A parser that others wrote reads it as requests of HTTP/1.1, one after the other, and nothing else. What it cannot read was cut off.
    let requests = upstream.requests();
    for (number, (parsed, error)) in h11::parse(&raw).into_iter().enumerate() {
        let ours: Vec<_> = requests.iter().filter(|request| request.connection == number).collect();
        let is_cut = ours.last().is_none_or(|request| !request.is_complete);
        assert!(error.is_none() || is_cut, "{error:?}: {:?}", String::from_utf8_lossy(&raw[number]));
        assert!(parsed.len() == ours.len() || is_cut, "{ours:?}, {parsed:?}");
        for request in parsed {
            let hosts = request.headers.iter().filter(|(name, _)| name == "host").count();
            assert!(hosts == 1 && request.version == "1.1" && request.target.starts_with('/'), "{request:?}");
            assert!(request.headers.iter().all(|(name, _)| name != "x-injected"), "{request:?}");
        }
    }
}
