//! From a request head to a route: request id, trace context, client address, canonical form, route. In this order.
//!
//! No socket is needed: [`identify`] and [`locate`] are functions of configuration and head. Between them the caller charges the
//! listener's limits, which need the client's address but no route.

pub mod canonical;
pub mod client_ip;
pub mod query;
pub mod request_id;
pub mod route;
pub mod trace_context;

use http::header::ALLOW;
use http::request::Parts;

use self::canonical::SpellingSet;
use self::client_ip::Clients;
use self::request_id::RequestId;
use self::route::{Choice, Table};
use self::trace_context::TraceContext;
use crate::ctx::{AsSent, Facts};
use crate::reply::problem::{Kind, Problem};

pub static ROUTE_NOT_FOUND: Kind = Kind {
    code: "route-not-found",
    status: 404,
    error: "Not found",
    about: "No route of this listener takes the request. `sluice explain` tells which routes were near and why they did not take it.",
};

pub static METHOD_NOT_ALLOWED: Kind = Kind {
    code: "method-not-allowed",
    status: 405,
    error: "Method not allowed",
    about: "Routes take this host and path, but not by this method. `Allow` lists the methods that they take.",
};

/// What this chapter can refuse, beside [`canonical::KINDS`].
pub static KINDS: &[&Kind] = &[&ROUTE_NOT_FOUND, &METHOD_NOT_ALLOWED];

/// Fills in request id, trace, client address and scheme. Refuses nothing.
pub fn identify(clients: &Clients, head: &Parts, facts: &mut Facts) {
    let client = clients.find(facts.peer, &head.headers);
    facts.request_id = RequestId::decide(client.peer_is_trusted, &head.headers);
    facts.trace = TraceContext::decide(&head.headers);
    facts.client = client.address;
    facts.peer_is_trusted = client.peer_is_trusted;
    facts.scheme = client.scheme.unwrap_or(facts.scheme);
}

/// Fills in the canonical target, the route and its captures, or says why there is none.
///
/// `accept_of` gives the spellings that a route (by its index in the snapshot) opts in to. `raw_target` is the request target
/// as it was sent, see [`canonical::canonicalise`] and [`canonical::raw_target`]. The target is filled in whenever it has a
/// canonical form, also where the request is refused.
pub fn locate(
    table: &Table,
    accept_of: impl Fn(usize) -> SpellingSet,
    head: &Parts,
    raw_target: &[u8],
    facts: &mut Facts,
) -> Result<(), Box<Problem>> {
    facts.target = canonical::canonicalise(head, raw_target).inspect_err(|_| facts.as_sent = Some(Box::new(as_sent(head, raw_target))))?;
    let target = &facts.target;
    match table.choose(&head.method, target.host(), target.path(), target.query(), &head.headers) {
        Choice::Route { index, captures } => {
            facts.route = Some(index);
            facts.rest = captures.rest;
            facts.captures = captures;
            canonical::admit(target, accept_of(index))
        }
        Choice::MethodNotAllowed { allow } => {
            // Before the 405: what has two readings may be another path to the next server.
            canonical::admit(target, SpellingSet::default())?;
            Err(Box::new(Problem::new(&METHOD_NOT_ALLOWED).header(ALLOW, allow.to_header_value())))
        }
        Choice::NotFound => {
            canonical::admit(target, SpellingSet::default())?;
            Err(Box::new(Problem::new(&ROUTE_NOT_FOUND)))
        }
    }
}

/// Who asks for what, of a request that is refused before it is read; for the log and the answer.
pub fn note_unread(clients: &Clients, head: &Parts, raw_target: &[u8], facts: &mut Facts) {
    identify(clients, head, facts);
    facts.as_sent = Some(Box::new(as_sent(head, raw_target)));
}

