//! Decides what an access-log line holds and how it is spelt in JSON (see `access_log/combined.rs` for the other way). Does not bring it to its file: see `writer.rs`.

use std::io::Write;
use std::net::IpAddr;

pub mod caller;
mod combined;
mod send;
mod settings;

pub use self::settings::{AccessLog, AccessLogSettings, LogFormat};
use super::civil::rfc3339;
use super::json::{push_escaped_bounded, push_string_bounded};
use crate::config::types::Percent;
use crate::policy::principal::Identity;
use crate::relay::retries::verdict::Failed;
use crate::text::AddressText;

/// At most so many bytes of a path, a query or a user agent are logged.
pub const LONG: usize = 2048;
/// At most so many bytes of any other text are logged.
pub const SHORT: usize = 256;

/// What is written of one request, in this order. What is absent or empty is left out; text of clients is bytes, since it need not be UTF-8.
#[derive(Clone, Debug, Default)]
pub struct Line<'a> {
    /// When the request head had arrived, in milliseconds since 1970.
    pub unix_ms: u64,
    pub request_id: &'a [u8],
    pub trace_id: &'a [u8],
    pub listener: &'a str,
    /// Such as `HTTP/1.1`.
    pub protocol: &'a str,
    pub client: Option<IpAddr>,
    pub tls_version: &'a str,
    pub tls_cipher: &'a str,
    /// The name for which the client connected.
    pub server_name: &'a str,
    /// Subject of the client's certificate.
    pub client_subject: &'a str,
    pub host: &'a [u8],
    pub method: &'a [u8],
    /// In canonical form, without the query.
    pub path: &'a [u8],
    /// Without the `?`; as it came, credentials included: those are cut here.
    pub query: &'a [u8],
    /// Names of the query parameters that carry credentials and are not logged.
    pub credentials: &'a [String],
    /// Path and query that went upstream, where a `rewrite` made them differ.
    pub upstream_path: &'a [u8],
    pub route: &'a str,
    /// Whose credential was accepted.
    pub caller: Option<&'a Identity>,
    /// What the client was answered; none where it got no answer.
    pub status: Option<u16>,
    /// Code of the gateway's own answer, such as `rate-limited`.
    pub code: &'a str,
    /// Why, with figures; not shown to the client.
    pub reason: &'a str,
    /// The limit that refused, and what it counted by.
    pub limit: &'a str,
    pub key: &'a str,
    /// Who goes first where not all can be served, where that was asked: `lowest`, `low`, `normal` or `high`.
    pub priority: &'a str,
    /// What answered in place of the upstream that could not be reached: another upstream, or `answer`.
    pub fallback: &'a str,
    /// The fault that was made on purpose: `delay` or `abort`.
    pub fault: &'a str,
    pub upstream: &'a str,
    /// Address of the last target that was tried.
    pub target: &'a str,
    pub attempts: Option<u32>,
    /// Targets and why each attempt failed, where there was another or there was to be.
    pub failed: &'a [Failed],
    /// Why there was no further attempt, where one was to be made.
    pub no_retry: &'a str,
    /// Bytes of bodies, from and to the client.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Microseconds: in all, waiting for upstreams, and the difference that the gateway added.
    pub total_us: Option<u64>,
    pub upstream_us: Option<u64>,
    pub gateway_us: Option<u64>,
    /// Microseconds that a limit or a fault has delayed it.
    pub waited_us: Option<u64>,
    pub user_agent: &'a [u8],
    /// The page that led here; in no JSON line.
    pub referer: &'a [u8],
    /// How a call of gRPC ended.
    pub grpc_status: &'a str,
    /// Who ended a tunnel.
    pub closed_by: &'a str,
    /// Codes with which shadowed policies would have refused.
    pub would_refuse: &'a [&'a str],
    /// The share of its like that have a line, where not all have.
    pub sample: Option<Percent>,
}

