//! Decides whether single values make sense: ranges, lists that must not be empty, exactly one of several keys.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::{each_once, not_empty};
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::{Document, PolicySettings, RedirectSettings, RespondSettings};
use crate::config::types::{At, Period, Size};
use crate::listen::ListenerSettings;
use crate::listen::address::Address;
use crate::listen::http2::settings::Http2;
use crate::listen::protocols::Protocols;
use crate::policy::authn::AuthenticatorSettings;
use crate::relay::upstream::UpstreamSettings;

pub(super) fn check(document: &Document, errors: &mut Vec<Diagnostic>) {
    if let Some(server) = &document.server {
        range(&server.threads, 1..=1024, errors);
        range(&server.pool, 1..=100_000, errors);
        if let Some(memory) = server.limits_memory.as_ref().filter(|memory| memory.value < Size::mib(1)) {
            errors.push(out_of_range(memory, "at least 1MiB"));
        }
    }
    if let Some(clients) = &document.clients {
        not_empty(&clients.trusted_proxies, &clients.trusted_proxies.place, "networks, such as `[10.0.0.0/8]`", errors);
    }
    addresses(document, errors);
    document.listeners.iter().for_each(|(_, settings)| listener(settings, errors));
    document.authenticators.iter().for_each(|(name, settings)| authenticator(name, settings, errors));
    for burst in document.limits.iter().map(|(_, l)| &l.burst).chain(document.plans.iter().map(|(_, p)| &p.burst)) {
        range(burst, 1..=u32::MAX, errors);
    }
    for throttle in document.limits.iter().filter_map(|(_, limit)| limit.throttle.as_ref()) {
        range(&throttle.waiting, 1..=100_000, errors);
        if !(1..=60_000).contains(&throttle.wait.value.0.as_millis()) {
            errors.push(out_of_range(&throttle.wait, "from 1ms to 60s"));
        }
    }
    for (_, limit) in &document.limits {
        range(&limit.concurrent, 1..=1_000_000, errors);
    }
    document.upstreams.iter().for_each(|(_, settings)| upstream(settings, errors));
    document.bundles.iter().for_each(|(_, settings)| policies(settings, errors));
    document.defaults.iter().for_each(|defaults| policies(&defaults.policies, errors));
    for (_, route) in &document.routes {
        let matches = &route.own.matches;
        for (list, what) in [
            (&matches.hosts, "host names; without the key, any host"),
            (&matches.methods, "methods, such as `[GET, POST]`; without the key, any method"),
            (&route.own.listeners, "names of listeners"),
        ] {
            if let Some(list) = list {
                not_empty(list, &list.place, what, errors);
            }
        }
        matches.hosts.iter().chain(&matches.methods).for_each(|list| each_once(list, errors));
        if let Some(answer) = &route.own.respond {
            respond(answer, errors);
        }
        if let Some(RedirectSettings { to: _, status: Some(status) }) = route.own.redirect.as_ref().map(|at| &at.value)
            && !matches!(status.value, 301 | 302 | 303 | 307 | 308)
        {
            errors.push(out_of_range(status, "301, 302, 303, 307 or 308"));
        }
        policies(&route.policies, errors);
    }
}

fn out_of_range<T: Display>(value: &At<T>, expected: &str) -> Diagnostic {
    Diagnostic::at(&value.place, "out-of-range", format!("`{}` is out of range: expected {expected}", value.value))
}

fn range<T: PartialOrd + Display>(value: &Option<At<T>>, range: RangeInclusive<T>, errors: &mut Vec<Diagnostic>) {
    if let Some(value) = value.as_ref().filter(|value| !range.contains(&value.value)) {
        let end = range.end().to_string();
        // The largest number that fits is no limit that anybody set.
        let to = if end == u32::MAX.to_string() || end == u16::MAX.to_string() { String::new() } else { format!(" to {end}") };
        errors.push(out_of_range(value, &format!("a whole number from {}{to}", range.start())));
    }
}

/// A deadline of nothing would refuse everything.
fn some_time(period: &Option<At<Period>>, errors: &mut Vec<Diagnostic>) {
    if let Some(period) = period.as_ref().filter(|period| period.0.is_zero()) {
        errors.push(out_of_range(period, "more than nothing"));
    }
}

