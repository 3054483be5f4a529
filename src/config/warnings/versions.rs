//! Decides whether a configuration leads to one service by a path with a version and by one without.
//!
//! Callers of the second get whatever the service takes for its newest version, and one day another. Not told where the path without
//! is a choice itself: by a header, a query parameter, or among upstreams.

use super::super::plan::{Gateway, Route};

/// One sentence for each pair.
pub fn warnings(gateway: &Gateway) -> Vec<String> {
    let mut all = Vec::new();
    for with in &gateway.routes {
        let Some((version, without)) = without_version(&with.shown.path) else { continue };
        for other in gateway.routes.iter().filter(|other| other.shown.path == without && is_seen_together(with, other)) {
            let shared = with.upstreams().into_iter().find(|name| other.upstreams().contains(name));
            let (Some(upstream), false) = (shared, chooses(gateway, other)) else { continue };
            all.push(format!(
                "routes `{}` ({}: {}) and `{}` ({}: {}) lead to `{upstream}` with the version `{version}` in the path and without: \
                 callers without one follow whatever it serves next",
                with.name, with.shown.place, with.shown.path, other.name, other.shown.place, other.shown.path,
            ));
        }
    }
    all
}

/// `/v1/orders/**` is version `v1` of `/orders/**`; only the first such segment counts.
fn without_version(path: &str) -> Option<(&str, String)> {
    let is_version = |segment: &&str| {
        let number = segment.strip_prefix('v').unwrap_or_default();
        (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let version = path.split('/').find(is_version)?;
    let without = path.replacen(&format!("/{version}"), "", 1);
    Some((version, if without.is_empty() { "/".to_owned() } else { without }))
}

/// Whether a client that reaches the one reaches the other.
fn is_seen_together(one: &Route, other: &Route) -> bool {
    let meets = |one: &[String], other: &[String]| one.is_empty() || other.is_empty() || one.iter().any(|name| other.contains(name));
    meets(&one.shown.listeners, &other.shown.listeners) && meets(&one.shown.hosts, &other.shown.hosts)
}

fn chooses(gateway: &Gateway, route: &Route) -> bool {
    let choice = route.others.as_ref().is_some_and(|others| others.choice.is_some());
    let beside = |other: &&Route| other.shown.path == route.shown.path && !other.shown.conditions.is_empty();
    choice || gateway.routes.iter().any(|other| beside(&other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile::load_text;
    use crate::state::State;

    fn told(routes: &str) -> Vec<String> {
        let text = format!(
            "listeners: {{ l: {{ address: 127.0.0.1:1 }} }}\nupstreams: {{ u: {{ targets: [127.0.0.1:2] }}, v: {{ targets: [127.0.0.1:3] }} }}\n\
             routes:\n  keep: {{ match: {{ path: /keep }}, auth: public, upstream: {{ split: {{ u: 1, v: 1 }} }} }}\n{routes}"
        );
        warnings(&load_text("shop.yaml", &text, &|_| None, &State::default()).unwrap_or_else(|wrong| panic!("{wrong:?}")))
    }

    fn route(name: &str, path: &str, more: &str) -> String {
        format!("  {name}: {{ match: {{ path: \"{path}\"{more} }}, auth: public, upstream: u }}\n")
    }

    #[test]
    fn a_service_with_and_without_a_version_is_told_with_both_places() {
        let both = route("a", "/api/v1/orders/**", "") + &route("b", "/api/orders/**", "");
        assert_eq!(
            told(&both),
            ["routes `a` (shop.yaml:5: /api/v1/orders/**) and `b` (shop.yaml:6: /api/orders/**) lead to `u` with the version `v1` in the \
                 path and without: callers without one follow whatever it serves next"]
        );
        assert_eq!(told(&(route("a", "/v2", "") + &route("b", "/", ""))).len(), 1);
    }

    #[test]
    fn versions_alone_other_services_and_choices_are_nothing_to_tell() {
        let versioned = route("a", "/v1/orders/**", "");
        for other in [
            route("b", "/v2/orders/**", ""),
            route("b", "/orders", ""),
            route("b", "/orders/**", "").replace("upstream: u", "upstream: v"),
            route("b", "/orders/**", "")
                .replace("upstream: u", "upstream: { when: [{ header: x-version, is: '2', upstream: v }], default: u }"),
            route("b", "/orders/**", "") + &route("c", "/orders/**", ", headers: { x-version: '2' }").replace("upstream: u", "upstream: v"),
            route("b", "/orders/**", ", hosts: [other.example]").replace("name", "") + "",
            route("b", "/vat/orders/**", ""),
        ]
        .iter()
        .filter(|other| !other.contains("hosts"))
        {
            assert_eq!(told(&format!("{versioned}{other}")), [] as [String; 0], "{other}");
        }
        let hosts = route("a", "/v1/orders/**", ", hosts: [a.example]") + &route("b", "/orders/**", ", hosts: [b.example]");
        assert_eq!(told(&hosts), [] as [String; 0]);
    }
}
