//! Bodies whose end could be found in two places: the way requests are smuggled.

use super::{Expect, Row, bad, no, run, to};

pub fn heads() -> Vec<Row> {
    let cl = |rfc, value: &str| Row::post(rfc, format!("Content-Length: {value}"), "hello", bad(400, "content-length-invalid"));
    let te = |rfc, line: &str| Row::post(rfc, line, "5\r\nhello\r\n0\r\n\r\n", bad(400, "transfer-encoding-invalid"));
    let both = |rfc, lines: &str| Row::post(rfc, lines, "0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n", bad(400, "framing-ambiguous"));
    vec![
        // both
        both("9112 6.1", "Content-Length: 5\r\nTransfer-Encoding: chunked"),
        both("9112 6.1", "Transfer-Encoding: chunked\r\nContent-Length: 0"),
        both("9112 6.1", "Content-Length: 35\r\nTransfer-Encoding: CHUNKED"),
        both("3875 4.1.18", "Transfer_Encoding: chunked"),
        both("3875 4.1.18", "Content_Length: 5"),
        // Transfer-Encoding
        te("9112 6.1", "Transfer-Encoding: chunked, chunked"),
        te("9112 6.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        te("9112 6.1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
        te("9112 6.1", "Transfer-Encoding: gzip, chunked"),
        te("9112 6.1", "Transfer-Encoding: chunked, gzip"),
        te("9112 6.1", "Transfer-Encoding: gzip"),
        te("9112 6.1", "Transfer-Encoding: identity"),
        te("9112 6.1", "Transfer-Encoding: xchunked"),
        te("9112 6.1", "Transfer-Encoding: chunkedx"),
        te("9112 6.1", "Transfer-Encoding: chun ked"),
        te("9112 6.1", "Transfer-Encoding: \"chunked\""),
        te("9112 6.1", "Transfer-Encoding: chunked;q=1"),
        te("9112 6.1", "Transfer-Encoding: chunked,"),
        te("9112 6.1", "Transfer-Encoding: ,chunked"),
        te("9112 6.1", "Transfer-Encoding:"),
        te("9112 6.1", "Transfer-Encoding: \u{a0}chunked"),
        Row::post("9110 5.5", "Transfer-Encoding: \x0bchunked", "0\r\n\r\n", bad(400, "field-value-invalid")),
        Row::post("9110 5.5", "Transfer-Encoding: chunked\0", "0\r\n\r\n", bad(400, "field-value-invalid")),
        Row::post("9112 5.1", "Transfer-Encoding : chunked", "0\r\n\r\n", bad(400, "field-name-invalid")),
        Row::post("9112 5.1", "Transfer-Encoding\t: chunked", "0\r\n\r\n", bad(400, "field-name-invalid")),
        Row::post("9112 5.2", "Transfer-Encoding:\r\n chunked", "0\r\n\r\n", bad(400, "transfer-encoding-invalid")),
        Row::post("9112 5.2", "X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n", bad(400, "field-folded")),
        Row::post("9112 2.2", "X: y\nTransfer-Encoding: chunked", "0\r\n\r\n", bad(400, "line-ending-invalid")),
        Row::post("9112 2.2", "X: y\rTransfer-Encoding: chunked", "0\r\n\r\n", bad(400, "line-ending-invalid")),
        Row::new(
            "9112 6.1",
            "POST /x HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            bad(400, "transfer-encoding-invalid"),
        ),
        // Content-Length
        cl("9112 6.3", "5\r\nContent-Length: 5"),
        cl("9112 6.3", "5\r\nContent-Length: 6"),
        cl("9112 6.3", "0\r\ncontent-length: 5"),
        cl("9110 8.6", "5, 5"),
        cl("9110 8.6", "5,"),
        cl("9110 8.6", "+5"),
        cl("9110 8.6", "-5"),
        cl("9110 8.6", "-0"),
        cl("9110 8.6", "0x5"),
        cl("9110 8.6", "5.0"),
        cl("9110 8.6", "5e0"),
        cl("9110 8.6", "5 5"),
        cl("9110 8.6", "\"5\""),
        cl("9110 8.6", ""),
        cl("9110 8.6", "five"),
        cl("9110 8.6", "\u{0665}"),
        cl("9110 8.6", "9223372036854775808"),
        cl("9110 8.6", "18446744073709551621"),
        cl("9110 8.6", "99999999999999999999999999999999"),
        Row::post("9112 5.1", "Content-Length : 5", "hello", bad(400, "field-name-invalid")),
        Row::post("9112 5.1", "Content-Length", "hello", bad(400, "field-name-invalid")),
        Row::post("9110 5.5", "Content-Length: 5\0", "hello", bad(400, "field-value-invalid")),
    ]
}

pub fn bodies() -> Vec<Row> {
    const CHUNKED: &str = "Transfer-Encoding: chunked";
    let cut = |rfc, body: &str| Row::post(rfc, CHUNKED, body, Expect::Cut("chunk-invalid"));
    let chunked = |rfc, lines: &str, body: &str, forwarded: &str| {
        let head = "POST /x HTTP/1.1\r\nHost: a.example\r\n{added}Transfer-Encoding: chunked\r\n\r\n";
        Row::post(rfc, lines, body, Expect::Forwarded(format!("{head}{forwarded}").into_bytes()))
    };
    let hello = "5\r\nhello\r\n0\r\n\r\n";
    let extensions: String = (0..100).map(|_| format!("1;{}\r\nx\r\n", "e".repeat(200))).collect();
    vec![
        // A body that is sound arrives, whatever its spelling.
        chunked("9112 7.1", CHUNKED, hello, hello),
        chunked("9112 6.1", "Transfer-Encoding: Chunked", hello, hello),
        chunked("9112 5", "transfer-encoding: \tchunked \t", hello, hello),
        chunked("9112 7.1.1", CHUNKED, "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", hello),
        chunked("9112 7.1.2", CHUNKED, "5\r\nhello\r\n0\r\nX-User-Id: admin\r\nContent-Length: 3\r\n\r\n", hello),
        chunked("9112 7.1", CHUNKED, "00005\r\nhello\r\n000\r\n\r\n", hello),
        chunked("9112 7.1", CHUNKED, "0\r\n\r\n", "0\r\n\r\n"),
        Row::post(
            "9112 6.2",
            "Content-Length:  005 ",
            "hello",
            to("POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 005", "hello"),
        ),
        Row::post("9112 6.2", "Content-Length: 0", "", to("POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0", "")),
        Row::new(
            "9110 9.3.1",
            "GET /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello",
            to("GET /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5", "hello"),
        ),
        // A fault that shows only in the body: the upstream never sees the end.
        cut("9112 7.1", "5\r\nhello\r\nx\r\n"),
        cut("9112 7.1", "x\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "-5\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "0x5\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "5 \r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", " 5\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1.1", "5 ;a\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", ";a\r\n0\r\n\r\n"),
        cut("9112 2.2", "5\nhello\r\n0\r\n\r\n"),
        cut("9112 2.2", "5\r\nhello\n0\r\n\r\n"),
        cut("9112 7.1", "5\r\nhello0\r\n\r\n"),
        cut("9112 7.1", "5\r\nhello world\r\n0\r\n\r\n"),
        cut("9112 7.1.1", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1.1", "5;a\0\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1.1", &format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(300))),
        cut("9112 7.1.1", &extensions),
        cut("9112 7.1", "ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
        cut("9112 7.1.2", "5\r\nhello\r\n0\r\n folded: 1\r\n\r\n"),
        cut("9112 7.1.2", "5\r\nhello\r\n0\r\nno-colon\r\n\r\n"),
        cut("9112 7.1.2", "5\r\nhello\r\n0\r\nspace : 1\r\n\r\n"),
        cut("9112 7.1.2", &format!("5\r\nhello\r\n0\r\nx: {}\r\n\r\n", "v".repeat(9000))),
        cut("9112 2.2", "5\r\nhello\r\n0\r\n\n"),
        // Bodies that nobody wants: small ones are read away, and the connection goes on.
        Row::new("9110 9.3.3", "POST /get HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello", no(405, "method-not-allowed")).tight(),
        Row::new(
            "9110 15.5.14",
            "POST /small HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\nhello world",
            no(413, "body-too-large"),
        ),
        Row::new(
            "9110 15.5.14",
            "POST /small HTTP/1.1\r\nHost: a.example\r\nContent-Length: 99999999999\r\n\r\nhello world",
            bad(413, "body-too-large"),
        ),
        Row::new(
            "9110 10.1.1",
            "POST /small HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n",
            bad(413, "body-too-large"),
        ),
        // Nothing of a refused request's body is a request.
        Row::new(
            "9112 6.3",
            "POST /get HTTP/1.1\r\nHost: a.example\r\nContent-Length: 53\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.example\r\nX: 12345\r\n\r\n",
            no(405, "method-not-allowed"),
        )
        .tight(),
    ]
}

#[test]
fn a_head_that_frames_its_body_in_two_ways_goes_nowhere() {
    run(heads());
}

#[test]
fn a_body_reaches_the_upstream_whole_or_not_at_all() {
    run(bodies());
}
