//! Spells an access-log line as Apache and nginx do in their `combined` format, for the programs that read those.
//!
//! Decides the spelling only. It holds less than the JSON line: not why a request was refused, nor who has answered it.

use super::super::civil::common_log;
use super::{LONG, Line, is_credential};
use crate::text::AddressText;

/// Appends `client - user [time] "METHOD /path?query PROTOCOL" status bytes "referer" "user agent"` and a newline; what is absent is `-`.
/// Bytes are those of the answer's body. A status of 000 is that of a request that got no answer.
pub fn append(line: &Line<'_>, out: &mut Vec<u8>) {
    match line.client {
        Some(client) => out.extend_from_slice(&AddressText::of(client)),
        None => out.push(b'-'),
    }
    out.extend_from_slice(b" - ");
    let consumer = line.caller.and_then(|caller| caller.consumer.as_ref()).map(|consumer| &*consumer.name);
    let user = consumer.or(line.caller.and_then(|caller| caller.subject.as_deref())).unwrap_or_default();
    let start = out.len();
    escaped(user.as_bytes(), LONG, out);
    dash_if_none(start, out);
    out.extend_from_slice(b" [");
    out.extend_from_slice(&common_log(line.unix_ms));
    out.extend_from_slice(b"] \"");
    asked(line, out);
    out.extend_from_slice(b"\" ");
    let status = line.status.unwrap_or_default();
    out.extend([status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + (digit % 10) as u8));
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(line.bytes_out).as_bytes());
    for field in [line.referer, line.user_agent] {
        out.extend_from_slice(b" \"");
        let start = out.len();
        quoted(field, LONG, out);
        dash_if_none(start, out);
        out.push(b'"');
    }
    out.push(b'\n');
}

/// The request line, or `-` where there was none that could be read. Credentials are not in it.
fn asked(line: &Line<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    escaped(line.method, LONG, out);
    if dash_if_none(start, out) {
        return;
    }
    out.push(b' ');
    escaped(line.path, LONG, out);
    let mut left = LONG;
    let mut before = b'?';
    for parameter in line.query.split(|byte| *byte == b'&') {
        if left == 0 || parameter.is_empty() || is_credential(parameter, line.credentials) {
            continue;
        }
        out.push(before);
        escaped(parameter, left, out);
        left = left.saturating_sub(parameter.len() + 1);
        before = b'&';
    }
    out.push(b' ');
    out.extend_from_slice(line.protocol.as_bytes());
}

fn dash_if_none(start: usize, out: &mut Vec<u8>) -> bool {
    let is_none = out.len() == start;
    if is_none {
        out.push(b'-');
    }
    is_none
}

/// Within quotes: whatever could end them, or is not printable ASCII, becomes `\xHH`.
fn quoted(text: &[u8], limit: usize, out: &mut Vec<u8>) {
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
    push(text, limit, is_plain, out);
}

/// A word: spaces too, since those end it.
fn escaped(text: &[u8], limit: usize, out: &mut Vec<u8>) {
    push(text, limit, |byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\', out);
}

/// At most `limit` bytes of `text`.
fn push(text: &[u8], limit: usize, is_plain: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.iter().copied().take(limit) {
        match is_plain(byte) {
            true => out.push(byte),
            false => out.extend_from_slice(&[b'\\', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::principal::{Consumer, Identity};

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        append(line, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn line<'a>() -> Line<'a> {
        Line { unix_ms: 971_211_336_042, client: "192.0.2.7".parse().ok(), protocol: "HTTP/1.1", ..Line::default() }
    }

    fn subject(name: &str) -> Identity {
        Identity { subject: Some(name.to_owned()), ..Identity::default() }
    }

    #[test]
    fn a_line_is_what_the_readers_of_nginx_and_apache_expect() {
        let consumer = Consumer { name: "frank".into(), ..Consumer::default() };
        let caller = Identity { consumer: Some(Arc::new(consumer)), ..subject("u-1") };
        let whole = Line {
            caller: Some(&caller),
            method: b"GET",
            path: b"/apache_pb.gif",
            query: b"size=3&api%5Fkey=s3cret&&name=a%20b",
            credentials: &["api_key".to_owned()],
            status: Some(200),
            bytes_out: 2326,
            referer: b"http://www.example.com/start.html",
            user_agent: b"Mozilla/4.08 [en] (Win98; I ;Nav)",
            ..line()
        };
        assert_eq!(
            text(&whole),
            "192.0.2.7 - frank [10/Oct/2000:20:55:36 +0000] \"GET /apache_pb.gif?size=3&name=a%20b HTTP/1.1\" 200 2326 \
             \"http://www.example.com/start.html\" \"Mozilla/4.08 [en] (Win98; I ;Nav)\"\n"
        );
    }

    #[test]
    fn what_is_absent_is_a_dash() {
        assert_eq!(text(&line()), "192.0.2.7 - - [10/Oct/2000:20:55:36 +0000] \"-\" 000 0 \"-\" \"-\"\n");
        let caller = subject("u 1");
        let subject = Line { caller: Some(&caller), method: b"GET", path: b"/", status: Some(499), ..line() };
        assert_eq!(text(&subject), "192.0.2.7 - u\\x201 [10/Oct/2000:20:55:36 +0000] \"GET / HTTP/1.1\" 499 0 \"-\" \"-\"\n");
    }

    #[test]
    fn no_client_can_end_a_field_or_begin_a_line() {
        let agent = b"a\" 200 0\n192.0.2.1 - admin\x1b[2J\\\xff";
        let forged = Line { method: b"GET", path: b"/\"\n", query: b"a b\"", user_agent: agent, status: Some(404), ..line() };
        let told = text(&forged);
        assert!(told.contains("\"GET /\\x22\\x0A?a\\x20b\\x22 HTTP/1.1\" 404"), "{told}");
        assert!(told.ends_with("\"a\\x22 200 0\\x0A192.0.2.1 - admin\\x1B[2J\\x5C\\xFF\"\n"), "{told}");
        assert_eq!(told.matches('\n').count(), 1);
    }

    #[test]
    fn long_fields_are_cut() {
        let long = vec![b'a'; 100_000];
        let query = [&long[..], b"&more=1"].concat();
        let told = text(&Line { method: &long, path: &long, query: &query, user_agent: &long, referer: &long, ..line() });
        assert!(told.len() < 6 * LONG && !told.contains("more"), "{}", told.len());
    }
}
