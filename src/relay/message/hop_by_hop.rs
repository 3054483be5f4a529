//! Decides which fields of a request end here, because they concern a single connection (RFC 9110 section 7.6.1).
//!
//! Pingora can do the same, but looks for each of the names in each request; most requests have none of them.

use http::{HeaderMap, HeaderName, HeaderValue, Version, header};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

/// What ends here whoever sends it.
const NAMES: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Per first letter, one bit per length: nearly every other name is cleared by one look at this.
static FILTER: [u64; 32] = filter();

const fn filter() -> [u64; 32] {
    let mut filter = [0; 32];
    let mut i = 0;
    while i < NAMES.len() {
        filter[(NAMES[i].as_bytes()[0] & 31) as usize] |= 1 << NAMES[i].len();
        i += 1;
    }
    filter
}

/// Removes them. A WebSocket upgrade of an HTTP/1.1 client stays, normalised. `version` is the client's.
pub fn without_hop_by_hop(head: &mut RequestHeader, version: Version) {
    if !head.headers.keys().any(is_hop_by_hop) {
        return;
    }
    // The one word, as `listen/head/fields.rs` judged it.
    let is_websocket = version == Version::HTTP_11
        && head.headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    for name in &nominated(&head.headers) {
        head.remove_header(name);
    }
    for name in NAMES {
        head.remove_header(name);
    }
    if is_websocket {
        let _ = head.insert_header(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let _ = head.insert_header(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    let name = name.as_str();
    let bits = FILTER[usize::from(name.as_bytes().first().map_or(0, |first| first & 31))];
    name.len() < 64 && bits >> name.len() & 1 == 1 && NAMES.contains(&name)
}

/// What `Connection` names. `listen/head.rs` lets it name nothing that is not hop-by-hop anyway.
fn nominated(fields: &HeaderMap) -> SmallVec<[HeaderName; 4]> {
    let lines = fields.get_all(header::CONNECTION).iter();
    let tokens = lines.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build_no_case("GET", b"/", None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    /// What is left.
    fn left(fields: &[(&'static str, &str)], version: Version) -> Vec<String> {
        let mut head = head(fields);
        without_hop_by_hop(&mut head, version);
        head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn every_name_ends_here_and_no_other_does() {
        for name in NAMES {
            assert_eq!(left(&[("host", "a"), (name, "x")], Version::HTTP_11), ["host: a"], "{name}");
        }
        for name in ["host", "user-agent", "content-type", "accept", "x", "proxy-authorization-2", "tf", "trailes"] {
            assert_eq!(left(&[(name, "x")], Version::HTTP_11).len(), 1, "{name}");
        }
    }

    #[test]
    fn what_connection_names_goes_with_it() {
        let fields = [("connection", "close, x-hop"), ("close", "1"), ("x-hop", "1"), ("x-end", "1")];
        assert_eq!(left(&fields, Version::HTTP_11), ["x-end: 1"]);
    }

    #[test]
    fn a_websocket_handshake_of_http_1_1_passes() {
        let fields = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-key", "x")];
        let mut passed = left(&fields, Version::HTTP_11);
        passed.sort();
        assert_eq!(passed, ["connection: Upgrade", "sec-websocket-key: x", "upgrade: websocket"]);
        assert_eq!(left(&fields, Version::HTTP_10), ["sec-websocket-key: x"]);
        assert_eq!(left(&[("connection", "upgrade"), ("upgrade", "h2c"), ("host", "a")], Version::HTTP_11), ["host: a"]);
    }
}
