//! Heads that are refused, each with the section that says so, and heads that are not.

use super::*;

const BOUNDS: HeadBounds = HeadBounds { bytes: 64 << 10, fields: 100, line: 64 << 10 };

fn complete(text: &str) -> Head {
    match judge(text.as_bytes(), &BOUNDS) {
        Judged::Complete(head) => head,
        other => panic!("{text:?}: {other:?}"),
    }
}

/// A head with one more field than it needs.
fn with(field: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n")
}

/// (RFC section, head, kind). RFC 9112 unless another is named.
fn bad() -> Vec<(&'static str, String, &'static Kind)> {
    let line = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let ws =
        |method: &str, version: &str, fields: &str| format!("{method} / HTTP/{version}\r\nHost: a\r\nUpgrade: websocket\r\n{fields}\r\n");
    let cl = |value: &str| with(&format!("Content-Length: {value}"));
    let te = |value: &str| with(&format!("Transfer-Encoding: {value}"));
    let conn = |value: &str| with(&format!("Connection: {value}"));
    vec![
        // the request line
        ("2.2 two empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), &REQUEST_LINE_INVALID),
        ("2.2 bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n".into(), &LINE_ENDING_INVALID),
        ("3 no method", line(" / HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3 two spaces before the target", line("GET  / HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3 two spaces before the version", line("GET /  HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3 a space behind the version", line("GET / HTTP/1.1 "), &REQUEST_LINE_INVALID),
        ("3 tab as separator", line("GET\t/ HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3 tab before the version", line("GET /\tHTTP/1.1"), &VERSION_UNSUPPORTED),
        ("3 a space in the target", line("GET /a b HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.1 method with a bracket", line("GE(T / HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.1 method with NUL", line("GE\0T / HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.1 method beyond ASCII", line("GÉT / HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3 a long method", line(&format!("{} / HTTP/1.1", "A".repeat(33))), &METHOD_UNSUPPORTED),
        ("9110 9.3.8 TRACE", line("TRACE / HTTP/1.1"), &METHOD_UNSUPPORTED),
        ("3.2.3 CONNECT", line("CONNECT a:443 HTTP/1.1"), &TARGET_REFUSED),
        ("2.3 HTTP/0.9", "GET /\r\n".into(), &VERSION_UNSUPPORTED),
        ("2.3 HTTP/0.9 with the word", line("GET / HTTP/0.9"), &VERSION_UNSUPPORTED),
        ("2.3 HTTP/1.2", line("GET / HTTP/1.2"), &VERSION_UNSUPPORTED),
        ("2.3 HTTP/2", line("GET / HTTP/2"), &VERSION_UNSUPPORTED),
        ("2.3 the HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), &VERSION_UNSUPPORTED),
        ("2.3 lower case", line("GET / http/1.1"), &REQUEST_LINE_INVALID),
        ("2.3 two digits", line("GET / HTTP/1.10"), &REQUEST_LINE_INVALID),
        ("2.3 another protocol", line("GET / ICAP/1.0"), &REQUEST_LINE_INVALID),
        ("3.2 an empty target", line("GET  HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 a fragment", line("GET /a#b HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 a quotation mark", line("GET /?a=\"b\" HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 angle brackets", line("GET /<a> HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 a grave accent", line("GET /` HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 a control character", line("GET /\x01 HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 DEL", line("GET /\x7f HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 beyond ASCII", line("GET /ä HTTP/1.1"), &REQUEST_LINE_INVALID),
        ("3.2 no slash", line("GET a HTTP/1.1"), &TARGET_REFUSED),
        ("3.2 a query alone", line("GET ?a HTTP/1.1"), &TARGET_REFUSED),
        ("3.2.4 * with GET", line("GET * HTTP/1.1"), &TARGET_REFUSED),
        ("3.2.2 another scheme", line("GET ftp://a/ HTTP/1.1"), &TARGET_REFUSED),
        ("3.2.2 one slash", line("GET http:/a/ HTTP/1.1"), &TARGET_REFUSED),
        ("3.2.2 no host", line("GET http:/// HTTP/1.1"), &HOST_INVALID),
        ("3.2.2 a backslash", line("GET http://a\\b/ HTTP/1.1"), &HOST_INVALID),
        ("3.2.2 two ports", line("GET http://a:1:2/ HTTP/1.1"), &HOST_INVALID),
        ("9110 4.2.4 user information", line("GET http://u@a/ HTTP/1.1"), &HOST_INVALID),
        ("9110 4.2.4 user information in Host", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), &HOST_INVALID),
        ("3.2.2 another host", line("GET http://b/ HTTP/1.1"), &HOST_MISMATCH),
        ("3.2.2 another port", line("GET http://a:80/ HTTP/1.1"), &HOST_MISMATCH),
        // line endings
        ("2.2 bare LF behind the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n".into(), &LINE_ENDING_INVALID),
        ("2.2 bare LF behind a field", "GET / HTTP/1.1\r\nHost: a\n\r\n".into(), &LINE_ENDING_INVALID),
        ("2.2 bare LF as the end", "GET / HTTP/1.1\r\nHost: a\r\n\n".into(), &LINE_ENDING_INVALID),
        ("2.2 bare CR in the target", line("GET /a\rb HTTP/1.1"), &LINE_ENDING_INVALID),
        ("2.2 bare CR in a value", with("a: b\rc"), &LINE_ENDING_INVALID),
        ("2.2 CR CR LF behind a value", with("a: b\r"), &LINE_ENDING_INVALID),
        ("2.2 bare CR in a name", with("a\rb: c"), &LINE_ENDING_INVALID),
        ("2.2 CR CR LF as the end", "GET / HTTP/1.1\r\nHost: a\r\n\r\r\n".into(), &LINE_ENDING_INVALID),
        // fields
        ("2.2 white space before the first field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n".into(), &FIELD_FOLDED),
        ("5.2 a folded value", with("a: b\r\n c"), &FIELD_FOLDED),
        ("5.2 folded with a tab", with("a: b\r\n\tc"), &FIELD_FOLDED),
        ("5.2 a line of white space", with("a: b\r\n "), &FIELD_FOLDED),
        ("5.1 a space before the colon", with("a : b"), &FIELD_NAME_INVALID),
        ("5.1 a tab before the colon", with("a\t: b"), &FIELD_NAME_INVALID),
        ("5.1 no colon", with("abc"), &FIELD_NAME_INVALID),
        ("5.1 no name", with(": b"), &FIELD_NAME_INVALID),
        ("5.1 a name beyond ASCII", with("ä: b"), &FIELD_NAME_INVALID),
        ("5.1 NUL in a name", with("a\0: b"), &FIELD_NAME_INVALID),
        ("5.1 a bracket in a name", with("a[0]: b"), &FIELD_NAME_INVALID),
        ("9110 5.5 NUL in a value", with("a: b\0c"), &FIELD_VALUE_INVALID),
        ("9110 5.5 ESC in a value", with("a: \x1b[2J"), &FIELD_VALUE_INVALID),
        ("9110 5.5 DEL in a value", with("a: \x7f"), &FIELD_VALUE_INVALID),
        // framing
        ("6.3 Content-Length twice", with("Content-Length: 5\r\nContent-Length: 5"), &CONTENT_LENGTH_INVALID),
        ("6.3 Content-Length twice, different", with("Content-Length: 5\r\ncontent-length: 6"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 a list", cl("5, 5"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 plus", cl("+5"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 minus", cl("-1"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 hexadecimal", cl("0x5"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 a fraction", cl("5.0"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 empty", cl(""), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 a space inside", cl("5 0"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 other digits", cl("٥"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 beyond an i64", cl("9223372036854775808"), &CONTENT_LENGTH_INVALID),
        ("9110 8.6 beyond a u64", cl("18446744073709551621"), &CONTENT_LENGTH_INVALID),
        ("6.1 both", with("Content-Length: 5\r\nTransfer-Encoding: chunked"), &FRAMING_AMBIGUOUS),
        ("6.1 both, the other way round", with("Transfer-Encoding: chunked\r\nContent-Length: 0"), &FRAMING_AMBIGUOUS),
        ("6.1 an alias of Transfer-Encoding", with("Transfer_Encoding: chunked"), &FRAMING_AMBIGUOUS),
        ("6.1 an alias of Content-Length", with("content_length: 5"), &FRAMING_AMBIGUOUS),
        ("6.1 gzip", te("gzip"), &TRANSFER_ENCODING_INVALID),
        ("6.1 gzip, chunked", te("gzip, chunked"), &TRANSFER_ENCODING_INVALID),
        ("6.1 chunked twice", te("chunked, chunked"), &TRANSFER_ENCODING_INVALID),
        ("6.1 chunked in two fields", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), &TRANSFER_ENCODING_INVALID),
        ("6.1 identity", te("identity"), &TRANSFER_ENCODING_INVALID),
        ("6.1 xchunked", te("xchunked"), &TRANSFER_ENCODING_INVALID),
        ("6.1 a parameter", te("chunked;q=1"), &TRANSFER_ENCODING_INVALID),
        ("6.1 quoted", te("\"chunked\""), &TRANSFER_ENCODING_INVALID),
        ("6.1 empty", te(""), &TRANSFER_ENCODING_INVALID),
        ("6.1 an empty element", te("chunked,"), &TRANSFER_ENCODING_INVALID),
        ("6.1 vertical tab", te("\x0bchunked"), &FIELD_VALUE_INVALID),
        ("6.1 HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), &TRANSFER_ENCODING_INVALID),
        // Host
        ("3.2 no Host", "GET / HTTP/1.1\r\n\r\n".into(), &HOST_MISSING),
        ("3.2 no Host, whole URL", "GET http://a/ HTTP/1.1\r\n\r\n".into(), &HOST_MISSING),
        ("3.2 two Hosts", with("Host: b"), &HOST_DUPLICATE),
        ("3.2 the same Host twice", with("HOST: a"), &HOST_DUPLICATE),
        ("3.2 two Hosts, HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(), &HOST_DUPLICATE),
        // Connection and Upgrade
        ("9110 7.6.1 Host", conn("close, Host"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 X-Forwarded-For", conn("X-Forwarded-For"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 Authorization", conn("keep-alive, Authorization"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 an identity header", conn("x-user-id"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 Content-Length", conn("content-length"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 not a token", conn("\"close\""), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 a pseudo-header", conn(":authority"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 nine options", conn("te, te, te, te, te, te, te, te, te"), &CONNECTION_HEADER_INVALID),
        ("9110 7.6.1 nine options in nine fields", with(&["Connection: te"; 9].join("\r\n")), &CONNECTION_HEADER_INVALID),
        ("6455 4.1 without Connection: upgrade", ws("GET", "1.1", ""), &UPGRADE_INVALID),
        ("6455 4.1 by POST", ws("POST", "1.1", "Connection: upgrade\r\n"), &UPGRADE_INVALID),
        ("6455 4.1 with a body", ws("GET", "1.1", "Connection: upgrade\r\nContent-Length: 5\r\n"), &UPGRADE_INVALID),
        ("9110 7.8 HTTP/1.0", ws("GET", "1.0", "Connection: upgrade\r\n"), &UPGRADE_INVALID),
        ("9110 7.8 two Upgrades", ws("GET", "1.1", "Connection: upgrade\r\nUpgrade: h2c\r\n"), &UPGRADE_INVALID),
    ]
}

#[test]
fn what_has_two_readings_is_refused_with_its_code() {
    for (section, head, kind) in bad() {
        assert_eq!(judge(head.as_bytes(), &BOUNDS), Judged::Bad(kind), "RFC {section}: {head:?}");
    }
}

#[test]
fn every_kind_is_refused_by_some_test() {
    let bounds: [&Kind; 4] = [&TARGET_TOO_LONG, &HEAD_TOO_LARGE, &FIELDS_TOO_MANY, &FIELD_TOO_LONG];
    for kind in KINDS {
        assert!(bad().iter().any(|(_, _, bad)| *bad == kind) || bounds.contains(&kind), "{}", kind.code);
    }
}

#[test]
fn a_refusal_does_not_depend_on_what_follows() {
    for (section, head, kind) in bad() {
        let more = format!("{head}GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(judge(more.as_bytes(), &BOUNDS), Judged::Bad(kind), "RFC {section}: {head:?}");
    }
}

#[test]
fn a_sound_head_ends_at_its_empty_line() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
        "GET http://a:80/b?c HTTP/1.1\r\nhost: a:80\r\n\r\n",
        "GET HTTPS://[::1]:8443 HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n",
        "M-SEARCH /a%20b;c=[d]{e}|f^g\\?h=i&j=%22 HTTP/1.1\r\nHost: a\r\nx:\t y \t\r\nobs: \u{e4}\r\nempty:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  12 \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\t\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    ] {
        let followed = format!("{head}and more");
        assert_eq!((complete(head).len, complete(&followed).len), (head.len(), head.len()), "{head:?}");
        assert_eq!(complete(&format!("\r\n{head}")), Head { leading: 2, ..complete(head) }, "{head:?} after an empty line");
        for cut in 0..head.len() {
            assert_eq!(judge(&head.as_bytes()[..cut], &BOUNDS), Judged::Incomplete, "{:?}", &head[..cut]);
        }
    }
}

#[test]
fn what_follows_a_head_is_told_by_its_fields() {
    assert_eq!(complete(&with("a: b")).body, Body::None);
    assert_eq!(complete(&with("Content-Length: 0")).body, Body::None);
    assert_eq!(complete(&with("Content-Length: 0005")).body, Body::Length(5));
    assert_eq!(complete(&with("Content-Length: 9223372036854775807")).body, Body::Length(i64::MAX as u64));
    assert_eq!(complete(&with("TRANSFER-ENCODING: chunked")).body, Body::Chunked);
    assert!(complete(&with("Expect: 100-Continue")).expect_continue);
    assert!(!complete(&with("Expect: something")).expect_continue);
    assert!(complete(&with("Connection: keep-alive\r\nConnection: te,, Close")).close);
    assert!(!complete(&with("Connection: keep-alive")).close);
    let handshake = complete("GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n");
    assert!(handshake.upgrade && handshake.body == Body::None);
}

#[test]
fn the_bounds_are_exact() {
    let exact = |bytes, fields| HeadBounds { bytes, fields, line: bytes };
    let head = with("a: b");
    assert!(matches!(judge(head.as_bytes(), &exact(head.len(), 2)), Judged::Complete(_)));
    assert_eq!(judge(head.as_bytes(), &exact(head.len() - 1, 2)), Judged::Bad(&HEAD_TOO_LARGE));
    assert_eq!(judge(head.as_bytes(), &exact(head.len(), 1)), Judged::Bad(&FIELDS_TOO_MANY));
    assert_eq!(judge(&head.as_bytes()[..30], &exact(30, 2)), Judged::Incomplete, "as long as it may be, and nothing wrong yet");
    let line = b"GET /0123456789";
    assert_eq!(judge(line, &exact(15, 2)), Judged::Incomplete);
    assert_eq!(judge(line, &exact(14, 2)), Judged::Bad(&TARGET_TOO_LONG));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(65_000));
    assert_eq!(judge(long.as_bytes(), &exact(256 << 10, 100)), Judged::Bad(&TARGET_TOO_LONG));
    assert_eq!(judge(&long.as_bytes()[..65_001], &exact(256 << 10, 100)), Judged::Bad(&TARGET_TOO_LONG));
    let longest = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(64_986));
    assert_eq!(longest.find('\r'), Some(65_000));
    assert!(matches!(judge(longest.as_bytes(), &exact(256 << 10, 100)), Judged::Complete(_)));
    // Was refused where a packet ended between its CR and LF.
    assert_eq!(judge(&longest.as_bytes()[..65_001], &exact(256 << 10, 100)), Judged::Incomplete);
    let body = format!("{}{}", with("Content-Length: 100000"), "x".repeat(100_000));
    assert!(matches!(judge(body.as_bytes(), &exact(1024, 100)), Judged::Complete(_)), "a body does not count");
}

#[test]
fn what_cannot_become_a_request_is_refused_before_its_first_line_ends() {
    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], b"\0", b"{\"a\":1}", b"GET\t", b"\r\r", b"\r\n\r"] {
        assert_eq!(judge(garbage, &BOUNDS), Judged::Bad(&REQUEST_LINE_INVALID), "{garbage:?}");
    }
    assert_eq!(judge(&[b'A'; 33], &BOUNDS), Judged::Bad(&METHOD_UNSUPPORTED));
    for beginning in ["", "\r", "\r\n", "G", "GET", "GET ", "GET /a HT"] {
        assert_eq!(judge(beginning.as_bytes(), &BOUNDS), Judged::Incomplete, "{beginning:?}");
    }
}

/// A small generator, so that every run sees the same heads.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }

    /// Pieces of heads, put together and then damaged a little.
    fn head(&mut self) -> Vec<u8> {
        const PIECES: [&str; 24] = [
            "GET ",
            "POST / HTTP/1.1\r\n",
            "/ HTTP/1.1\r\n",
            "/ HTTP/1.0\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n",
            "http://a/ HTTP/1.1\r\n",
            "Host: a\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: close\r\n",
            "Upgrade: websocket\r\n",
            "x: y\r\n",
            "a:b\r\n",
            "\r\n",
            "\r\n\r\n",
            "\r",
            "\n",
            " ",
            "\t",
            ":",
            "\0",
            "\u{e4}",
            "Host: b\r\n",
            "OPTIONS * HTTP/1.1\r\n",
        ];
        let mut head = Vec::new();
        if self.below(3) > 0 {
            head.extend_from_slice(b"GET / HTTP/1.1\r\nHost: a\r\n");
        }
        for _ in 0..self.below(8) {
            head.extend_from_slice(PIECES[self.below(PIECES.len())].as_bytes());
        }
        head.extend_from_slice(b"\r\n");
        for _ in 0..self.below(3) {
            let (at, byte) = (self.below(head.len()), self.below(256) as u8);
            head[at] = byte;
        }
        head
    }
}

#[test]
fn a_verdict_stands_whatever_arrives_later() {
    let mut random = Random(0x5eed);
    let mut sound = 0;
    for _ in 0..20_000 {
        let head = random.head();
        let mut verdict = Judged::Incomplete;
        for cut in 0..=head.len() {
            let now = judge(&head[..cut], &BOUNDS);
            match verdict {
                Judged::Incomplete => verdict = now,
                Judged::Complete(_) => assert_eq!(now, verdict, "{:?}", String::from_utf8_lossy(&head)),
                Judged::Bad(_) => assert!(matches!(now, Judged::Bad(_)), "{:?}", String::from_utf8_lossy(&head)),
            }
        }
        sound += usize::from(matches!(verdict, Judged::Complete(_)));
    }
    assert!(sound > 1000, "the generator must make sound heads too: {sound}");
}

#[test]
fn what_is_sound_is_read_by_the_next_parser_with_the_same_end() {
    let mut random = Random(0xcafe);
    let mut sound = 0;
    for _ in 0..50_000 {
        let bytes = random.head();
        let Judged::Complete(head) = judge(&bytes, &BOUNDS) else { continue };
        sound += 1;
        let mut fields = [httparse::EMPTY_HEADER; 200];
        let mut request = httparse::Request::new(&mut fields);
        let read = request.parse(&bytes[head.leading..]);
        assert_eq!(read, Ok(httparse::Status::Complete(head.len)), "{:?}", String::from_utf8_lossy(&bytes));
        let target = request.path.unwrap();
        let parsed = pingora_http::RequestHeader::build(request.method.unwrap(), target.as_bytes(), None).unwrap();
        assert_eq!(parsed.raw_path(), target.as_bytes());
    }
    assert!(sound > 1000, "the generator must make sound heads too: {sound}");
}

#[test]
fn a_line_has_a_bound_of_its_own() {
    let bounds = HeadBounds { bytes: 4096, fields: 9, line: 300 };
    let request = |path: usize, field: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "p".repeat(path), "v".repeat(field));
    let (longest_path, longest_field) = (300 - "GET / HTTP/1.1".len(), 300 - "x: ".len());
    assert!(matches!(judge(request(longest_path, longest_field).as_bytes(), &bounds), Judged::Complete(_)));
    for (path, field, kind) in [(longest_path + 1, 1, &TARGET_TOO_LONG), (1, longest_field + 1, &FIELD_TOO_LONG)] {
        let head = request(path, field);
        assert_eq!(judge(head.as_bytes(), &bounds), Judged::Bad(kind));
        // Also before its end has come.
        let unfinished = head.trim_end_matches("\r\n\r\n");
        let unfinished = if path > 1 { &unfinished[..302] } else { unfinished };
        assert_eq!(judge(unfinished.as_bytes(), &bounds), Judged::Bad(kind));
    }
}
