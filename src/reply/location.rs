//! Decides what `Location` and `Content-Location` of an upstream become for the client, who knows neither targets nor rewrites.
//!
//! Absolute paths and URLs of the upstream itself are translated; other sites, relative references and fragments stay.

use std::sync::Arc;

use crate::ctx::Scheme;
use crate::relay::message::rewrite::{HostRewrite, Rewrite};
use crate::relay::targets::address::Spot;
use crate::relay::targets::target::Target;

/// What leads from the upstream's view of its addresses to the client's.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The client's.
    pub scheme: Scheme,
    /// As the client named it, with the port if there was one.
    pub host: &'a str,
    /// Those of the upstream: any of them may name itself or another.
    pub targets: &'a [Arc<Target>],
    /// The `Host` that it was sent: the client's, its own, or a name of the route's.
    pub sent_host: &'a str,
    pub rewrite: Option<&'a Rewrite>,
}

// === impl Way ===

impl Way<'_> {
    /// RFC 9110 section 10.2.2. None: it stays as it is.
    pub fn translate(&self, location: &str) -> Option<String> {
        let (scheme, rest) = split_scheme(location);
        let Some(rest) = rest.strip_prefix("//") else {
            // `mailto:` and the like, or a path of the same site; a relative path needs no translation, its base has none.
            return if scheme.is_none() && location.starts_with('/') { self.public_path(location) } else { None };
        };
        if scheme.is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https")) {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if self.names_target(authority, scheme) || (self.renames_host() && same_host(authority, self.sent_host, scheme)) {
            let path = self.public_path(path);
            return Some([self.scheme.as_str(), "://", self.host, path.as_deref().unwrap_or(&rest[authority.len()..])].concat());
        }
        if same_host(authority, self.host, scheme) {
            // The scheme stays: a redirect from http to https must not lead back to http.
            let path = self.public_path(path)?;
            let until_path = location.len() - (rest.len() - authority.len());
            return Some([&location[..until_path], &path].concat());
        }
        None
    }

    /// As it is written, as its name was resolved, or by its host alone: many servers do not know the port that they are reached by.
    fn names_target(&self, authority: &str, scheme: Option<&str>) -> bool {
        let is_public = same_host(authority, self.host, scheme);
        self.targets.iter().any(|target| {
            let host = target.address.text.rsplit_once(':').map_or(&*target.address.text, |(host, _)| host);
            same_host(authority, &target.address.text, scheme)
                || (!is_public && authority.eq_ignore_ascii_case(host))
                || target.endpoints().iter().any(|endpoint| match endpoint.addr {
                    Spot::Ip(addr) => same_host(authority, &addr.to_string(), scheme),
                    Spot::Socket(_) => false,
                })
        })
    }

    fn public_path(&self, path: &str) -> Option<String> {
        self.rewrite?.public_path(path)
    }

    fn renames_host(&self) -> bool {
        self.rewrite.is_some_and(|rewrite| rewrite.host != HostRewrite::Preserve)
    }
}

/// The scheme without its colon, and what follows the colon.
fn split_scheme(location: &str) -> (Option<&str>, &str) {
    match location.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => (Some(scheme), rest),
        _ => (None, location),
    }
}

