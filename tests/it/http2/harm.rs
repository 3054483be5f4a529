//! Clients that mean harm over HTTP/2: each bound on a connection of its own, and what is logged and counted of it.

use std::time::Duration;

use crate::harness::http2::{self as h2, Frame, Http2, block, fields, get_fields};
use crate::harness::{Answer, Gate, Gateway, Step, Upstream, eventually};

const CONFIG: &str = r#"
server: { threads: 1 }
listeners:
  public: { address: "127.0.0.1:{port}", deadlines: { header: 1s, keep_alive: 2s, body: 1s, write: 1s }, heads: { bytes: 4KiB, fields: 20 }, http2: { streams: 10, resets: 20/m, frames: 100/m } }
  patient: { address: "127.0.0.1:{port:patient}" }
upstreams: { up: { targets: ["{up}"] } }
defaults: { upstream: up }
routes:
  any: { listeners: [public, patient], match: { path: /a/** }, auth: public }
"#;

fn start(upstream: &Upstream) -> Gateway {
    Gateway::config(CONFIG).var("up", upstream.address()).start()
}

/// The connection has ended with this reason, and the log and the counters say why. A good client is served all the same.
#[track_caller]
fn ended(gateway: &Gateway, client: &mut Http2, reason: u32, code: &str) {
    client.until_closed();
    assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(reason), "{:?}", client.goaways);
    counted(gateway, code, 1);
    assert_eq!(Http2::connect(gateway.address()).get(1, "/a/good").status, 200);
}

/// So many lines of the log that are of no request have this code and name HTTP/2, and they are counted.
#[track_caller]
fn counted(gateway: &Gateway, code: &str, count: usize) {
    let is_it = |line: &serde_json::Value| line["code"] == code && line["protocol"] == "HTTP/2.0" && line["upstream"].is_null();
    eventually(code, || (gateway.log().iter().filter(|line| is_it(line)).count() == count).then_some(()));
    let series = format!("code=\"{code}\"}} ");
    eventually("the figure", || {
        let metrics = gateway.metrics_now();
        let counted =
            metrics.lines().filter(|line| line.starts_with("sluice_refusals_total{")).find_map(|line| line.split_once(&series))?;
        (counted.1.parse::<usize>().unwrap() >= count).then_some(())
    });
}

#[test]
fn rapid_resets_end_the_connection() {
    // CVE-2023-44487: streams that are opened and reset at once do not count as open.
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    for n in 0..100 {
        client.ask(1 + 2 * n, &get_fields("/a/b", &[])).reset(1 + 2 * n, h2::CANCEL);
    }
    ended(&gateway, &mut client, h2::ENHANCE_YOUR_CALM, "resets-too-many");
    // Each request that had begun has its line.
    let begun = gateway.log().iter().filter(|line| line["path"] == "/a/b").count();
    assert!(begun <= 40, "{begun} requests were begun");
}

#[test]
fn resets_that_a_client_provokes_end_the_connection() {
    // CVE-2025-8671: a window that is too large, a length that is not kept.
    let upstream = Upstream::script(|_| vec![Step::Hang]);
    type Provoke = fn(&mut Http2, u32);
    let window: Provoke = |client, stream| {
        client.ask(stream, &get_fields("/a/b", &[])).window(stream, 0x7fff_ffff);
    };
    let length: Provoke = |client, stream| {
        client.begin(stream, &fields("POST", "/a/b", &[("content-length", "1")])).send(h2::DATA, h2::END_STREAM, stream, "two");
    };
    let malformed: Provoke = |client, stream| {
        client.ask(stream, &get_fields("/a/b", &[("connection", "close")]));
    };
    for (name, provoke) in [("window", window), ("length", length), ("malformed", malformed)] {
        let gateway = start(&upstream);
        let mut client = Http2::connect(gateway.address());
        for n in 0..60 {
            provoke(&mut client, 1 + 2 * n);
        }
        client.until_closed();
        assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::ENHANCE_YOUR_CALM), "{name}: {:?}", client.goaways);
        counted(&gateway, "resets-too-many", 1);
    }
}

#[test]
fn frames_that_ask_for_nothing_end_the_connection() {
    let upstream = Upstream::start();
    let continuation = || Frame::new(h2::CONTINUATION, 0, 1, []).bytes();
    let begun = [Frame::new(h2::HEADERS, 0, 1, block(&fields("POST", "/a/b", &[]))).bytes(), continuation()].concat();
    let open = Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block(&fields("POST", "/a/b", &[]))).bytes();
    for (name, first, flood) in [
        ("PING", vec![], Frame::new(h2::PING, 0, 0, [0; 8]).bytes()),
        ("PING answers", vec![], Frame::new(h2::PING, h2::ACK, 0, [0; 8]).bytes()),
        ("SETTINGS", vec![], Frame::new(h2::SETTINGS, 0, 0, []).bytes()),
        ("PRIORITY", vec![], Frame::new(h2::PRIORITY, 0, 3, [0, 0, 0, 0, 1]).bytes()),
        ("WINDOW_UPDATE", vec![], Frame::new(h2::WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]).bytes()),
        ("unknown", vec![], Frame::new(0x42, 0, 0, [0; 8]).bytes()),
        ("CONTINUATION", begun, continuation()),
        ("empty DATA", open, Frame::new(h2::DATA, 0, 1, []).bytes()),
    ] {
        let gateway = start(&upstream);
        let mut client = Http2::connect(gateway.address());
        client.send_bytes(first).send_bytes(flood.repeat(300));
        client.until_closed();
        assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::ENHANCE_YOUR_CALM), "{name}: {:?}", client.goaways);
        counted(&gateway, "frames-too-many", 1);
    }
}

#[test]
fn a_download_earns_the_frames_that_open_its_windows() {
    let upstream = Upstream::answering(Answer::ok(vec![b'x'; 3_000_000]));
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    // The client of the harness opens two windows for each frame of DATA: some hundreds.
    assert_eq!(client.get(1, "/a/b").body.len(), 3_000_000);
    assert_eq!(client.get(3, "/a/b").body.len(), 3_000_000);
    assert!(client.goaways.is_empty());
}

#[test]
fn a_header_block_that_does_not_end_is_bounded_in_size_and_time() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    // The CONTINUATION flood: never END_HEADERS.
    let mut client = Http2::connect(gateway.address());
    client.send(h2::HEADERS, 0, 1, block(&get_fields("/a/b", &[])));
    let piece = block(&[("x-padding", "p".repeat(1000).as_str())]);
    for _ in 0..200 {
        client.send(h2::CONTINUATION, 0, 1, &piece);
    }
    client.until_closed();
    assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::ENHANCE_YOUR_CALM), "{:?}", client.goaways);

    // Each of these stops in the middle of something.
    let whole = Frame::new(h2::HEADERS, h2::END_HEADERS, 1, block(&get_fields("/a/b", &[]))).bytes();
    for (name, sent) in [
        ("a block", Frame::new(h2::HEADERS, 0, 1, block(&get_fields("/a/b", &[]))).bytes()),
        ("a frame", whole[..20].to_vec()),
        ("the header of a frame", whole[..4].to_vec()),
    ] {
        let gateway = start(&upstream);
        let mut client = Http2::connect(gateway.address());
        client.settle().send_bytes(sent);
        client.until_closed();
        assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::ENHANCE_YOUR_CALM), "{name}: {:?}", client.goaways);
        counted(&gateway, "header-timeout", 1);
    }
}

#[test]
fn a_preface_without_settings_and_half_a_preface_are_not_waited_for() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Http2::raw(gateway.address());
    client.send_bytes(h2::PREFACE).until_closed();
    assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::ENHANCE_YOUR_CALM));
    counted(&gateway, "header-timeout", 1);
    let mut half = crate::harness::Client::connect(gateway.address());
    half.send(&h2::PREFACE[..20]);
    let answer = half.read();
    assert_eq!((answer.status, answer.code().as_str()), (408, "header-timeout"));
}

#[test]
fn an_idle_connection_is_told_goodbye() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    assert_eq!(client.get(1, "/a/b").status, 200);
    client.until_closed();
    assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(h2::NO_ERROR));
    assert_eq!(gateway.log().len(), 1, "an idle connection is no refusal");
}

#[test]
fn heads_are_as_large_as_allowed_and_have_as_many_fields() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    let (large, long) = ("v".repeat(2500), "v".repeat(5000));
    client.ask(1, &get_fields("/a/b", &[("x-large", &large), ("x-larger", &large)]));
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.code().as_str()), (431, "head-too-large"));
    client.ask(9, &get_fields("/a/b", &[("x-long", &long)]));
    let answer = client.answer(9);
    assert_eq!((answer.status, answer.code().as_str()), (431, "field-too-long"));
    let names: Vec<String> = (0..21).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    client.ask(11, &get_fields("/a/b", &many));
    let answer = client.answer(11);
    assert_eq!((answer.status, answer.code().as_str()), (431, "fields-too-many"));
    // Larger than what is read at all: the frame layer's bare answer, and a line in the log all the same.
    let huge = "v".repeat(10_000);
    let (head, rest) = (block(&get_fields("/a/b", &[("x-huge", &huge)])), block(&[("x-huge", &huge), ("x-more", &huge)]));
    client.send(h2::HEADERS, h2::END_STREAM, 13, head).send(h2::CONTINUATION, 0, 13, &rest[..15_000]);
    client.send(h2::CONTINUATION, h2::END_HEADERS, 13, &rest[15_000..]);
    assert_eq!(client.answer(13).status, 431);
    assert_eq!(client.get(15, "/a/b").status, 200);
    counted(&gateway, "head-too-large", 2);
    counted(&gateway, "fields-too-many", 1);
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn streams_above_the_bound_are_refused_and_logged() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::script(move |_| [vec![Step::WaitFor(held.clone())], Answer::ok("x").steps()].concat());
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    for n in 0..12 {
        client.ask(1 + 2 * n, &get_fields("/a/b", &[]));
    }
    assert_eq!((client.answer(21).reset, client.answer(23).reset), (Some(h2::REFUSED_STREAM), Some(h2::REFUSED_STREAM)));
    counted(&gateway, "streams-too-many", 2);
    gate.open();
    for n in 0..10 {
        assert_eq!(client.answer(1 + 2 * n).status, 200);
    }
}

#[test]
fn a_body_that_stops_coming_and_an_answer_that_is_not_read_are_given_up() {
    let large = vec![b'x'; 1_000_000];
    let upstream = Upstream::script(move |request| match request.target.as_str() {
        "/a/large" => Answer::ok(large.clone()).steps(),
        _ => vec![Step::ReadBody, Step::Hang],
    });
    let gateway = start(&upstream);
    let mut client = Http2::connect(gateway.address());
    client.begin(1, &fields("POST", "/a/slow", &[("content-length", "10")])).send(h2::DATA, 0, 1, "half");
    let answer = client.answer(1);
    assert_eq!((answer.status, answer.code().as_str()), (408, "body-timeout"));

    // No window at all, then windows of a byte: progress, but none that counts.
    let mut client = Http2::connect(gateway.address());
    client.is_stingy = true;
    client.ask(1, &get_fields("/a/large", &[]));
    let mut given_up = false;
    for _ in 0..60 {
        client.window(0, 1).window(1, 1).settle();
        if client.peek(1).is_some_and(|answer| answer.reset.is_some()) {
            given_up = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(given_up, "{:?}", client.peek(1).map(|answer| answer.body.len()));
    let line = gateway.log_line_where(|line| line["path"] == "/a/large");
    assert_eq!((&line["status"], &line["code"]), (&200.into(), &"reader-too-slow".into()));
}

#[test]
fn broken_frames_end_the_connection_with_their_reason() {
    let upstream = Upstream::start();
    let bad_block = Frame::new(h2::HEADERS, h2::END_HEADERS | h2::END_STREAM, 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).bytes();
    for (name, bytes, reason) in [
        ("a stream of the server's", Frame::new(h2::HEADERS, 5, 2, block(&get_fields("/a/b", &[]))).bytes(), 1),
        ("DATA for no stream", Frame::new(h2::DATA, 0, 0, "x").bytes(), 1),
        ("DATA for a stream that is idle", Frame::new(h2::DATA, 0, 9, "x").bytes(), 1),
        ("a frame that is too large", vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], 6),
        ("SETTINGS of a wrong length", Frame::new(h2::SETTINGS, 0, 0, [0; 5]).bytes(), 1),
        ("a push", Frame::new(h2::PUSH_PROMISE, 4, 1, [0, 0, 0, 2]).bytes(), 1),
        ("a window that is too large", Frame::new(h2::WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]).bytes(), 3),
        ("a header block that is broken", bad_block, 1),
        ("CONTINUATION of nothing", Frame::new(h2::CONTINUATION, 4, 1, []).bytes(), 1),
        ("a PING of a wrong length", Frame::new(h2::PING, 0, 0, [0; 7]).bytes(), 1),
    ] {
        let gateway = start(&upstream);
        let mut client = Http2::connect(gateway.address());
        client.settle().send_bytes(bytes).until_closed();
        assert_eq!(client.goaways.last().map(|(reason, _)| *reason), Some(reason), "{name}: {:?}", client.goaways);
        counted(&gateway, "http2-invalid", 1);
    }
}
