//! Decides that a plain request is sent on to `https://`, wherever it wanted to go. Does not decide what is plain: behind a trusted proxy
//! that is what it says, see `entry`.

use bytes::Bytes;
use http::{HeaderValue, header};

use super::head::HOST_MISSING;
use crate::ctx::{Facts, Scheme};
use crate::entry::canonical::Target;
use crate::policy::{Answer, Stop};
use crate::reply::problem::Problem;

/// The port of the URLs that plain requests are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToHttps(pub u16);

// === impl ToHttps ===

impl ToHttps {
    /// # Errors
    /// The redirect, where the request came plain.
    pub fn judge(self, facts: &Facts) -> Result<(), Stop> {
        match facts.scheme {
            Scheme::Https => Ok(()),
            Scheme::Http => Err(self.answer(&facts.target)),
        }
    }

    /// 308, so that the method and the body are sent again (RFC 9110 section 15.4.9).
    fn answer(self, target: &Target) -> Stop {
        if target.host().is_empty() {
            return Problem::new(&HOST_MISSING).into();
        }
        let port = if self.0 == 443 { String::new() } else { format!(":{}", self.0) };
        let query = target.query().map(|query| format!("?{query}")).unwrap_or_default();
        match HeaderValue::try_from(format!("https://{}{port}{}{query}", target.host(), target.path())) {
            Ok(to) => Stop::Answer(Box::new(Answer { status: 308, headers: vec![(header::LOCATION, to)], body: Bytes::new() })),
            Err(_) => Problem::new(&crate::relay::retry::INTERNAL_ERROR).into(),
        }
    }
}
