//! Any bytes, as a connection begins with them: what `listen/head.rs` accepts has one end and one reading.

use pingora_http::RequestHeader;
use sluice::entry::canonical::raw_target;
use sluice::listen::head::{Body, Head, HeadBounds, Judged, judge};

pub fn hold(data: &[u8]) {
    for bounds in [HeadBounds::default(), HeadBounds { bytes: 128, fields: 4, line: 64 }] {
        let whole = judge(data, &bounds);
        // TCP may deliver any beginning first.
        for cut in super::cuts(data.len()) {
            match (judge(&data[..cut], &bounds), whole) {
                (Judged::Incomplete, _) => {}
                (Judged::Complete(part), Judged::Complete(head)) if part == head => {}
                (Judged::Bad(_), Judged::Bad(_)) => {}
                (part, _) => panic!("the first {cut} bytes are {part:?}, all of them {whole:?}"),
            }
        }
        if let Judged::Complete(head) = whole {
            agree(data, head, bounds);
        }
    }
}

/// With the parser behind us, and with what becomes of its result.
fn agree(data: &[u8], head: Head, bounds: HeadBounds) {
    let bytes = &data[head.leading..][..head.len];
    assert!(bytes.ends_with(b"\r\n\r\n") && head.len <= bounds.bytes);
    let mut fields = [httparse::EMPTY_HEADER; 256];
    let mut parsed = httparse::Request::new(&mut fields);
    let end = parsed.parse(&data[head.leading..]).expect("the parser takes it");
    assert_eq!(end, httparse::Status::Complete(head.len), "the parser sees another end");
    let target = parsed.path.expect("a complete head has a target");
    assert_eq!(raw_target(data), Some(target.as_bytes()));
    assert!(parsed.headers.len() <= bounds.fields);

    let all = |name: &str| -> Vec<&[u8]> {
        parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value.trim_ascii()).collect()
    };
    let body = match (all("content-length").as_slice(), all("transfer-encoding").as_slice()) {
        ([], []) => Body::None,
        ([length], []) => match std::str::from_utf8(length).expect("digits").parse().expect("a length") {
            0 => Body::None,
            length => Body::Length(length),
        },
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && parsed.version == Some(1) => Body::Chunked,
        (lengths, codings) => panic!("accepted with {lengths:?} and {codings:?}"),
    };
    assert_eq!(head.body, body);
    assert!(all("host").len() <= 1 && (parsed.version == Some(0) || all("host").len() == 1));

    let method = parsed.method.expect("a complete head has a method");
    let mut built = RequestHeader::build(method, target.as_bytes(), None).expect("Pingora takes the request line");
    assert_eq!(built.raw_path(), target.as_bytes());
    for field in parsed.headers.iter() {
        built.append_header(field.name.to_owned(), field.value).expect("Pingora takes the field");
    }
}
