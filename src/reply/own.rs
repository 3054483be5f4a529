//! The head of an answer that the gateway makes itself. The one place for it: the proxy writes it, `explain` shows it.
//!
//! Decides which headers every such answer has. Does not decide what is answered.

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use pingora_core::Result;
use pingora_http::ResponseHeader;

use super::render::{PROBLEM_JSON, REQUEST_ID};
use crate::config::plan::Route;
use crate::ctx::Facts;
use crate::policy::limits;
use crate::relay::message::edits::{Head, with_response_fields};

/// The head of an answer of the gateway's own, but for what only the wire needs: its own headers, those of the policies that were
/// asked, the request id, and what the route does to all its answers.
///
/// # Errors
/// None that can be expected: all names and values are headers already.
pub fn own_head(status: u16, route: Option<&Route>, facts: &Facts, headers: &[(HeaderName, HeaderValue)]) -> Result<ResponseHeader> {
    let mut head = ResponseHeader::build_no_case(status, None)?;
    with_response_fields(&mut head, |fields| {
        fields.reserve(headers.len() + 12);
        for (name, value) in headers.iter().chain(&facts.cors) {
            fields.push(name, value.clone());
        }
        limits::headers::headers(&facts.charges, &mut |name, value| fields.put(&name, value));
        fields.put(&REQUEST_ID, facts.request_id.to_header_value());
        if let Some(route) = route {
            route.response.finish(fields, facts.scheme);
            // Whatever the route does to headers: a refusal stays readable as what it is.
            if let Some((name, value)) = headers.iter().find(|(name, value)| *name == CONTENT_TYPE && says_a_refusal(value)) {
                fields.put(name, value.clone());
            }
        }
    });
    Ok(head)
}

/// A problem document, or the head of a call of gRPC that failed; not what an operator wrote into `respond`.
fn says_a_refusal(content_type: &HeaderValue) -> bool {
    *content_type == PROBLEM_JSON || content_type.as_bytes().starts_with(b"application/grpc")
}
