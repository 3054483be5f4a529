//! Heads that come in pieces, late, or not to their end.

use std::time::Duration;

use super::tokens::Idp;
use super::{GOOD, gateway};
use crate::harness::{Client, Gateway, ReadError, Upstream, eventually};

fn start(upstream: &Upstream) -> Gateway {
    gateway(upstream, Idp::new().jwks()).start()
}

#[test]
fn a_head_that_is_late_is_answered_and_logged() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut first = Client::connect(gateway.address_of("hasty"));
    first.send("GET /good HTTP/1.1\r\nHost: a.exa");
    let mut later = Client::connect(gateway.address_of("hasty"));
    later.send(GOOD);
    assert_eq!(later.read().status, 200);
    later.send("GET /good HTTP/1.1\r\n");
    for client in [&mut first, &mut later] {
        let answer = client.read();
        assert_eq!((answer.status, answer.code().as_str()), (408, "header-timeout"));
        assert!(!answer.is_keep_alive());
        client.expect_close();
        let line = gateway.log_line_where(|line| line["request_id"] == answer.header("x-request-id").unwrap_or_default());
        let seen = (&line["status"], &line["code"], &line["method"], &line["path"], &line["listener"]);
        assert_eq!(seen, (&408.into(), &"header-timeout".into(), &"GET".into(), &"/good".into(), &"hasty".into()), "{line}");
        assert_eq!(line["bytes_out"], answer.body.len(), "{line}");
        assert!(line["total_us"].as_u64().is_some_and(|took| took > 0), "{line}");
    }
    assert_eq!(upstream.requests().len(), 1);
}

#[test]
fn a_head_that_drips_is_not_saved_by_its_drops() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut client = Client::connect(gateway.address_of("hasty"));
    client.send("GET /good HTTP/1.1\r\n");
    // Each drop comes well within the deadline; only their sum is late.
    let mut drops = 0;
    while gateway.log().is_empty() {
        client.send("x: y\r\n");
        std::thread::sleep(Duration::from_millis(50));
        drops += 1;
        assert!(drops < 400, "still open");
    }
    let answer = client.read();
    assert_eq!((answer.status, answer.code().as_str()), (408, "header-timeout"));
    assert_eq!(upstream.requests().len(), 0);
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let mut silent = Client::connect(gateway.address_of("hasty"));
    silent.expect_close();
    let mut blank = Client::connect(gateway.address_of("hasty"));
    blank.send("\r\n");
    blank.expect_close();
    assert!(gateway.log().is_empty());
}

#[test]
fn a_client_that_leaves_inside_its_head_is_counted_and_hurts_nobody() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    for half in ["G", "GET /good HTTP/1.1\r\n", "GET /good HTTP/1.1\r\nHost: a.example\r\n"] {
        Client::connect(gateway.address()).send(half).finish_sending().expect_close();
        let mut resetting = Client::connect(gateway.address());
        resetting.send(half);
        resetting.reset();
    }
    eventually("the count of cut connections", || {
        let metrics = gateway.metrics();
        metrics.lines().any(|line| line.contains("cut") && line.contains("public") && line.ends_with(" 6")).then_some(())
    });
    assert!(gateway.log().is_empty() && upstream.requests().is_empty());
    assert_eq!(gateway.client().send(GOOD).read().status, 200);
    assert!(!gateway.stderr().contains("panicked"));
}

#[test]
fn a_head_means_the_same_however_it_is_cut() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    let sound = "POST /x?y HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nt: u\r\n\r\n";
    let unsound = "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for size in [1, 2, 3, 7, 20] {
        let mut client = gateway.client();
        for piece in sound.as_bytes().chunks(size) {
            client.send(piece);
        }
        assert_eq!(client.read().status, 200);
        // How a body is cut into chunks means nothing (RFC 9112 section 7.1) and depends on which bytes came together.
        let request = upstream.last();
        assert_eq!((request.body.as_slice(), request.is_complete), (b"hello".as_slice(), true));
        let raw = String::from_utf8_lossy(&request.raw_body);
        assert!(!raw.contains("a=b") && !raw.contains("t: u") && raw.ends_with("\r\n0\r\n\r\n"), "{raw:?}");
        for piece in unsound.as_bytes().chunks(size) {
            client.send(piece);
        }
        let answer = client.read();
        assert_eq!((answer.status, answer.code().as_str()), (400, "framing-ambiguous"), "by {size}");
        client.expect_close();
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[test]
fn an_answer_to_a_client_that_sends_on_regardless_still_arrives() {
    let upstream = Upstream::start();
    let gateway = start(&upstream);
    // More than fits into the buffers of both sockets would be reset away if the gateway closed at once.
    let mut client = gateway.client();
    client.send("GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    client.send(vec![b'x'; 200 << 10]);
    match client.try_read() {
        Ok(answer) => assert_eq!((answer.status, answer.code().as_str()), (400, "host-duplicate")),
        Err(ReadError::Closed | ReadError::Cut(..) | ReadError::Silent(_) | ReadError::Malformed(_)) => panic!("the answer was lost"),
    }
}
