//! From the head of an upstream's answer to the head that the client gets: the one place where the proxy and `explain` make it.
//!
//! Decides nothing itself: gathers what `reply/headers.rs` decides with.

use http::{HeaderValue, header};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use crate::config::plan::{Relay, Route};
use crate::ctx::Facts;
use crate::policy::limits;
use crate::reply::headers::{Incoming, Limits, client_head};
use crate::reply::location::Way;

/// Changes `head`, which came from a target with this `Host`, into what the client gets. `beside`: where the limits stand is written by the
/// session, in lines behind those of the head, which costs a fraction of fields that are kept and found in it.
pub fn make_answer(route: &Route, relay: &Relay, facts: &Facts, target_host: &HeaderValue, beside: bool, head: &mut ResponseHeader) {
    let mut told: SmallVec<[_; 5]> = SmallVec::new();
    if !beside {
        limits::headers::headers(&facts.charges, &mut |name, value| told.push((name, value)));
    }
    let rewrite = relay.head.rewrite.as_ref();
    // Seldom there, and a head has few fields: looked at one by one, they need not be hashed.
    let has_location = head.headers.keys().any(|name| matches!(*name, header::LOCATION | header::CONTENT_LOCATION));
    let present = has_location.then(|| (relay.upstream.pool.present(), facts.target.authority()));
    let incoming = Incoming {
        scheme: facts.scheme,
        request_id: facts.request_id.as_bytes(),
        cors: &facts.cors,
        has_cors_policy: route.policies.cors.is_some(),
        limits: if beside { Limits::Beside } else { Limits::Here(&told) },
        location: present.as_ref().map(|(present, own)| Way {
            scheme: facts.scheme,
            host: own,
            targets: &present.targets,
            sent_host: rewrite.map_or(own, |rewrite| rewrite.sent_host(own, target_host.to_str().unwrap_or_default())),
            rewrite,
        }),
    };
    client_head(&route.response, &incoming, head);
}