fn as_sent(head: &Parts, raw_target: &[u8]) -> AsSent {
    let until = |text: &[u8], end: u8| memchr::memchr(end, text).unwrap_or(text.len());
    // A name and a password may stand before a host (RFC 3986 section 3.2.1).
    let bare = |authority: &[u8]| authority[memchr::memrchr(b'@', authority).map_or(0, |at| at + 1)..].into();
    let target = &raw_target[..until(raw_target, b'?')];
    let (authority, path) = match memchr::memmem::find(target, b"://") {
        Some(at) if !target.starts_with(b"/") => {
            let rest = &target[at + 3..];
            let (authority, path) = rest.split_at(until(rest, b'/'));
            (Some(authority), path)
        }
        Some(_) | None => (None, target),
    };
    let host = authority.or_else(|| head.headers.get(http::header::HOST).map(|host| host.as_bytes()));
    AsSent { host: host.map(bare).unwrap_or_default(), path: path.into() }
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of this chapter share.

    use std::sync::Arc;

    use crate::config::diagnostic::{Place, Source};
    use crate::config::types::At;

    /// A small generator (xorshift64*): the same numbers in every run.
    pub struct Prng(u64);

    impl Prng {
        pub fn new(seed: u64) -> Self {
            Prng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        pub fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
        }

        pub fn below(&mut self, end: usize) -> usize {
            self.next() as usize % end
        }

        pub fn chance(&mut self, of_ten: usize) -> bool {
            self.below(10) < of_ten
        }
    }

    /// A place in no file.
    pub fn place(line: u32) -> Place {
        let source = Arc::new(Source::new("test.yaml", ""));
        Place { source, line, column: 1, width: 1 }
    }

    pub fn at<T>(value: T) -> At<T> {
        At { value, place: place(1) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use http::{HeaderValue, Request};

    use super::canonical::Spelling;
    use super::client_ip::ClientsSettings;
    use super::route::pattern::Capture;
    use super::route::{MatchSettings, RouteMatch};
    use super::testing::{at, place};
    use super::*;
    use crate::ctx::{Now, Scheme};
    use crate::policy::ip_filter::Network;

    fn facts() -> Facts {
        Facts::new(0, "10.0.0.1:999".parse().unwrap(), Scheme::Http, Now { mono: 0, unix_ms: 0 })
    }

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).header("host", "a.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn table(routes: &[(&str, &[&str])]) -> Table {
        let settings: Vec<MatchSettings> = routes
            .iter()
            .map(|(path, methods)| MatchSettings {
                hosts: None,
                path: at((*path).to_owned()),
                methods: (!methods.is_empty()).then(|| at(methods.iter().map(|method| at((*method).to_owned())).collect())),
                headers: BTreeMap::new(),
                query: BTreeMap::new(),
            })
            .collect();
        let routes: Vec<RouteMatch<'_>> =
            settings.iter().enumerate().map(|(index, settings)| RouteMatch { index, name: "r", place: place(1), settings }).collect();
        Table::compile(&routes).unwrap()
    }

    #[test]
    fn a_trusted_proxy_says_who_asks() {
        let network = Network("10.0.0.0/8".parse().unwrap());
        let settings = ClientsSettings { trusted_proxies: at(vec![at(network)]), header: None };
        let head = head("GET", &[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-proto", "https"), ("x-request-id", "its-own")]);
        let mut known = facts();
        identify(&Clients::compile(Some(&settings)).unwrap(), &head, &mut known);
        assert_eq!((known.client, known.scheme, known.peer_is_trusted), ("192.0.2.7".parse().unwrap(), Scheme::Https, true));
        assert_eq!(known.request_id.as_str(), "its-own");
        let mut known = facts();
        identify(&Clients::default(), &head, &mut known);
        assert_eq!((known.client, known.scheme, known.peer_is_trusted), ("10.0.0.1".parse().unwrap(), Scheme::Http, false));
        assert_ne!(known.request_id.as_str(), "its-own");
    }

    #[test]
    fn any_client_may_continue_a_trace() {
        let mut known = facts();
        identify(
            &Clients::default(),
            &head("GET", &[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]),
            &mut known,
        );
        assert_eq!(known.trace.trace_id().as_str(), "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn a_located_request_has_target_route_and_captures() {
        let table = table(&[("/x", &[]), ("/a/{id}/**", &[])]);
        let mut known = facts();
        locate(&table, |_| SpellingSet::default(), &head("GET", &[]), b"/%61/7/b/c?q", &mut known).unwrap();
        assert_eq!((known.route, known.target.path(), known.target.query()), (Some(1), "/a/7/b/c", Some("q")));
        assert_eq!(known.captures.get(Capture::Name(0), known.target.path()), Some("7"));
        assert_eq!(known.rest.map(|rest| &known.target.path()[rest..]), Some("b/c"));
    }

    #[test]
    fn what_no_route_takes_is_a_problem() {
        let table = table(&[("/a", &["GET"]), ("/a/**", &["POST"])]);
        let locate = |method: &str, target: &str| {
            let mut known = facts();
            let problem = locate(&table, |_| SpellingSet::default(), &head(method, &[]), target.as_bytes(), &mut known).unwrap_err();
            assert_eq!(known.route, None);
            (problem.kind.code, problem.kind.status, problem.headers.first().cloned())
        };
        assert_eq!(locate("GET", "/b"), ("route-not-found", 404, None));
        assert_eq!(locate("OPTIONS", "*"), ("route-not-found", 404, None));
        assert_eq!(locate("PUT", "/a"), ("method-not-allowed", 405, Some((ALLOW, HeaderValue::from_static("GET, HEAD, POST")))));
        assert_eq!(locate("PUT", "/a/b"), ("method-not-allowed", 405, Some((ALLOW, HeaderValue::from_static("POST")))));
    }

    #[test]
    fn a_spelling_is_refused_before_404_and_405_and_unless_its_route_opts_in() {
        let table = table(&[("/open/**", &[]), ("/shut/**", &[]), ("/post/**", &["POST"])]);
        let locate = |target: &str| {
            let accept = |index| if index == 0 { [Spelling::EncodedSlash].into_iter().collect() } else { SpellingSet::default() };
            let mut known = facts();
            let result = locate(&table, accept, &head("GET", &[]), target.as_bytes(), &mut known);
            assert_eq!(known.target.path(), target, "what was refused is known all the same");
            result.map_err(|problem| problem.kind.code)
        };
        assert_eq!(locate("/open/a%2Fb"), Ok(()));
        assert_eq!(locate("/open/a;b"), Err("path-semicolon"));
        assert_eq!(locate("/open/a%2Fb;c"), Err("path-semicolon"));
        assert_eq!(locate("/shut/a%2Fb"), Err("path-encoded-slash"));
        assert_eq!(locate("/post/a%2Fb"), Err("path-encoded-slash"));
        assert_eq!(locate("/none/a%2Fb"), Err("path-encoded-slash"));
    }
}