/// Appends `"name":` and values to a line.
struct Fields<'v> {
    out: &'v mut Vec<u8>,
}

// === impl Line ===

impl Line<'_> {
    /// Appends the line as one JSON object and a newline.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        let Line {
            unix_ms,
            request_id,
            trace_id,
            listener,
            protocol,
            client,
            tls_version,
            tls_cipher,
            server_name,
            client_subject,
            host,
            method,
            path,
            query,
            credentials,
            upstream_path,
            route,
            caller,
            status,
            code,
            reason,
            limit,
            key,
            priority,
            fallback,
            fault,
            upstream,
            target,
            attempts,
            failed,
            no_retry,
            bytes_in,
            bytes_out,
            total_us,
            upstream_us,
            gateway_us,
            waited_us,
            user_agent,
            referer: _,
            grpc_status,
            closed_by,
            would_refuse,
            sample,
        } = *self;
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&rfc3339(unix_ms));
        out.push(b'"');
        let mut fields = Fields { out };
        fields.clean(r#","request_id":"#, request_id);
        fields.clean(r#","trace_id":"#, trace_id);
        fields.short(r#","listener":"#, listener.as_bytes());
        fields.clean(r#","protocol":"#, protocol.as_bytes());
        fields.address(r#","client":"#, client);
        fields.short(r#","tls_version":"#, tls_version.as_bytes());
        fields.short(r#","tls_cipher":"#, tls_cipher.as_bytes());
        fields.short(r#","server_name":"#, server_name.as_bytes());
        fields.short(r#","client_subject":"#, client_subject.as_bytes());
        fields.short(r#","host":"#, host);
        fields.short(r#","method":"#, method);
        fields.long(r#","path":"#, path);
        fields.query(r#","query":"#, query, credentials);
        match memchr::memchr(b'?', upstream_path) {
            Some(mark) => {
                fields.long(r#","upstream_path":"#, &upstream_path[..mark]);
                fields.query(r#","upstream_query":"#, &upstream_path[mark + 1..], credentials);
            }
            None => fields.long(r#","upstream_path":"#, upstream_path),
        }
        fields.short(r#","route":"#, route.as_bytes());
        fields.caller(caller);
        fields.number(r#","status":"#, status.map(u64::from));
        fields.short(r#","code":"#, code.as_bytes());
        fields.long(r#","reason":"#, reason.as_bytes());
        fields.short(r#","limit":"#, limit.as_bytes());
        fields.short(r#","key":"#, key.as_bytes());
        fields.short(r#","priority":"#, priority.as_bytes());
        fields.short(r#","fallback":"#, fallback.as_bytes());
        fields.short(r#","fault":"#, fault.as_bytes());
        fields.short(r#","upstream":"#, upstream.as_bytes());
        fields.short(r#","target":"#, target.as_bytes());
        fields.number(r#","attempts":"#, attempts.map(u64::from));
        fields.failed(r#","failed":["#, failed);
        fields.short(r#","no_retry":"#, no_retry.as_bytes());
        fields.number(r#","bytes_in":"#, Some(bytes_in));
        fields.number(r#","bytes_out":"#, Some(bytes_out));
        fields.number(r#","total_us":"#, total_us);
        fields.number(r#","upstream_us":"#, upstream_us);
        fields.number(r#","gateway_us":"#, gateway_us);
        fields.number(r#","waited_us":"#, waited_us);
        fields.long(r#","user_agent":"#, user_agent);
        fields.short(r#","grpc_status":"#, grpc_status.as_bytes());
        fields.short(r#","closed_by":"#, closed_by.as_bytes());
        fields.list(r#","would_refuse":"#, would_refuse);
        fields.share(r#","sample":"#, sample.filter(|_| self.went_well()));
        out.extend_from_slice(b"}\n");
    }
}

// === impl Fields ===

impl Fields<'_> {
    /// A name comes with all that stands around it, such as `,"path":`, so that it is copied in one piece.
    fn name(&mut self, name: &str) {
        self.out.extend_from_slice(name.as_bytes());
    }

    fn short(&mut self, name: &str, text: &[u8]) {
        self.bounded(name, text, SHORT);
    }

    /// What is short and has no character that needs an escape, by how it was made or accepted, as ids are.
    fn clean(&mut self, name: &str, text: &[u8]) {
        if !text.is_empty() {
            self.out.reserve(name.len() + text.len() + 2);
            self.name(name);
            self.out.push(b'"');
            self.out.extend_from_slice(text);
            self.out.push(b'"');
        }
    }

    fn failed(&mut self, name: &str, failed: &[Failed]) {
        for (n, one) in failed.iter().enumerate() {
            self.name(if n == 0 { name } else { "," });
            push_string_bounded(self.out, one.to_string().as_bytes(), SHORT);
        }
        if !failed.is_empty() {
            self.out.push(b']');
        }
    }

    fn long(&mut self, name: &str, text: &[u8]) {
        self.bounded(name, text, LONG);
    }

    fn bounded(&mut self, name: &str, text: &[u8], limit: usize) {
        if !text.is_empty() {
            // Once for all pieces, where nothing needs an escape.
            self.out.reserve(name.len() + text.len() + 2);
            self.name(name);
            push_string_bounded(self.out, text, limit);
        }
    }

    fn number(&mut self, name: &str, number: Option<u64>) {
        if let Some(number) = number {
            self.name(name);
            self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
    }

    /// As a part of one: `0.01`.
    fn share(&mut self, name: &str, share: Option<Percent>) {
        if let Some(Percent(hundredths)) = share {
            self.name(name);
            let _ = write!(self.out, "{}", f64::from(hundredths) / 10_000.0);
        }
    }

    fn address(&mut self, name: &str, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.clean(name, &AddressText::of(address));
        }
    }

    fn list(&mut self, name: &str, texts: &[&str]) {
        for (n, text) in texts.iter().enumerate() {
            if n == 0 {
                self.name(name);
                self.out.push(b'[');
            } else {
                self.out.push(b',');
            }
            push_string_bounded(self.out, text.as_bytes(), SHORT);
        }
        if !texts.is_empty() {
            self.out.push(b']');
        }
    }

    /// The query without the parameters that carry credentials; left out where nothing remains.
    fn query(&mut self, name: &str, query: &[u8], credentials: &[String]) {
        if credentials.is_empty() {
            return self.long(name, query);
        }
        let mut left = LONG;
        let mut is_open = false;
        for parameter in query.split(|byte| *byte == b'&') {
            if is_credential(parameter, credentials) {
                continue;
            }
            if is_open {
                self.out.push(b'&');
                left = left.saturating_sub(1);
            } else if parameter.is_empty() {
                continue; // a stray `&` is no reason for a field
            } else {
                self.name(name);
                self.out.push(b'"');
                is_open = true;
            }
            push_escaped_bounded(self.out, parameter, left);
            if parameter.len() > left {
                break;
            }
            left -= parameter.len();
        }
        if is_open {
            self.out.push(b'"');
        }
    }
}

/// Whether a `name=value` is one of these, however the name is escaped and whatever its case: a log that shows too little is
/// better than one that shows a key.
fn is_credential(parameter: &[u8], credentials: &[String]) -> bool {
    let end = memchr::memchr(b'=', parameter).unwrap_or(parameter.len());
    credentials.iter().any(|name| Unescaped(&parameter[..end]).eq_ignore_case(name.as_bytes()))
}

/// The bytes that percent escapes stand for.
struct Unescaped<'a>(&'a [u8]);

impl Unescaped<'_> {
    fn eq_ignore_case(self, name: &[u8]) -> bool {
        let mut name = name.iter();
        for byte in self {
            if !name.next().is_some_and(|expected| expected.eq_ignore_ascii_case(&byte)) {
                return false;
            }
        }
        name.next().is_none()
    }
}

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        match *self.0 {
            [b'%', high, low, ref rest @ ..] if let (Some(high), Some(low)) = (hex(high), hex(low)) => {
                self.0 = rest;
                Some(high << 4 | low)
            }
            [b'+', ref rest @ ..] => {
                self.0 = rest;
                Some(b' ')
            }
            [byte, ref rest @ ..] => {
                self.0 = rest;
                Some(byte)
            }
            [] => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::CUT;
    use super::*;
    use crate::config::diagnostic::{Place, Source};
    use crate::config::types::At;
    use crate::policy::principal::{Consumer, Tag};
    use crate::relay::retries::verdict::Cause;
    use crate::relay::targets::address::Address;
    use crate::relay::targets::target::Target;
    use crate::report::writer::To;
    use serde_json::Value;
    use std::sync::Arc;

    fn text(line: &Line<'_>) -> String {
        let mut out = Vec::new();
        line.append_to(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn parsed(line: &Line<'_>) -> Value {
        let text = text(line);
        assert_eq!(text.matches('\n').count(), 1, "one line: {text:?}");
        assert!(text.ends_with('\n'));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn settings(to: Option<&str>) -> AccessLogSettings {
        let source = Arc::new(Source::new("/etc/sluice/shop.yaml", ""));
        let to = to.map(|to| At { value: to.to_owned(), place: Place { source, line: 1, column: 1, width: 1 } });
        AccessLogSettings { to, format: Some(LogFormat::Json), sample: None }
    }

    #[test]
    fn lines_go_to_stdout_or_to_a_file_beside_the_configuration() {
        assert_eq!(settings(None).compile(), Ok(AccessLog { to: To::Stdout, format: LogFormat::Json, sample: None }));
        assert_eq!(settings(Some("stdout")).compile().unwrap().to, To::Stdout);
        assert_eq!(settings(Some("logs/access.log")).compile().unwrap().to, To::File("/etc/sluice/logs/access.log".into()));
        assert_eq!(settings(Some("/var/log/access.log")).compile().unwrap().to, To::File("/var/log/access.log".into()));
    }

    #[test]
    fn where_no_log_can_go_is_refused() {
        for to in ["", "-", "stderr", "/var/log/"] {
            assert_eq!(settings(Some(to)).compile().unwrap_err()[0].code, "access-log-target", "{to:?}");
        }
    }

    #[test]
    fn a_full_line_has_every_field_in_its_order() {
        let tag = |name: &str, value: &str| Tag { name: name.into(), value: value.into(), series: Default::default() };
        let target = Arc::new(Target::new("orders".into(), Address::parse("10.0.0.6:8080").unwrap(), Arc::default()));
        let failed = |cause| Failed { target: target.clone(), cause };
        let consumer = Consumer { name: "acme".into(), plan: Some(("gold".into(), 0)), ..Consumer::default() };
        let caller = Identity {
            authenticator: "idp".into(),
            consumer: Some(Arc::new(consumer)),
            subject: Some("u1".to_owned()),
            claimed_tags: [tag("tier", "pro"), tag("version", "v2")].into(),
            ..Identity::default()
        };
        let line = Line {
            unix_ms: 1_700_000_000_042,
            request_id: b"01hf",
            trace_id: b"4bf92f3577b34da6a3ce929d0e0e4736",
            listener: "public",
            protocol: "HTTP/1.1",
            client: Some("2001:db8::1".parse().unwrap()),
            tls_version: "1.3",
            tls_cipher: "TLS_AES_128_GCM_SHA256",
            server_name: "api.example.com",
            client_subject: "CN=orders",
            host: b"api.example.com",
            method: b"GET",
            path: b"/api/orders/1",
            query: b"a=b&api_key=secret",
            credentials: &["api_key".to_owned()],
            upstream_path: b"/orders/1?a=b",
            route: "orders",
            caller: Some(&caller),
            status: Some(429),
            code: "rate-limited",
            reason: "100 of 100 used",
            limit: "browse",
            key: "consumer",
            priority: "low",
            fallback: "answer",
            fault: "delay",
            upstream: "orders",
            target: "10.0.0.7:8080",
            attempts: Some(2),
            failed: &[failed(Cause::Status(503)), failed(Cause::Reset)],
            no_retry: "budget",
            bytes_in: 1,
            bytes_out: 2,
            total_us: Some(30),
            upstream_us: Some(20),
            gateway_us: Some(10),
            waited_us: Some(7),
            user_agent: b"curl/8",
            referer: b"https://example.com/",
            grpc_status: "RESOURCE_EXHAUSTED",
            closed_by: "client",
            would_refuse: &["scope-missing", "address-refused"],
            sample: None,
        };
        assert_eq!(
            text(&line),
            concat!(
                r#"{"time":"2023-11-14T22:13:20.042Z","request_id":"01hf","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","listener":"public","#,
                r#""protocol":"HTTP/1.1","client":"2001:db8::1","#,
                r#""tls_version":"1.3","tls_cipher":"TLS_AES_128_GCM_SHA256","server_name":"api.example.com","client_subject":"CN=orders","#,
                r#""host":"api.example.com","method":"GET","path":"/api/orders/1","query":"a=b","#,
                r#""upstream_path":"/orders/1","upstream_query":"a=b","route":"orders","authenticator":"idp","consumer":"acme","plan":"gold","subject":"u1","tags":{"tier":"pro","version":"v2"},"status":429,"#,
                r#""code":"rate-limited","reason":"100 of 100 used","limit":"browse","key":"consumer","priority":"low","fallback":"answer","fault":"delay","upstream":"orders","target":"10.0.0.7:8080","#,
                r#""attempts":2,"failed":["10.0.0.6:8080 503","10.0.0.6:8080 reset"],"no_retry":"budget","bytes_in":1,"bytes_out":2,"total_us":30,"upstream_us":20,"gateway_us":10,"waited_us":7,"user_agent":"curl/8","grpc_status":"RESOURCE_EXHAUSTED","closed_by":"client","#,
                r#""would_refuse":["scope-missing","address-refused"]}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_absent_is_left_out() {
        assert_eq!(text(&Line::default()), "{\"time\":\"1970-01-01T00:00:00.000Z\",\"bytes_in\":0,\"bytes_out\":0}\n");
    }

    #[test]
    fn long_fields_are_cut_and_marked() {
        let long = vec![b'x'; LONG + 1];
        let value = parsed(&Line { path: &long, query: &long, user_agent: &long, host: &long, ..Line::default() });
        for (name, bound) in [("path", LONG), ("query", LONG), ("user_agent", LONG), ("host", SHORT)] {
            assert_eq!(value[name].as_str().unwrap(), format!("{}{CUT}", "x".repeat(bound)), "{name}");
        }
    }

    #[test]
    fn credentials_are_cut_out_of_the_query_however_they_are_spelt() {
        let credentials = ["api_key".to_owned(), "access token".to_owned()];
        let cut = |query: &str| parsed(&Line { query: query.as_bytes(), credentials: &credentials, ..Line::default() })["query"].clone();
        for (query, expected) in [
            ("api_key=s3cret", Value::Null),
            ("a=1&api_key=s3cret&b=2", "a=1&b=2".into()),
            ("api_key=s3cret&a=1", "a=1".into()),
            ("a=1&api_key=s3cret", "a=1".into()),
            ("a=1&api_key", "a=1".into()),
            ("API_KEY=s3cret&a=1", "a=1".into()),
            ("api%5fkey=s3cret&a=1", "a=1".into()),
            ("%61pi_key=s3cret&api_key=s3cret&a=1", "a=1".into()),
            ("access+token=s3cret&a=1", "a=1".into()),
            ("access%20token=s3cret&a=1", "a=1".into()),
            ("api_key=s3cret=x&a==1", "a==1".into()),
            ("api_keys=1&xapi_key=2&api_ke=3", "api_keys=1&xapi_key=2&api_ke=3".into()),
            ("a%=1&b%5=2&%zz=3", "a%=1&b%5=2&%zz=3".into()),
            ("a=1&&b=2", "a=1&&b=2".into()),
            ("&a=1", "a=1".into()),
            ("", Value::Null),
            ("&&", Value::Null),
        ] {
            assert_eq!(cut(query), expected, "{query}");
        }
    }

    #[test]
    fn a_credential_behind_a_long_parameter_is_never_shown() {
        let query = [&vec![b'x'; LONG - 3][..], b"&api_key=s3cret&more=1"].concat();
        let value = parsed(&Line { query: &query, credentials: &["api_key".to_owned()], ..Line::default() });
        assert_eq!(value["query"], format!("{}&mo{CUT}", "x".repeat(LONG - 3)));
    }

    /// A small generator, so that a failure repeats.
    struct Seeded(u64);

    impl Seeded {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0 >> 33
        }

        /// Bytes with many of the awkward ones among them.
        fn bytes(&mut self, bound: u64) -> Vec<u8> {
            let awkward = ["\"", "\\", "\n", "\0", "é", "😀", "\u{85}", "\u{2028}", "&", "=", "%", "\u{7f}"];
            let mut out = Vec::new();
            for _ in 0..self.next() % bound {
                match self.next() % 4 {
                    0 => out.push(self.next() as u8),
                    1 => out.extend_from_slice(awkward[(self.next() % awkward.len() as u64) as usize].as_bytes()),
                    _ => out.push(b'a' + (self.next() % 26) as u8),
                }
            }
            out
        }
    }

    #[test]
    fn whatever_a_client_sends_the_line_parses_and_reads_back() {
        let mut seeded = Seeded(7);
        for _ in 0..3000 {
            let (path, agent, host) = (seeded.bytes(400), seeded.bytes(60), seeded.bytes(40));
            let (query, subject) = (seeded.bytes(60), String::from_utf8_lossy(&seeded.bytes(20)).into_owned());
            let caller = Identity { subject: Some(subject.clone()), ..Identity::default() };
            let line = Line { path: &path, user_agent: &agent, host: &host, query: &query, caller: Some(&caller), ..Line::default() };
            let value = parsed(&line);
            for (name, sent) in [("path", &path), ("user_agent", &agent), ("host", &host), ("query", &query)] {
                let read = value.get(name).map_or("", |value| value.as_str().unwrap());
                assert_eq!(read, String::from_utf8_lossy(sent), "{name}");
            }
            assert_eq!(value.get("subject").map_or("", |value| value.as_str().unwrap()), subject);
        }
    }

    #[test]
    fn with_credentials_to_cut_arbitrary_queries_still_give_valid_lines() {
        let mut seeded = Seeded(11);
        let credentials = ["key".to_owned()];
        for _ in 0..3000 {
            let query = [seeded.bytes(3000), b"&key=s3cret&".to_vec(), seeded.bytes(30)].concat();
            let value = parsed(&Line { query: &query, credentials: &credentials, ..Line::default() });
            assert!(!value["query"].as_str().unwrap_or_default().contains("s3cret"));
        }
    }

    #[test]
    fn a_line_is_formatted_without_making_its_buffer_grow_again() {
        let line = Line { path: &[b'\x01'; LONG], client: Some("2001:db8::ffff:1:2:3".parse().unwrap()), ..Line::default() };
        let mut out = Vec::new();
        line.append_to(&mut out);
        let (before, capacity) = (out.as_ptr(), out.capacity());
        out.clear();
        line.append_to(&mut out);
        assert_eq!((out.as_ptr(), out.capacity()), (before, capacity));
    }
}
