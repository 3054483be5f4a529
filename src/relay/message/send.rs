//! From the facts of a request to the head that goes upstream: the one place where the proxy and `explain` make it.
//!
//! Decides nothing itself: gathers what `head.rs` decides with.

use http::{HeaderValue, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use smallvec::SmallVec;

use super::head::{Outgoing, upstream_head};
use super::rewrite::cut_parameters;
use crate::config::plan::{Gateway, Relay, Route};
use crate::ctx::Facts;
use crate::decide::captures;
use crate::policy::Shadow;
use crate::relay::translate::grpc_web;
use crate::reply::grpc::Speech;

/// Changes `head` into what the target with this `Host` gets. `call`: how it speaks gRPC, where it does and its upstream may.
pub fn make_head(
    gateway: &Gateway,
    route: &Route,
    relay: &Relay,
    facts: &Facts,
    target_host: &HeaderValue,
    call: Option<Speech>,
    head: &mut RequestHeader,
) {
    let query = facts.target.query().and_then(|query| cut_parameters(query, &relay.cut));
    let needs_captures = relay.head.rewrite.as_ref().is_some_and(|rewrite| rewrite.needs_captures());
    let captures = if needs_captures { captures(route, facts) } else { SmallVec::new() };
    let identity = match &facts.identity {
        // A shadowed authenticator tells upstreams nothing: they would take it for enforced.
        Some(identity) if !route.policies.shadows(Shadow::Auth) => identity.headers.as_slice(),
        Some(_) | None => &[],
    };
    let traceparent = facts.trace.traceparent();
    let outgoing = Outgoing {
        path: facts.target.path(),
        query: query.as_deref(),
        captures: &captures,
        host: facts.target.authority(),
        target_host,
        scheme: facts.scheme,
        peer: facts.peer.ip(),
        client: facts.client,
        peer_is_trusted: facts.peer_is_trusted,
        request_id: facts.request_id.as_bytes(),
        traceparent: traceparent.as_bytes(),
        keep_tracestate: facts.trace.is_continued(),
        identity,
        kept: facts.identity.as_deref().and_then(|identity| route.policies.auth.kept(identity)),
    };
    upstream_head(&relay.head, &gateway.strip, &outgoing, head);
    if let Some(speech) = call {
        grpc_web::request_head(speech, head);
    }
}

/// Says the scheme of a request of HTTP/2 over TLS, which Pingora does not know of: as a URI, which it leaves as it is.
pub fn say_https(head: &mut RequestHeader) -> Result<()> {
    let host = head.remove_header(&header::HOST);
    let host = host.as_ref().map_or(&b""[..], |host| host.as_bytes());
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = http::Uri::builder().scheme("https").authority(host).path_and_query(path).build();
    head.set_uri(uri.map_err(|why| Error::because(ErrorType::InvalidHTTPHeader, "a host that no URI can have", why))?);
    Ok(())
}
