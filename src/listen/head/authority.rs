//! Decides whether a target that is no path is an http URL, and which host and port it names.

use super::{HOST_INVALID, TARGET_REFUSED};
use crate::reply::problem::Kind;

/// Host and port of `http://host:port/path`; every other form of target is refused (RFC 9112 section 3.2).
pub(super) fn authority(target: &[u8]) -> Result<&[u8], &'static Kind> {
    let after = |scheme: &[u8]| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    };
    let rest = after(b"http://").or_else(|| after(b"https://")).ok_or(&TARGET_REFUSED)?;
    let end = rest.iter().position(|&byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let authority = &rest[..end];
    // The type that Pingora parses it into; it allows user information, which RFC 9110 section 4.2.4 has us refuse.
    if authority.contains(&b'@') || http::uri::Authority::try_from(authority).is_err() {
        return Err(&HOST_INVALID);
    }
    Ok(authority)
}
