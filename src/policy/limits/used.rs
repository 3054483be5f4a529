//! A limit where a route or a listener uses it: what names its buckets there, which may be the upstream that was chosen.
//!
//! Does not choose the upstream: see `relay/choice.rs`.

use std::sync::Arc;

use super::limit::Limit;
use crate::policy::principal::Identity;
use crate::policy::rate_limit::Per;
use crate::report::metrics::series::AtUpstream;

/// One of the limits of a route or a listener.
#[derive(Clone, Debug)]
pub struct Used {
    pub limit: Arc<Limit>,
    buckets: Named,
}

/// What names its buckets.
#[derive(Clone, Debug)]
enum Named {
    /// The limit, or the limit on the route.
    Once(u128),
    /// The limit at each upstream that the route may go to, as [`Facts::chosen`](crate::ctx::Facts::chosen) counts them.
    Upstreams(Box<[(u128, Arc<AtUpstream>)]>),
}

// === impl Used ===

impl Used {
    /// On a route, which goes to one of these upstreams. None: it goes to none, and there is nothing to count.
    pub fn on_route(limit: &Arc<Limit>, route: &str, upstreams: &[Arc<str>]) -> Option<Used> {
        let buckets = match limit.per() {
            Some(Per::Route) | None => Named::Once(limit.identity(Some(route))),
            Some(Per::Upstream) if upstreams.is_empty() => return None,
            Some(Per::Upstream) => {
                Named::Upstreams(upstreams.iter().map(|name| (limit.identity_at(name), limit.series().at(name))).collect())
            }
        };
        Some(Used { limit: limit.clone(), buckets })
    }

    /// Before there is a route.
    pub fn on_listener(limit: &Arc<Limit>) -> Used {
        Used { limit: limit.clone(), buckets: Named::Once(limit.identity(None)) }
    }

    /// Whether it counts this caller at all.
    #[inline]
    pub fn admits(&self, caller: Option<&Identity>) -> bool {
        self.limit.for_tags.admits(caller)
    }

    /// What names the buckets of a request that goes to the upstream that was `chosen`.
    #[inline]
    pub fn identity(&self, chosen: usize) -> u128 {
        match &self.buckets {
            Named::Once(identity) => *identity,
            Named::Upstreams(all) => all.get(chosen).or(all.first()).map_or(0, |(identity, _)| *identity),
        }
    }

    /// The upstream at which it counts, where it counts by that.
    pub fn at(&self, chosen: usize) -> Option<&Arc<AtUpstream>> {
        match &self.buckets {
            Named::Once(_) => None,
            Named::Upstreams(all) => all.get(chosen).or(all.first()).map(|(_, at)| at),
        }
    }
}