/// RFC 3986 section 3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// Whether two authorities name the same place; a port that is left out is the scheme's.
fn same_host(one: &str, other: &str, scheme: Option<&str>) -> bool {
    let default = if scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) { ":443" } else { ":80" };
    let bare = |authority: &str| authority.strip_suffix(default).unwrap_or(authority).len();
    one[..bare(one)].eq_ignore_ascii_case(&other[..bare(other)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    use crate::relay::message::rewrite::PathRewrite;
    use crate::relay::targets::address::Address;

    fn rewrite(from: &str, to: &str, host: HostRewrite) -> Rewrite {
        Rewrite { path: PathRewrite::Prefix { from: from.into(), to: to.into() }, host }
    }

    fn way<'a>(rewrite: Option<&'a Rewrite>, sent_host: &'a str) -> Way<'a> {
        static TARGETS: LazyLock<[Arc<Target>; 2]> = LazyLock::new(|| {
            let target = |text| Arc::new(Target::new("orders".into(), Address::parse(text).unwrap(), Arc::default()));
            let named = target("orders.internal:8080");
            named.replace_addresses(&["10.0.0.9".parse().unwrap()]);
            [named, target("10.0.0.7:8080")]
        });
        Way { scheme: Scheme::Https, host: "api.example.com", targets: &*TARGETS, sent_host, rewrite }
    }

    #[test]
    fn what_names_the_target_names_the_gateway() {
        for (location, expected) in [
            ("http://orders.internal:8080/x?q=1#f", Some("https://api.example.com/x?q=1#f")),
            ("HTTP://Orders.Internal:8080", Some("https://api.example.com")),
            ("//orders.internal:8080/x", Some("https://api.example.com/x")),
            ("http://orders.internal:8080?x", Some("https://api.example.com?x")),
            ("http://10.0.0.9:8080/x", Some("https://api.example.com/x")),
            ("http://10.0.0.7:8080/x", Some("https://api.example.com/x")),
            ("http://orders.internal/x", Some("https://api.example.com/x")),
            ("http://10.0.0.7/x", Some("https://api.example.com/x")),
            ("http://10.0.0.9:8081/x", None),
            ("http://orders.internal:8081/x", None),
            ("http://orders.internal:8080.evil.example/x", None),
            ("http://api.example.com/x", None),
            ("https://elsewhere.example/x", None),
            ("/x", None),
            ("x/y", None),
            ("?page=2", None),
            ("#top", None),
            ("", None),
            ("mailto:orders@orders.internal", None),
            ("ftp://orders.internal:8080/x", None),
            ("/x:y//orders.internal:8080", None),
        ] {
            assert_eq!(way(None, "api.example.com").translate(location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn what_was_cut_from_the_path_is_put_back() {
        let strip = rewrite("/api", "", HostRewrite::Preserve);
        for (location, expected) in [
            ("/orders/2", Some("/api/orders/2")),
            ("/", Some("/api")),
            ("/api/orders/2", None),
            ("http://orders.internal:8080/orders/2", Some("https://api.example.com/api/orders/2")),
            ("http://orders.internal:8080/api/orders/2", Some("https://api.example.com/api/orders/2")),
            ("http://api.example.com/orders/2", Some("http://api.example.com/api/orders/2")),
            ("https://api.example.com:443/orders/2?x=/y", Some("https://api.example.com:443/api/orders/2?x=/y")),
            ("//api.example.com/orders", Some("//api.example.com/api/orders")),
            ("https://elsewhere.example/orders", None),
            ("orders/2", None),
        ] {
            assert_eq!(way(Some(&strip), "api.example.com").translate(location).as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn a_prefix_that_was_replaced_is_replaced_back() {
        let swap = rewrite("/api", "/v2", HostRewrite::Preserve);
        assert_eq!(way(Some(&swap), "api.example.com").translate("/v2/x").as_deref(), Some("/api/x"));
        assert_eq!(way(Some(&swap), "api.example.com").translate("/login").as_deref(), None);
    }

    #[test]
    fn a_host_that_the_route_made_up_is_the_upstreams_own() {
        let renamed = Rewrite { path: PathRewrite::Keep, host: HostRewrite::Fixed(http::HeaderValue::from_static("inner.example")) };
        let way = way(Some(&renamed), "inner.example");
        assert_eq!(way.translate("http://inner.example/x").as_deref(), Some("https://api.example.com/x"));
        assert_eq!(way.translate("http://inner.example:80/x").as_deref(), Some("https://api.example.com/x"));
        assert_eq!(way.translate("http://inner.example:81/x").as_deref(), None);
    }
}
