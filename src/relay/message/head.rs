//! Decides the request head that goes to the upstream: what of the client's is taken away, what the gateway says of it.
//!
//! Takes plain data, returns nothing, reads no clock: `explain` calls it and compares before and after. Path and host rewriting is
//! in `rewrite.rs`, what concerns a single connection in `hop_by_hop.rs`: that is gone already when this runs.

use std::fmt::Write;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::edits::{Head, HeaderEdits, with_request_fields};
use super::rewrite::{HostRewrite, RequestHeadersSettings, Rewrite};
use super::strip::StripSet;
use crate::config::diagnostic::Diagnostic;
use crate::ctx::Scheme;
use crate::text::AddressText;

/// What a route does to request heads; compiled at load.
#[derive(Clone, Debug, Default)]
pub struct HeadPlan {
    pub rewrite: Option<Rewrite>,
    pub edits: HeaderEdits,
    /// Headers in which the route's authenticators look for credentials, unless all of them have `pass: true`.
    pub credentials: Vec<HeaderName>,
    /// What trusted peers are asked about clients with.
    pub told_by: Told,
}

/// The header of `clients.header`: what a trusted peer says in it, and beside it in the same family, is continued. What it says in another family
/// nobody has checked: that is written anew from what was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Told {
    /// `X-Forwarded-For`, and with it `-Proto` and `-Host`. `Forwarded` is removed.
    #[default]
    XForwarded,
    /// `Forwarded`, which upstreams get too.
    Forwarded,
    /// A header with one address; the scheme is that of `X-Forwarded-Proto`.
    Another,
}

/// What is known of one request when it goes upstream.
#[derive(Clone, Debug)]
pub struct Outgoing<'a> {
    /// Canonical.
    pub path: &'a str,
    /// Canonical, credentials cut out (`rewrite::cut_parameters`); None where there is none.
    pub query: Option<&'a str>,
    /// Values for the names that the rewrite was compiled with; may be empty unless it `needs_captures`.
    pub captures: &'a [&'a str],
    /// As the client named it, canonical, with the port if there was one.
    pub host: &'a str,
    /// [`crate::relay::targets::target::Target::host_header`] of the chosen target.
    pub target_host: &'a HeaderValue,
    /// As was decided.
    pub scheme: Scheme,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// As was decided.
    pub client: IpAddr,
    /// Whether what the peer says of client, scheme and host is passed on.
    pub peer_is_trusted: bool,
    pub request_id: &'a [u8],
    pub traceparent: &'a [u8],
    /// Whether `tracestate` belongs to that trace; otherwise it is removed.
    pub keep_tracestate: bool,
    /// Headers that name the caller; none where nobody was identified.
    pub identity: &'a [(HeaderName, HeaderValue)],
    /// The one of the plan's `credentials` that goes on all the same: this caller's authenticator passes it on, another one of the route does not.
    pub kept: Option<HeaderName>,
}

/// How many fields every request gets.
const WRITTEN: usize = 5;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

// === impl HeaderEdits ===

impl HeaderEdits {
    /// `request_headers` of a route.
    pub fn of_requests(settings: &RequestHeadersSettings) -> Result<HeaderEdits, Vec<Diagnostic>> {
        let RequestHeadersSettings { set, add, remove } = settings;
        HeaderEdits::compile(set, add, remove)
    }
}

/// Makes the head that goes upstream out of the one that came. See [`HeadPlan`] and [`Outgoing`] for what decides.
pub fn upstream_head(plan: &HeadPlan, strip: &StripSet, out: &Outgoing<'_>, head: &mut RequestHeader) {
    with_request_fields(head, |fields| {
        // Once for all that is written here.
        fields.reserve(WRITTEN + out.identity.len() + plan.edits.set.len() + plan.edits.add.len());
        set_host(plan.rewrite.as_ref(), out, fields);
        // First everything goes that clients may not say, in whatever spelling; then the gateway says it.
        strip.clean(fields, out.peer_is_trusted);
        for name in plan.credentials.iter().filter(|name| out.kept.as_ref() != Some(*name)) {
            fields.remove(name);
        }
        set_forwarded(plan, out, fields);
        insert_bytes(fields, X_REQUEST_ID, out.request_id);
        insert_bytes(fields, TRACEPARENT, out.traceparent);
        if !out.keep_tracestate {
            fields.remove(&TRACESTATE);
        }
        for (name, value) in out.identity {
            fields.put(name, value.clone());
        }
        // Last: what the operator writes holds, whatever else was said.
        plan.edits.apply(fields);
    });
    set_target(plan.rewrite.as_ref(), out, head);
}

