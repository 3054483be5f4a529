//! A session on a connection in memory: how answers are framed, what is said of the connection, what comes back.

use bytes::BytesMut;
use pingora_core::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::ctx::Scheme;
use crate::listen::Listener;
use crate::listen::caps::Open;
use crate::listen::head::{HeadBounds, Judged, mark};
use crate::listen::request::Marks;
use crate::listen::running::RunningListener;
use crate::listen::stream::Demands;
use crate::listen::{Buffers, ConnectionBounds, Deadlines, MinimumRates};

const SECOND: Duration = Duration::from_secs(1);

/// A session for a request that has come with these bytes, the client's end of its connection, and where the stream comes back.
fn session(came: &str) -> (Box<Http1<DuplexStream>>, DuplexStream, Arc<Back<DuplexStream>>) {
    let settings = Listener {
        tls: None,
        https: None,
        address: "127.0.0.1:0".parse().unwrap(),
        access: crate::listen::socket_file::Access::default(),
        proxy_protocol: None,
        connections: ConnectionBounds { max: 9, ..ConnectionBounds::default() },
        deadlines: Deadlines { handshake: SECOND, header: SECOND, keep_alive: SECOND, body: SECOND, write: SECOND, linger: SECOND },
        minimum_rates: MinimumRates::default(),
        heads: HeadBounds::default(),
        buffers: Buffers::default(),
        protocols: Default::default(),
        http2: Default::default(),
    };
    let open = Arc::new(Open::default());
    let listener = RunningListener::new("l", 0, settings.clone(), open.clone(), Arc::default());
    let permit = listener.caps.admit([127, 0, 0, 1].into(), settings.connections, &open).unwrap();
    let (near, far) = tokio::io::duplex(1 << 20);
    let conn = Arc::new(ConnInfo::new(listener, "127.0.0.1:9".parse().unwrap(), Scheme::Http));
    let mut stream = ClientStream::new(far, permit, conn.clone());
    let (mut buf, mut marks) = (BytesMut::from(came), Marks::default());
    let Judged::Complete(head) = mark(&buf, &settings.heads, &mut marks) else { panic!("{came:?} is no head") };
    let request = Request::cut(&mut buf, head, &marks).unwrap();
    stream.begin(&request.head, buf, Demands::of(&settings));
    conn.begin_request(&request.head, settings.connections);
    let back = Back::new();
    (Http1::new(stream, back.clone(), request, SECOND), near, back)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OLD: &str = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";

fn head(status: u16, fields: &[(&'static str, &str)]) -> Box<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, None).unwrap();
    for (name, value) in fields {
        head.append_header(*name, *value).unwrap();
    }
    Box::new(head)
}

fn part(text: &'static str, end: bool) -> HttpTask {
    HttpTask::Body(Some(Bytes::from_static(text.as_bytes())), end)
}

/// Writes an answer; gives what the client got without its date, whether it was complete, and whether the connection came back.
async fn answer(came: &str, tasks: Vec<HttpTask>) -> (String, bool, Option<bool>) {
    let (mut session, mut client, back) = session(came);
    let done = session.response_duplex_vec(tasks).await.unwrap_or(false);
    let _ = session.finish().await;
    drop(session);
    let back = back.take();
    let kept = back.as_ref().map(|back| matches!(back, Returned::Kept(..)));
    if let Some(Returned::Kept(mut stream, _) | Returned::Ended(mut stream)) = back {
        stream.close().await;
    }
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    let lines = got.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>();
    (lines.join("|"), done, kept)
}

#[tokio::test]
async fn an_answer_is_framed_as_its_head_says() {
    let length = |n: &str| HttpTask::Header(head(200, &[("content-length", n)]), false);
    let chunked = || HttpTask::Header(head(200, &[("transfer-encoding", "chunked")]), false);
    let plain = |status| HttpTask::Header(head(status, &[("x-a", "b")]), false);
    let ok = "HTTP/1.1 200 OK|";
    for (came, tasks, got, kept) in [
        (
            GET,
            vec![length("5"), part("hel", false), part("lo", true)],
            format!("{ok}Content-Length: 5|Connection: keep-alive||hello"),
            true,
        ),
        (GET, vec![length("5"), part("hello, world", true)], format!("{ok}Content-Length: 5|Connection: keep-alive||hello"), true),
        (GET, vec![length("0"), HttpTask::Done], format!("{ok}Content-Length: 0|Connection: keep-alive||"), true),
        (
            GET,
            vec![chunked(), part("hello, big world", false), part("", false), part("x", false), HttpTask::Trailer(None)],
            format!("{ok}Transfer-Encoding: chunked|Connection: keep-alive||10|hello, big world|1|x|0||"),
            true,
        ),
        (GET, vec![plain(200), part("to the end", true)], format!("{ok}x-a: b|Connection: close||to the end"), false),
        (OLD, vec![plain(200), part("to the end", true)], format!("{ok}x-a: b|Connection: close||to the end"), false),
        (OLD, vec![length("1"), part("x", true)], format!("{ok}Content-Length: 1|Connection: keep-alive||x"), true),
        (GET, vec![plain(204), HttpTask::Done], "HTTP/1.1 204 No Content|x-a: b|Connection: keep-alive||".to_owned(), true),
        (GET, vec![plain(304), HttpTask::Done], "HTTP/1.1 304 Not Modified|x-a: b|Connection: keep-alive||".to_owned(), true),
        (&GET.replace("GET", "HEAD"), vec![length("5"), HttpTask::Done], format!("{ok}Content-Length: 5|Connection: keep-alive||"), true),
        (
            GET,
            vec![HttpTask::Header(head(103, &[("link", "</a>")]), false), length("1"), part("x", true)],
            format!("HTTP/1.1 103 Early Hints|link: </a>||{ok}Content-Length: 1|Connection: keep-alive||x"),
            true,
        ),
        // What an upstream says of its own connection, and of the date, is not the client's.
        (
            GET,
            vec![HttpTask::Header(head(200, &[("connection", "x-a"), ("date", "never"), ("content-length", "1")]), false), part("x", true)],
            format!("{ok}Content-Length: 1|Connection: keep-alive||x"),
            true,
        ),
        // The body of the request has not been read.
        (POST, vec![length("1"), part("x", true)], format!("{ok}Content-Length: 1|Connection: close||x"), false),
        (
            &GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            vec![length("1"), part("x", true)],
            format!("{ok}Content-Length: 1|Connection: close||x"),
            false,
        ),
    ] {
        assert_eq!(answer(came, tasks).await, (got, true, Some(kept)), "{came:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_not_complete_ends_the_connection() {
    let short = vec![HttpTask::Header(head(200, &[("content-length", "5")]), false), part("hel", true)];
    assert_eq!(answer(GET, short).await, ("HTTP/1.1 200 OK|Content-Length: 5|Connection: keep-alive||hel".to_owned(), false, None));
    let broken = Error::explain(ErrorType::ReadError, "the upstream broke off");
    let failed =
        vec![HttpTask::Header(head(200, &[("transfer-encoding", "chunked")]), false), part("hel", false), HttpTask::Failed(broken)];
    let (mut session, mut client, back) = session(GET);
    assert!(session.response_duplex_vec(failed).await.is_err());
    session.shutdown(0, "").await;
    drop(session);
    assert!(back.take().is_none());
    let mut got = String::new();
    client.read_to_string(&mut got).await.unwrap();
    assert!(got.ends_with("3\r\nhel\r\n"), "what there was goes out, and no end: {got:?}");
    let (no_answer, _client, back) = self::session(GET);
    drop(no_answer);
    assert!(back.take().is_none(), "nothing was answered");
}

#[tokio::test]
async fn a_body_is_read_without_its_chunks_and_kept_for_a_second_attempt() {
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n";
    let (mut session, mut client, _) = session(chunked);
    session.enable_retry_buffering();
    assert_eq!((session.is_body_done(), session.is_body_empty(), session.get_retry_buffer()), (false, false, None));
    assert_eq!(session.read_body_bytes().await.unwrap().unwrap(), "hello");
    client.write_all(b"1\r\n!\r\n0\r\nx: y\r\n\r\nGET").await.unwrap();
    assert_eq!(session.read_body_or_idle(false).await.unwrap().unwrap(), "!");
    assert_eq!(session.read_body_bytes().await.unwrap(), None);
    assert_eq!((session.is_body_done(), session.is_body_empty(), session.body_bytes_read()), (true, false, 6));
    assert_eq!((session.get_retry_buffer(), session.retry_buffer_truncated()), (Some(Bytes::from_static(b"hello!")), false));

    let large = "x".repeat(100_000);
    let (mut session, mut client, _) = self::session(&POST.replace(": 5", ": 100000"));
    session.enable_retry_buffering();
    client.write_all(large.as_bytes()).await.unwrap();
    let mut sum = 0;
    while let Some(piece) = session.read_body_bytes().await.unwrap() {
        sum += piece.len();
    }
    assert_eq!((sum, session.get_retry_buffer(), session.retry_buffer_truncated()), (large.len(), None, true));
}

#[tokio::test]
async fn an_unread_body_is_waited_for_only_where_that_was_asked_for() {
    let (mut session, mut client, back) = session(POST);
    session.set_total_drain_timeout(Some(SECOND));
    let tasks = vec![HttpTask::Header(head(401, &[("content-length", "0")]), true)];
    assert!(session.response_duplex_vec(tasks).await.unwrap());
    drop(session);
    let Some(Returned::Kept(mut stream, Some(limit))) = back.take() else { panic!("it comes back with a body to be read") };
    client.write_all(b"hello").await.unwrap();
    assert!(stream.skip_body(limit).await && stream.is_at_rest());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_or_breaks_off_is_an_error_of_its_own() {
    let (mut session, mut client, _) = session(POST);
    assert_eq!(session.read_body_bytes().await.unwrap_err().etype(), &ErrorType::ReadTimedout);
    client.write_all(b"hel").await.unwrap();
    assert_eq!(session.read_body_bytes().await.unwrap().unwrap(), "hel");
    client.shutdown().await.unwrap();
    assert_eq!(session.read_body_bytes().await.unwrap_err().etype(), &ErrorType::ConnectionClosed);

    let (mut session, client, _) = self::session(GET);
    drop(client);
    for _ in 0..2 {
        assert_eq!(session.read_body_or_idle(true).await.unwrap_err().etype(), &ErrorType::ConnectionClosed);
    }
}

#[tokio::test]
async fn both_sides_switch_protocols_or_none() {
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let agreed = || HttpTask::Header(head(101, &[("upgrade", "websocket"), ("connection", "upgrade")]), false);
    let data = || HttpTask::UpgradedBody(Some(Bytes::from_static(b"frame")), false);
    let (mut session, mut client, back) = session(upgrade);
    assert!(session.is_upgrade_req() && session.is_body_done() && !session.was_upgraded());
    assert!(!session.response_duplex_vec(vec![agreed(), data()]).await.unwrap());
    assert!(session.was_upgraded() && !session.is_body_done());
    let mut got = vec![0; 76];
    client.read_exact(&mut got).await.unwrap();
    assert_eq!(
        String::from_utf8(got).unwrap(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nConnection: upgrade\r\n\r\n"[..76].to_owned()
    );
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(session.read_body_bytes().await.unwrap().unwrap(), "GET / HTTP/1.1\r\n\r\n");
    client.shutdown().await.unwrap();
    assert_eq!((session.read_body_bytes().await.unwrap(), session.is_body_done()), (None, true));
    session.finish().await.unwrap();
    drop(session);
    assert!(matches!(back.take(), Some(Returned::Ended(_))), "nothing follows on a tunnel");

    let (mut session, _client, _) = self::session(GET);
    assert!(session.response_duplex_vec(vec![data()]).await.is_err());
}

#[tokio::test]
async fn hooks_find_the_connection_through_the_session() {
    let (session, _client, _) = session(GET);
    let conn = session.conn.clone();
    let session = ServerSession::new_custom(session);
    assert!(Arc::ptr_eq(ConnInfo::of(&session).unwrap(), &conn));
    assert_eq!(session.client_addr().and_then(|peer| peer.as_inet()), Some(&conn.peer));
}

#[tokio::test]
async fn lines_beside_a_head_are_written_once_and_with_a_final_one() {
    let (mut session, mut client, _) = session(GET);
    let tell = |text: &'static [u8]| {
        session.conn.tell_beside(|lines| {
            lines.write(text.len(), |room| {
                room[..text.len()].copy_from_slice(text);
                text.len()
            });
        });
    };
    tell(b"x-not-told-any-more: 1\r\n");
    session.conn.tell_beside(|_| {});
    assert!(session.conn.take_beside().text().is_empty(), "taken back");
    tell(b"x-gone: 1, and some more\r\n");
    tell(b"x-told: 1\r\n");
    let last = head(200, &[("content-length", "0")]);
    session.response_duplex_vec(vec![HttpTask::Header(head(103, &[]), false), HttpTask::Header(last, true)]).await.unwrap();
    assert!(session.conn.take_beside().text().is_empty());
    let mut got = vec![0; 4096];
    let count = client.read(&mut got).await.unwrap();
    let got = String::from_utf8_lossy(&got[..count]);
    assert!(got.starts_with("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\nx-told: 1\r\nDate: "), "{got}");
}
