//! Decides which headers a client may not send on, in whatever spelling.
//!
//! Many servers read `x_user_id` as `X-User-Id` (CGI folds both to `HTTP_X_USER_ID`), so names are compared with `_` read as `-`.
//! Does not decide what the gateway puts in their place: see `head.rs`.

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

/// Names compiled once for all routes.
#[derive(Clone, Debug)]
pub struct StripSet {
    /// Sorted by folded name.
    names: Box<[(Box<str>, Strip)]>,
    /// Per first letter, one bit per length: most headers of a request are cleared by one look at this.
    filter: Box<[u64; 32]>,
}

/// When a name is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Strip {
    /// In every spelling but its own, in which the gateway sets it itself.
    Misspelt,
    /// Also in its own unless the peer is trusted.
    Untrusted,
    /// In all of them.
    Always,
}

/// What the gateway writes itself on every request.
const WRITTEN: [&str; 6] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "traceparent", "tracestate"];

/// What proxies say of clients and only trusted ones may.
const TOLD: [&str; 6] = ["forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-server", "x-forwarded-prefix", "x-forwarded-ssl"];

/// What HTTP and browsers have clients say of a request (RFC 9110, 9111, 6265, 6454; Fetch): a route may set it, and clients of other
/// routes go on sending it.
const CLIENTS: &[&str] = &[
    "accept",
    "authorization",
    "cache-control",
    "cookie",
    "date",
    "dnt",
    "from",
    "idempotency-key",
    "last-event-id",
    "max-forwards",
    "origin",
    "pragma",
    "prefer",
    "priority",
    "range",
    "referer",
    "save-data",
    "upgrade-insecure-requests",
    "user-agent",
    "via",
    "x-requested-with",
];

/// Likewise, by how they begin.
const CLIENTS_FAMILIES: &[&str] = &["accept-", "access-control-", "content-", "if-", "sec-"];

// === impl StripSet ===

impl StripSet {
    /// `identity`: every header in any `forward` of any authenticator. `client`: the header of `clients.header`, unless it is one of
    /// the usual. `set`: every header that any route's `request_headers.set` has.
    pub fn new(identity: &[HeaderName], client: Option<&HeaderName>, set: &[HeaderName]) -> StripSet {
        let mut names: Vec<(Box<str>, Strip)> = Vec::new();
        names.extend(identity.iter().map(|name| (fold(name.as_str()), Strip::Always)));
        names.extend(TOLD.iter().chain(client.map(HeaderName::as_str).as_ref()).map(|name| (fold(name), Strip::Untrusted)));
        names.extend(WRITTEN.iter().map(|name| (fold(name), Strip::Misspelt)));
        // What one route sets, such as an internal secret, upstreams take for the gateway's word on every route. Not so what HTTP itself
        // has clients say: there the route that sets it replaces it, and in no other spelling may it be sent.
        let is_clients = |name: &str| {
            let name = &*fold(name);
            let of = |list: &[&str]| list.contains(&name);
            of(&WRITTEN) || of(&TOLD) || of(CLIENTS) || CLIENTS_FAMILIES.iter().any(|family| name.starts_with(family))
        };
        let strength = |name: &str| if is_clients(name) { Strip::Misspelt } else { Strip::Always };
        names.extend(set.iter().map(|name| (fold(name.as_str()), strength(name.as_str()))));
        // Of two reasons the stronger stays.
        names.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        names.dedup_by(|later, first| later.0 == first.0);
        let mut filter = Box::new([0u64; 32]);
        for (name, _) in &names {
            let (slot, bit) = place(name);
            filter[slot] |= bit;
        }
        StripSet { names: names.into(), filter }
    }

    /// Removes from a head what its sender may not say.
    pub fn clean(&self, fields: &mut HeaderMap, peer_is_trusted: bool) {
        if !fields.keys().any(|name| self.forbids(name.as_str(), peer_is_trusted)) {
            return;
        }
        let forbidden: SmallVec<[HeaderName; 4]> =
            fields.keys().filter(|name| self.forbids(name.as_str(), peer_is_trusted)).cloned().collect();
        for name in &forbidden {
            fields.remove(name);
        }
    }

    /// `name` is lower case, as in every `HeaderName`.
    fn forbids(&self, name: &str, peer_is_trusted: bool) -> bool {
        let (slot, bit) = place(name);
        if self.filter[slot] & bit == 0 {
            return false;
        }
        let folded = |b: u8| if b == b'_' { b'-' } else { b };
        let Ok(index) = self.names.binary_search_by(|(known, _)| known.bytes().cmp(name.bytes().map(folded))) else { return false };
        let (known, strip) = &self.names[index];
        match strip {
            Strip::Always => true,
            Strip::Untrusted => !peer_is_trusted || **known != *name,
            Strip::Misspelt => **known != *name,
        }
    }
}

fn fold(name: &str) -> Box<str> {
    name.to_ascii_lowercase().replace('_', "-").into()
}

/// Where the filter keeps a name: its first letter (`_` and `-` alike) and its length.
fn place(name: &str) -> (usize, u64) {
    let first = match name.as_bytes().first() {
        Some(b'_') | None => b'-',
        Some(first) => *first,
    };
    (usize::from(first & 31), 1 << (name.len() & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> StripSet {
        let name = |text| HeaderName::from_static(text);
        StripSet::new(
            &[name("x-user-id"), name("x_tenant"), name("_odd")],
            Some(&name("cf-connecting-ip")),
            &[name("x-secret"), name("x_plain"), name("accept-language")],
        )
    }

    #[test]
    fn every_spelling_of_an_identity_header_is_forbidden() {
        for name in ["x-user-id", "x_user_id", "x-user_id", "x_tenant", "x-tenant", "_odd", "-odd"] {
            assert!(set().forbids(name, false), "{name}");
            assert!(set().forbids(name, true), "{name}");
        }
    }

    #[test]
    fn what_trusted_peers_say_is_theirs_to_say_in_one_spelling() {
        for name in ["cf-connecting-ip", "forwarded", "x-real-ip"] {
            assert!(set().forbids(name, false), "{name}");
            assert!(!set().forbids(name, true), "{name}");
        }
        assert!(set().forbids("cf_connecting_ip", true));
        assert!(set().forbids("x_real-ip", true));
    }

    #[test]
    fn what_the_gateway_writes_itself_is_forbidden_where_misspelt() {
        for (name, forbidden) in [
            ("x-forwarded-for", false),
            ("x_forwarded_for", true),
            ("x_request_id", true),
            ("x-secret", true),
            ("x_secret", true),
            ("accept-language", false),
            ("accept_language", true),
            ("x_plain", true),
            ("x-plain", true),
        ] {
            assert_eq!(set().forbids(name, false), forbidden, "{name}");
        }
    }

    #[test]
    fn other_headers_pass_with_underscores_too() {
        for name in ["accept", "user-agent", "x_custom", "x-user-ie", "x-users-id", "_", "content-type", "cookie"] {
            assert!(!set().forbids(name, false), "{name}");
        }
    }

    #[test]
    fn the_stronger_of_two_reasons_holds() {
        let both = [HeaderName::from_static("x-forwarded-for")];
        assert!(StripSet::new(&both, None, &both).forbids("x-forwarded-for", true));
    }
}
