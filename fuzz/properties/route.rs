//! Lines, method, host, target and then headers: `choose` and `candidates` of `entry/route.rs` agree, captures put into the pattern
//! give the path back, and each method in the `Allow` of a 405 finds a route.

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ALLOW};
use http::{HeaderMap, Method, Request};
use sluice::config::plan::Route;
use sluice::entry::canonical::{Target, canonicalise};
use sluice::entry::route::pattern::{Capture, Segment};
use sluice::entry::route::{Captures, Choice};

pub fn hold(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let (Some(method), Some(host), Some(raw)) = (lines.next(), lines.next(), lines.next()) else { return };
    let Ok(request) = Request::builder().method(method).header("host", host).body(()) else { return };
    let (head, ()) = request.into_parts();
    let Ok(target) = canonicalise(&head, raw) else { return };
    ask(&head.method, &target, &super::headers(lines));
}

fn ask(method: &Method, target: &Target, headers: &HeaderMap) {
    let gateway = &*super::GATEWAY;
    let table = &gateway.listeners[0].table;
    let choose = |method: &Method| table.choose(method, target.host(), target.path(), target.query(), headers);
    let lost = table.candidates(method, target.host(), target.path(), target.query(), headers);
    for (at, one) in lost.iter().enumerate() {
        assert!(one.index < gateway.routes.len() && !one.lost_because.is_empty());
        assert!(lost[..at].iter().all(|other| other.index != one.index), "a route is told twice");
    }
    match choose(method) {
        Choice::Route { index, captures } => {
            assert!(lost.iter().all(|lost| lost.index != index), "the route that was chosen is among those that lost");
            fits(&gateway.routes[index], &captures, target.path());
        }
        Choice::MethodNotAllowed { allow } => {
            assert!(lost.iter().any(|lost| lost.lost_because.starts_with("it takes ")), "{lost:?}");
            if headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
                return;
            }
            let value = allow.to_header_value();
            for name in value.to_str().expect("methods are text").split(", ") {
                let method = Method::from_bytes(name.as_bytes()).expect("a method");
                assert!(matches!(choose(&method), Choice::Route { .. }), "{ALLOW} has {name}, which finds no route");
            }
        }
        Choice::NotFound => assert!(target.path() == "*", "{} takes every path, but not {}", gateway.routes[0].name, target.path()),
    }
}

fn fits(route: &Route, captures: &Captures, path: &str) {
    let mut names = 0;
    let mut pieces: Vec<String> = Vec::new();
    for segment in route.pattern.segments() {
        pieces.push(match segment {
            Segment::Literal(text) => text.clone(),
            Segment::Name(_) => {
                let text = captures.get(Capture::Name(names), path).expect("a name has text");
                assert!(!text.is_empty() && !text.contains('/'), "{text:?} is not one segment");
                names += 1;
                text.to_owned()
            }
        });
    }
    assert_eq!(captures.names.len(), names);
    let mut built = format!("/{}", pieces.join("/"));
    assert_eq!(captures.rest.is_some(), route.pattern.has_rest());
    if let Some(rest) = captures.get(Capture::Rest, path) {
        // `/a/**` takes `/a`, `/a/` and all below.
        if !built.ends_with('/') && path.len() > built.len() {
            built.push('/');
        }
        built.push_str(rest);
    }
    assert_eq!(built, path, "{}", route.pattern.as_str());
}
