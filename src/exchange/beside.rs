//! Where the limits stand, written behind the head of an upstream's answer: five fields less to be kept, found and dropped.
//!
//! Decides where that is possible. What is told is in `policy/limits/headers.rs`; the session writes it (`listen/session/writing.rs`).

use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::Ctx;
use crate::config::plan::Route;
use crate::policy::limits;

/// Tells it to the session. False: it belongs among the fields of this head, where something may be done with them yet.
pub fn tell(session: &Session, ctx: &Ctx, route: &Route, head: &ResponseHeader) -> bool {
    let Some(conn) = ctx.conn.as_ref().filter(|_| !ctx.facts.charges.is_empty()) else { return false };
    // HTTP/2 has no lines, an interim answer is another head, and what a route changes has to be there.
    if session.req_header().version == http::Version::HTTP_2 || head.status.is_informational() || route.response.edits_limits {
        return false;
    }
    let charges = &ctx.facts.charges;
    conn.tell_beside(|lines| lines.write(limits::headers::room(charges), |room| limits::headers::lines(charges, room)));
    true
}