/// Tells unless exactly one of some keys is written, or at most one where none will do. `owner` has the keys.
pub fn one_of(owner: &str, place: &Place, keys: &[(&str, Option<&Place>)], none_will_do: bool, errors: &mut Vec<Diagnostic>) {
    let written: Vec<(&str, &Place)> = keys.iter().filter_map(|(key, place)| Some((*key, (*place)?))).collect();
    let names: Vec<String> = keys.iter().map(|(key, _)| format!("`{key}`")).collect();
    let all = match names.as_slice() {
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
        [] => return,
    };
    match written.as_slice() {
        [_] => {}
        [] if none_will_do => {}
        [] => errors.push(Diagnostic::at(place, "choose-one", format!("{owner} has none of {all}: expected exactly one"))),
        [(first, _), (second, place), ..] => {
            let expected = match (keys.len(), none_will_do) {
                (2, _) => "only one of them".to_owned(),
                (_, true) => format!("at most one of {all}"),
                (_, false) => format!("exactly one of {all}"),
            };
            errors.push(Diagnostic::at(place, "choose-one", format!("{owner} has `{first}` and `{second}`: expected {expected}")));
        }
    }
}

pub fn place_of<T>(value: &Option<At<T>>) -> Option<&Place> {
    value.as_ref().map(|at| &at.place)
}

fn addresses(document: &Document, errors: &mut Vec<Diagnostic>) {
    let ip = |address: &At<Address>| Some(At { value: address.ip()?, place: address.place.clone() });
    let listeners = document.listeners.iter().filter_map(|(name, listener)| Some((name.value.as_str(), ip(&listener.address)?)));
    let admin = document.admin.iter().map(|admin| ("admin", admin.address.clone()));
    let mut paths: Vec<(&str, Address)> = Vec::new();
    for (name, listener) in document.listeners.iter().filter(|(_, listener)| listener.address.is_unix()) {
        if let Some((other, _)) = paths.iter().find(|(_, path)| *path == listener.address.value) {
            let message = format!("`{}` is taken: `{other}` listens on it", listener.address.value);
            errors.push(Diagnostic::at(&listener.address.place, "address-taken", message));
        }
        paths.push((name.value.as_str(), listener.address.value));
    }
    let mut by_port: HashMap<u16, Vec<(&str, SocketAddr)>> = HashMap::new();
    // Port 0 is a new one each time.
    for (name, address) in listeners.chain(admin).filter(|(_, address)| address.port() != 0) {
        let taken = by_port.entry(address.port()).or_default();
        let overlaps = |other: &SocketAddr| {
            other.ip() == address.ip()
                || (other.is_ipv4() == address.is_ipv4() && (other.ip().is_unspecified() || address.ip().is_unspecified()))
        };
        if let Some((other, theirs)) = taken.iter().find(|(_, other)| overlaps(other)) {
            errors.push(Diagnostic::at(
                &address.place,
                "address-taken",
                format!("`{}` is taken: `{other}` listens on `{theirs}`", address.value),
            ));
        }
        taken.push((name, address.value));
    }
}

fn listener(settings: &ListenerSettings, errors: &mut Vec<Diagnostic>) {
    let ListenerSettings {
        address: _,
        mode: _,
        owner: _,
        group: _,
        limits: _,
        proxy_protocol: _,
        connections,
        deadlines,
        minimum_rates: _,
        heads,
        protocols,
        http2,
        tls: _,
        redirect_https: _,
    } = settings;
    if let Some(protocols) = protocols {
        Protocols::check(protocols, errors);
    }
    if let Some(http2) = http2 {
        Http2::check(http2, &http2.place, Protocols::compile(protocols.as_ref()).http2, errors);
    }
    if let Some(connections) = connections {
        range(&connections.max, 1..=u32::MAX, errors);
        range(&connections.per_address, 1..=u32::MAX, errors);
        if let (Some(max), Some(one)) = (&connections.max, &connections.per_address)
            && one.value > max.value
        {
            errors.push(Diagnostic::at(&one.place, "inert", format!("`{}` is never reached: `max` is {}", one.value, max.value)));
        }
    }
    if let Some(deadlines) = deadlines {
        [&deadlines.handshake, &deadlines.header, &deadlines.keep_alive, &deadlines.body, &deadlines.write]
            .into_iter()
            .for_each(|period| some_time(period, errors));
    }
    if let Some(heads) = heads {
        range(&heads.fields, 1..=200, errors);
        if let Some(bytes) = heads.bytes.as_ref().filter(|bytes| bytes.value < Size::kib(1)) {
            errors.push(out_of_range(bytes, "at least 1KiB"));
        }
    }
}