fn set_target(rewrite: Option<&Rewrite>, out: &Outgoing<'_>, head: &mut RequestHeader) {
    let path = rewrite.map_or(std::borrow::Cow::Borrowed(out.path), |rewrite| rewrite.path(out.path, out.captures));
    let query = out.query.unwrap_or_default();
    let wanted_len = path.len() + if out.query.is_some() { 1 + query.len() } else { 0 };
    let came = head.raw_path();
    let is_same = came.len() == wanted_len
        && came.starts_with(path.as_bytes())
        && (out.query.is_none() || (came[path.len()] == b'?' && came.ends_with(query.as_bytes())));
    // The usual case: nothing to rewrite, and the client's spelling was canonical.
    if is_same {
        return;
    }
    let mut target = Vec::with_capacity(wanted_len);
    target.extend_from_slice(path.as_bytes());
    if out.query.is_some() {
        target.push(b'?');
        target.extend_from_slice(query.as_bytes());
    }
    // Fails only where a rewrite made it longer than any server takes (64 KiB). `*` is no path (RFC 9112 section 3.2.4), so every
    // upstream refuses it, where it would serve the client's own spelling.
    if head.set_raw_path(&target).is_err() {
        let _ = head.set_raw_path(b"*");
    }
}

fn set_host(rewrite: Option<&Rewrite>, out: &Outgoing<'_>, fields: &mut HeaderMap) {
    let value = match rewrite.map_or(&HostRewrite::Preserve, |rewrite| &rewrite.host) {
        HostRewrite::Upstream => out.target_host.clone(),
        HostRewrite::Fixed(name) => name.clone(),
        // A request of HTTP/1.0 that named none: it goes on as HTTP/1.1, which needs one (RFC 9112 section 3.2).
        HostRewrite::Preserve if out.host.is_empty() => out.target_host.clone(),
        HostRewrite::Preserve => {
            let mut hosts = fields.get_all(header::HOST).iter();
            if hosts.next().is_some_and(|host| host.as_bytes() == out.host.as_bytes()) && hosts.next().is_none() {
                return;
            }
            return insert(fields, header::HOST, out.host);
        }
    };
    fields.put(&header::HOST, value);
}

fn set_forwarded(plan: &HeadPlan, out: &Outgoing<'_>, fields: &mut HeaderMap) {
    // A v4 client of a v6 socket is told as v4.
    let peer = out.peer.to_canonical();
    let mut text = Text::new();
    let continues = out.peer_is_trusted && plan.told_by == Told::XForwarded;
    if continues {
        text.join(fields, &X_FORWARDED_FOR);
    } else if out.client.to_canonical() != peer {
        text.push_address(out.client.to_canonical());
    }
    text.separate();
    text.push_address(peer);
    insert_bytes(fields, X_FORWARDED_FOR, &text.0);

    let told = |name: &HeaderName| continues && fields.get_all(name).iter().count() == 1;
    let proto_is_told = told(&X_FORWARDED_PROTO) && matches!(fields[X_FORWARDED_PROTO].as_bytes(), b"http" | b"https");
    let host_is_told = told(&X_FORWARDED_HOST);
    if !proto_is_told {
        fields.put(&X_FORWARDED_PROTO, HeaderValue::from_static(out.scheme.as_str()));
    }
    if !host_is_told {
        match out.host {
            "" => fields.cut(&X_FORWARDED_HOST),
            host => insert(fields, X_FORWARDED_HOST, host),
        }
    }
    if plan.told_by != Told::Forwarded {
        fields.remove(&header::FORWARDED);
        return;
    }
    // RFC 7239 section 4: one element per proxy; v6 and ports need quotes (section 6).
    let mut text = Text::new();
    if out.peer_is_trusted {
        text.join(fields, &header::FORWARDED);
    }
    text.separate();
    match peer {
        IpAddr::V4(v4) => text.push_display(format_args!("for={v4}")),
        IpAddr::V6(v6) => text.push_display(format_args!("for=\"[{v6}]\"")),
    }
    text.push_display(format_args!(";host=\"{}\";proto={}", out.host, out.scheme.as_str()));
    insert_bytes(fields, header::FORWARDED, &text.0);
}

