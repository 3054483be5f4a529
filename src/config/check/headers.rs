//! Decides which header names may be written, and which headers a configuration may change.

use std::collections::{BTreeMap, HashMap};

use http::HeaderName;

use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::{Document, PolicySettings};
use crate::config::types::At;
use crate::policy::cors::CorsSettings;

/// What frames a message or belongs to one connection only (RFC 9110 section 7.6.1, RFC 9112 section 6) is the gateway's own business.
const UNTOUCHABLE: &[&str] =
    &["connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

pub(super) fn check(document: &Document, errors: &mut Vec<Diagnostic>) {
    if let Some(header) = document.clients.as_ref().and_then(|clients| clients.header.as_ref()) {
        changeable(header, &header.place, errors);
    }
    for (_, authenticator) in &document.authenticators {
        if let Some(jwt) = &authenticator.jwt {
            forward(&jwt.forward, errors);
        }
        if let Some(issuer) = &authenticator.introspection {
            forward(&issuer.forward, errors);
        }
        if let Some(api_key) = &authenticator.api_key {
            if let Some(header) = &api_key.header {
                changeable(header, &header.place, errors);
            }
            forward(&api_key.forward, errors);
        }
    }
    for (_, upstream) in &document.upstreams {
        if let Some(header) = upstream.timeouts.as_ref().and_then(|timeouts| timeouts.header.as_ref()) {
            changeable(header, &header.place, errors);
        }
    }
    for (_, bundle) in &document.bundles {
        policies(bundle, errors);
    }
    if let Some(defaults) = &document.defaults {
        policies(&defaults.policies, errors);
    }
    for (_, route) in &document.routes {
        for (name, value) in &route.own.matches.headers {
            valid(name, &value.place, errors);
        }
        policies(&route.policies, errors);
    }
}

fn policies(policies: &PolicySettings, errors: &mut Vec<Diagnostic>) {
    if let Some(headers) = &policies.request_headers {
        changes(&headers.place, &headers.set, &headers.add, &headers.remove, false, errors);
    }
    if let Some(headers) = &policies.response_headers {
        changes(&headers.place, &headers.set, &headers.add, &headers.remove, headers.security.is_some(), errors);
    }
    if let Some(cors) = &policies.cors {
        let CorsSettings { headers, expose, origins: _, methods: _, credentials: _, max_age: _ } = &cors.value;
        for name in headers.iter().chain(expose).filter(|name| name.value != "*") {
            valid(name, &name.place, errors);
        }
    }
}

fn forward(headers: &BTreeMap<String, At<String>>, errors: &mut Vec<Diagnostic>) {
    let mut seen = HashMap::new();
    for (name, value) in headers {
        if let Some(header) = changeable(name, &value.place, errors) {
            once(header, "forward", &value.place, &mut seen, errors);
        }
    }
}

fn changes(
    place: &Place,
    set: &BTreeMap<String, At<String>>,
    add: &BTreeMap<String, At<String>>,
    remove: &[At<String>],
    more: bool,
    errors: &mut Vec<Diagnostic>,
) {
    if set.is_empty() && add.is_empty() && remove.is_empty() && !more {
        errors.push(Diagnostic::at(place, "inert", "this changes nothing: expected at least one of `set`, `add` and `remove`"));
    }
    let mut seen = HashMap::new();
    let set = set.iter().map(|(name, value)| (name, "set", &value.place));
    let add = add.iter().map(|(name, value)| (name, "add", &value.place));
    let remove = remove.iter().map(|name| (&name.value, "remove", &name.place));
    for (name, list, place) in set.chain(add).chain(remove) {
        if let Some(header) = changeable(name, place, errors) {
            once(header, list, place, &mut seen, errors);
        }
    }
}

/// A header is changed in one way only: else the result would depend on an order that is not written.
fn once(header: HeaderName, list: &'static str, place: &Place, seen: &mut HashMap<HeaderName, &'static str>, errors: &mut Vec<Diagnostic>) {
    let name = header.as_str().to_owned();
    if let Some(first) = seen.insert(header, list) {
        let message = if first == list {
            format!("`{name}` stands in `{list}` twice")
        } else {
            format!("`{name}` stands in `{first}` and in `{list}`")
        };
        errors.push(
            Diagnostic::at(place, "header-twice", message)
                .help("header names are the same whatever their case; `set` also replaces what was there"),
        );
    }
}

/// Whether a configuration may write a header of this name.
pub fn changeable(name: &str, place: &Place, errors: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    let header = valid(name, place, errors)?;
    if UNTOUCHABLE.contains(&header.as_str()) {
        let error = Diagnostic::at(
            place,
            "header-forbidden",
            format!("`{name}` frames the message or belongs to one connection: the gateway alone writes it"),
        );
        errors.push(if header == http::header::HOST {
            error.help("`rewrite: { host: ... }` decides the host that the upstream sees")
        } else {
            error
        });
        return None;
    }
    Some(header)
}

/// RFC 9110 section 5.1.
pub fn valid(name: &str, place: &Place, errors: &mut Vec<Diagnostic>) -> Option<HeaderName> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok();
    // A `${` in a key is told where interpolation is.
    if header.is_none() && !name.contains("${") {
        let what = if name.is_empty() { "an empty text".to_owned() } else { format!("`{name}`") };
        errors.push(
            Diagnostic::at(place, "header-name", format!("{what} is not the name of a header"))
                .help("letters, digits and `-`, without blanks and without the colon"),
        );
    }
    header
}