fn authenticator(name: &At<String>, settings: &AuthenticatorSettings, errors: &mut Vec<Diagnostic>) {
    let AuthenticatorSettings { jwt, introspection, api_key, client_certificate } = settings;
    let kinds = [
        ("jwt", jwt.as_ref().map(|_| &name.place)),
        ("introspection", introspection.as_ref().map(|_| &name.place)),
        ("api_key", api_key.as_ref().map(|_| &name.place)),
        ("client_certificate", client_certificate.as_ref().map(|_| &name.place)),
    ];
    one_of(&format!("`{}`", name.value), &name.place, &kinds, false, errors);
    if let Some(jwt) = jwt {
        not_empty(&jwt.audiences, &jwt.audiences.place, "values of `aud`", errors);
        not_empty(&jwt.algorithms, &jwt.algorithms.place, "algorithms, such as `[ES256]`", errors);
        let keys = &jwt.keys;
        let kinds = [
            ("file", place_of(&keys.file)),
            ("inline", place_of(&keys.inline)),
            ("secret", place_of(&keys.secret)),
            ("url", place_of(&keys.url)),
            ("discovery", place_of(&keys.discovery)),
        ];
        one_of("`keys`", &keys.place, &kinds, false, errors);
    }
    if let Some(api_key) = api_key {
        let kinds = [("header", place_of(&api_key.header)), ("query", place_of(&api_key.query))];
        one_of(&format!("the `api_key` of `{}`", name.value), &name.place, &kinds, false, errors);
        if let Some(format) = &api_key.format
            && let Some(length) = &format.length
        {
            let prefix = format.prefix.as_ref().map_or(0, |prefix| prefix.chars().count());
            if usize::from(length.value) <= prefix {
                errors.push(out_of_range(length, &format!("more than the {prefix} characters of the prefix")));
            }
        }
    }
}

fn upstream(settings: &UpstreamSettings, errors: &mut Vec<Diagnostic>) {
    let UpstreamSettings {
        targets,
        targets_from: _,
        protocol: _,
        http2: _,
        tls: _,
        proxy_protocol: _,
        pool: _,
        balance: _,
        hash_by: _,
        sticky: _,
        slow_start: _,
        health,
        outlier_detection: _,
        circuit_breaker: _,
        panic_threshold: _,
        max_requests: _,
        max_connections: _,
        queue: _,
        adaptive_concurrency: _,
        timeouts,
        retries,
    } = settings;
    if let Some(targets) = targets {
        not_empty(targets, &targets.place, "at least one target, such as `[127.0.0.1:3000]`", errors);
    }
    if let Some(health) = health {
        some_time(&health.every, errors);
        some_time(&health.every_when_out, errors);
        some_time(&health.timeout, errors);
        range(&health.unhealthy_after, 1..=u16::MAX, errors);
        range(&health.healthy_after, 1..=u16::MAX, errors);
    }
    if let Some(timeouts) = timeouts {
        [&timeouts.connect, &timeouts.response, &timeouts.idle, &timeouts.total].into_iter().for_each(|period| some_time(period, errors));
    }
    if let Some(attempts) = retries.as_ref().and_then(|retries| retries.attempts.as_ref())
        && !(1..=4).contains(&attempts.value)
    {
        errors.push(out_of_range(attempts, "a whole number from 1 to 4").help("the first attempt counts"));
    }
}

fn policies(policies: &PolicySettings, errors: &mut Vec<Diagnostic>) {
    errors.extend(policies.written().into_iter().flat_map(|written| written.mistakes));
}

fn respond(answer: &At<RespondSettings>, errors: &mut Vec<Diagnostic>) {
    let RespondSettings { status, code, body } = &answer.value;
    match status.value {
        300..=399 => {
            errors.push(
                out_of_range(status, "a status from 200 to 299 or from 400 to 599")
                    .help("`redirect: { to: ..., status: ... }` answers with a `Location`"),
            );
        }
        200..=599 => {}
        _ => errors.push(out_of_range(status, "a status from 200 to 299 or from 400 to 599")),
    }
    if let Some(code) = code {
        let good = code.starts_with(|c: char| c.is_ascii_lowercase())
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !good {
            errors.push(
                Diagnostic::at(&code.place, "bad-value", format!("`{}` is not a code: expected small letters, digits and `-`", code.value))
                    .help("such as `sold-out`"),
            );
        }
        if status.value < 400 {
            errors.push(Diagnostic::at(&code.place, "inert", format!("`code` has no effect: {} is not a refusal", status.value)));
        }
    }
    if let Some(body) = body
        && (status.value >= 400 || matches!(status.value, 204 | 205))
    {
        let why = if status.value >= 400 { "is answered with a problem document" } else { "has no body" };
        errors.push(Diagnostic::at(&body.place, "inert", format!("`body` has no effect: {} {why}", status.value)));
    }
}