fn insert(fields: &mut HeaderMap, name: HeaderName, value: &str) {
    insert_bytes(fields, name, value.as_bytes());
}

/// What is no field value is left out rather than passed on as the client said it.
fn insert_bytes(fields: &mut HeaderMap, name: HeaderName, value: &[u8]) {
    match HeaderValue::from_bytes(value) {
        Ok(value) => fields.put(&name, value),
        Err(_) => fields.cut(&name),
    }
}

/// A field value under construction; on the stack for all but long chains.
struct Text(SmallVec<[u8; 128]>);

impl Text {
    fn new() -> Self {
        Text(SmallVec::new())
    }

    /// All lines of a list field as one (RFC 9110 section 5.3).
    fn join(&mut self, fields: &HeaderMap, name: &HeaderName) {
        for line in fields.get_all(name) {
            self.separate();
            self.0.extend_from_slice(line.as_bytes());
        }
    }

    fn separate(&mut self) {
        if !self.0.is_empty() {
            self.0.extend_from_slice(b", ");
        }
    }

    fn push_address(&mut self, address: IpAddr) {
        self.0.extend_from_slice(&AddressText::of(address));
    }

    fn push_display(&mut self, shown: impl std::fmt::Display) {
        let _ = write!(self, "{shown}");
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::message::rewrite::PathRewrite;

    fn out<'a>() -> Outgoing<'a> {
        static TARGET: HeaderValue = HeaderValue::from_static("10.0.0.7:8080");
        Outgoing {
            path: "/orders/1",
            query: None,
            captures: &[],
            host: "api.example.com",
            target_host: &TARGET,
            scheme: Scheme::Https,
            peer: IpAddr::from([192, 0, 2, 9]),
            client: IpAddr::from([192, 0, 2, 9]),
            peer_is_trusted: false,
            request_id: b"r-1",
            traceparent: b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            keep_tracestate: false,
            identity: &[],
            kept: None,
        }
    }

    fn strip() -> StripSet {
        let name = |text| HeaderName::from_static(text);
        StripSet::new(&[name("x-user-id"), name("x-user-role")], Some(&name("cf-connecting-ip")), &[name("x-internal-auth")])
    }

    fn head(target: &str, fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
        head.append_header("host", "api.example.com").unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    fn run(plan: &HeadPlan, out: &Outgoing<'_>, mut head: RequestHeader) -> RequestHeader {
        upstream_head(plan, &strip(), out, &mut head);
        head
    }

    fn all<'h>(head: &'h RequestHeader, name: &str) -> Vec<&'h str> {
        head.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn what_an_unknown_peer_says_of_the_client_is_replaced() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-port", "1"),
            ("forwarded", "for=1.1.1.1"),
            ("x-real-ip", "1.1.1.1"),
            ("cf-connecting-ip", "1.1.1.1"),
            ("x-request-id", "theirs"),
            ("x-request-id", "theirs too"),
            ("tracestate", "a=b"),
        ];
        let head = run(&HeadPlan::default(), &out(), head("/orders/1", &fields));
        assert_eq!(all(&head, "x-forwarded-for"), ["192.0.2.9"]);
        assert_eq!(all(&head, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&head, "x-forwarded-host"), ["api.example.com"]);
        assert_eq!(all(&head, "x-request-id"), ["r-1"]);
        assert_eq!(head.headers["traceparent"].as_bytes(), out().traceparent);
        for name in ["x-forwarded-port", "forwarded", "x-real-ip", "cf-connecting-ip", "tracestate"] {
            assert!(all(&head, name).is_empty(), "{name}");
        }
    }

    #[test]
    fn what_a_trusted_peer_says_is_continued() {
        let fields = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "shop.example"),
            ("cf-connecting-ip", "1.1.1.1"),
            ("tracestate", "a=b"),
        ];
        let out = Outgoing { peer_is_trusted: true, keep_tracestate: true, ..out() };
        let head = run(&HeadPlan::default(), &out, head("/orders/1", &fields));
        assert_eq!(all(&head, "x-forwarded-for"), ["1.1.1.1, 2.2.2.2, 192.0.2.9"]);
        assert_eq!(all(&head, "x-forwarded-proto"), ["http"]);
        assert_eq!(all(&head, "x-forwarded-host"), ["shop.example"]);
        assert_eq!(all(&head, "cf-connecting-ip"), ["1.1.1.1"]);
        assert_eq!(all(&head, "tracestate"), ["a=b"]);
    }

    #[test]
    fn what_a_trusted_peer_says_twice_or_wrongly_is_replaced() {
        let fields = [("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a"), ("x-forwarded-host", "b")];
        let head = run(&HeadPlan::default(), &Outgoing { peer_is_trusted: true, ..out() }, head("/orders/1", &fields));
        assert_eq!(all(&head, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&head, "x-forwarded-host"), ["api.example.com"]);
    }

    #[test]
    fn forwarded_is_written_where_the_operator_uses_it() {
        let plan = HeadPlan { told_by: Told::Forwarded, ..HeadPlan::default() };
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let v6 = Outgoing { peer: v6, client: IpAddr::from([1, 1, 1, 1]), peer_is_trusted: true, ..out() };
        let fields = [("forwarded", "for=1.1.1.1")];
        let told = run(&plan, &v6, head("/orders/1", &fields));
        assert_eq!(all(&told, "forwarded"), ["for=1.1.1.1, for=\"[2001:db8::1]\";host=\"api.example.com\";proto=https"]);
        let untold = run(&plan, &out(), head("/orders/1", &fields));
        assert_eq!(all(&untold, "forwarded"), ["for=192.0.2.9;host=\"api.example.com\";proto=https"]);
        let mapped = Outgoing { peer: "::ffff:192.0.2.9".parse().unwrap(), ..out() };
        assert_eq!(all(&run(&plan, &mapped, head("/orders/1", &[])), "x-forwarded-for"), ["192.0.2.9"]);
    }

    #[test]
    fn what_nobody_is_asked_for_is_not_continued_even_where_the_peer_is_trusted() {
        let fields = [
            ("x-forwarded-for", "8.8.8.8"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "for=203.0.113.5;proto=https"),
            ("cf-connecting-ip", "203.0.113.5"),
        ];
        for told_by in [Told::Forwarded, Told::Another] {
            let plan = HeadPlan { told_by, ..HeadPlan::default() };
            let out = Outgoing { peer_is_trusted: true, client: IpAddr::from([203, 0, 113, 5]), ..out() };
            let head = run(&plan, &out, head("/orders/1", &fields));
            assert_eq!(all(&head, "x-forwarded-for"), ["203.0.113.5, 192.0.2.9"]);
            assert_eq!(all(&head, "x-forwarded-proto"), ["https"]);
            assert_eq!(all(&head, "x-forwarded-host"), ["api.example.com"]);
            assert_eq!(all(&head, "forwarded").len(), usize::from(told_by == Told::Forwarded));
        }
    }

    #[test]
    fn identity_headers_are_the_gateways_own_in_every_spelling() {
        let fields = [
            ("x-user-id", "forged"),
            ("X-User-Id", "forged"),
            ("x_user_id", "forged"),
            ("X-USER_ROLE", "admin"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x_internal-auth", "forged"),
            ("x_harmless_name", "kept"),
        ];
        let public = run(&HeadPlan::default(), &out(), head("/orders/1", &fields));
        for name in ["x-user-id", "x_user_id", "x-user_role", "x_forwarded_for", "x_internal-auth"] {
            assert!(all(&public, name).is_empty(), "{name}");
        }
        assert_eq!(all(&public, "x_harmless_name"), ["kept"]);
        let identity = [(HeaderName::from_static("x-user-id"), HeaderValue::from_static("u1"))];
        let known = run(&HeadPlan::default(), &Outgoing { identity: &identity, ..out() }, head("/orders/1", &fields));
        assert_eq!(all(&known, "x-user-id"), ["u1"]);
    }

    #[test]
    fn a_credential_stays_here_and_one_of_another_route_passes() {
        let plan = HeadPlan { credentials: vec![header::AUTHORIZATION], ..HeadPlan::default() };
        let fields = [("authorization", "Bearer x"), ("authorization", "Basic y"), ("x-api-key", "k")];
        let head = run(&plan, &out(), head("/orders/1", &fields));
        assert!(all(&head, "authorization").is_empty());
        assert_eq!(all(&head, "x-api-key"), ["k"]);
    }

    #[test]
    fn the_canonical_target_goes_upstream_with_the_rewrite() {
        let strip = Rewrite { path: PathRewrite::Prefix { from: "/orders".into(), to: "".into() }, host: HostRewrite::Upstream };
        let plan = HeadPlan { rewrite: Some(strip), ..HeadPlan::default() };
        for (plan, query, came, expected) in [
            (&HeadPlan::default(), None, "/orders/1", "/orders/1"),
            (&HeadPlan::default(), None, "/%6frders/1", "/orders/1"),
            (&HeadPlan::default(), None, "/orders/1?key=secret", "/orders/1"),
            (&HeadPlan::default(), Some("a=1"), "/orders/1?a=1&key=secret", "/orders/1?a=1"),
            (&HeadPlan::default(), Some("a=1"), "/orders/1?a=1", "/orders/1?a=1"),
            (&HeadPlan::default(), Some(""), "/orders/1?", "/orders/1?"),
            (&HeadPlan::default(), None, "http://evil.example/orders/1", "/orders/1"),
            (&plan, Some("a=/x"), "/orders/1?a=/x", "/1?a=/x"),
        ] {
            let head = run(plan, &Outgoing { query, ..out() }, head(came, &[]));
            assert_eq!(std::str::from_utf8(head.raw_path()).unwrap(), expected, "{came}");
        }
        assert_eq!(all(&run(&plan, &out(), head("/orders/1", &[])), "host"), ["10.0.0.7:8080"]);
        assert_eq!(all(&run(&HeadPlan::default(), &out(), head("/orders/1", &[("host", "b")])), "host"), ["api.example.com"]);
    }

    #[test]
    fn a_path_that_a_rewrite_made_too_long_reaches_nothing() {
        let long = Rewrite {
            path: PathRewrite::Prefix { from: "".into(), to: format!("/{}", "a".repeat(70_000)).into() },
            host: HostRewrite::Preserve,
        };
        let plan = HeadPlan { rewrite: Some(long), ..HeadPlan::default() };
        assert_eq!(run(&plan, &out(), head("/orders/1", &[])).raw_path(), b"*");
    }

    #[test]
    fn a_request_that_names_no_host_names_its_target() {
        let mut old = RequestHeader::build("GET", b"/orders/1", None).unwrap();
        upstream_head(&HeadPlan::default(), &strip(), &Outgoing { host: "", ..out() }, &mut old);
        assert_eq!((all(&old, "host"), all(&old, "x-forwarded-host").len()), (vec!["10.0.0.7:8080"], 0));
    }

    #[test]
    fn what_the_route_says_comes_last() {
        let name = |text| HeaderName::from_static(text);
        let mut edits = HeaderEdits::default();
        edits.set.push((name("x-internal-auth"), HeaderValue::from_static("hush")));
        edits.remove.push(name("x-debug"));
        edits.remove.push(X_FORWARDED_HOST);
        let plan = HeadPlan { edits, ..HeadPlan::default() };
        let head = run(&plan, &out(), head("/orders/1", &[("x-internal-auth", "forged"), ("x-debug", "1")]));
        assert_eq!(all(&head, "x-internal-auth"), ["hush"]);
        assert!(all(&head, "x-debug").is_empty() && all(&head, "x-forwarded-host").is_empty());
    }
}
