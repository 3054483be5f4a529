//! Decides that a request that came plain goes no further on a route that wants `https://`: it is sent on there, or refused.
//!
//! Does not decide what is plain: behind a trusted proxy that is what it says, see `entry`. A listener that redirects whatever comes does so
//! before there is a route: see `listen/https.rs`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Policy, Request, Stop};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::ctx::{Facts, Scheme};
use crate::listen::https::ToHttps;
use crate::reply::problem::{Kind, Problem};

pub static HTTPS_REQUIRED: Kind = Kind {
    code: "https-required",
    status: 403,
    error: "Forbidden",
    about: "The request came plain, and the route's `https` wants it encrypted. What it carried, credentials too, could be read on the way.",
};

/// What becomes of requests that come plain.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpsSettings {
    /// `redirect`: 308 to the same URL with `https://`. `refuse`: 403, code `https-required`; better for APIs, whose clients would follow
    /// the redirect and send their credentials plain each time.
    pub plain: At<Plain>,
    /// The port of the URL that plain requests are sent to. Default 443.
    pub port: Option<At<u16>>,
}

/// What becomes of a request that came plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Plain {
    Redirect,
    Refuse,
}

/// The compiled policy: where plain requests are sent, or that they are refused.
#[derive(Clone, Copy, Debug)]
pub struct Https(Option<ToHttps>);

/// What is wrong with it by itself, wherever it is written.
pub fn check(settings: &At<HttpsSettings>, errors: &mut Vec<Diagnostic>) {
    let HttpsSettings { plain, port } = &settings.value;
    let Some(port) = port else { return };
    if port.value == 0 {
        errors.push(Diagnostic::at(&port.place, "out-of-range", "`0` is not a port: expected 1 to 65535, such as `443`"));
    }
    if plain.value == Plain::Refuse {
        errors.push(
            Diagnostic::at(&port.place, "inert", "`port` has no effect: plain requests are refused, not sent on")
                .help("remove it, or write `plain: redirect`"),
        );
    }
}

// === impl Https ===

impl Https {
    /// In a shadow nobody is sent anywhere: what is told there is that the request would have been stopped.
    pub fn compile(settings: &At<HttpsSettings>, is_shadowed: bool) -> Self {
        let HttpsSettings { plain, port } = &settings.value;
        match plain.value {
            Plain::Redirect if !is_shadowed => Https(Some(ToHttps(port.as_ref().map_or(443, |port| port.value)))),
            Plain::Redirect | Plain::Refuse => Https(None),
        }
    }
}

impl Policy for Https {
    async fn judge(&self, _: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        match (self.0, facts.scheme) {
            (Some(to), _) => to.judge(facts),
            (None, Scheme::Https) => Ok(()),
            (None, Scheme::Http) => Err(Problem::new(&HTTPS_REQUIRED).detail("This needs https.").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::canonical;
    use crate::policy::fixtures::{at, facts, head, judge, refusal};

    fn https(plain: Plain, port: Option<u16>, is_shadowed: bool) -> Https {
        Https::compile(&at(HttpsSettings { plain: at(plain), port: port.map(at) }), is_shadowed)
    }

    #[test]
    fn what_came_plain_is_sent_on_or_refused_and_the_rest_passes() {
        let head = head("POST /a%2fb?c=d", &[("host", "a.example:80")]);
        let mut plain = facts();
        plain.scheme = Scheme::Http;
        plain.target = canonical::canonicalise(&head, b"/a%2fb?c=d").unwrap();
        for (port, to) in [(None, "https://a.example/a%2Fb?c=d"), (Some(8443), "https://a.example:8443/a%2Fb?c=d")] {
            let policy = https(Plain::Redirect, port, false);
            let Err(Stop::Answer(answer)) = judge(&policy, &head, &mut plain) else { panic!("it is answered") };
            assert_eq!((answer.status, answer.headers[0].1.to_str().unwrap()), (308, to));
            assert!(judge(&policy, &head, &mut facts()).is_ok());
        }
        for policy in [https(Plain::Refuse, None, false), https(Plain::Redirect, None, true)] {
            assert_eq!(refusal(judge(&policy, &head, &mut plain)).kind.code, "https-required");
            assert!(judge(&policy, &head, &mut facts()).is_ok());
        }
    }
}
