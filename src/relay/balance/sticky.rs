//! Sticky sessions: a cookie that keeps a client at the target which it had first.
//!
//! Decides what the cookie says and when it is set. The value is a keyed digest of upstream and target: it names the target to this gateway
//! (and to others with the same secret) and says nothing to anybody else, and nobody can make the one of another target. Does not decide
//! whether the target works: where it does not, another is chosen, and the cookie set anew.

use std::fmt;

use aws_lc_rs::hmac::{Context, HMAC_SHA256, Key};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use pingora_http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::hash_by::cookie;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period, Secret};
use crate::ctx::Scheme;
use crate::relay::targets::target::Target;

/// A cookie that keeps clients where they are.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickySettings {
    /// Its name. Nothing else should set it.
    pub cookie: At<String>,
    /// What its values are signed with: at least 32 characters, such as `${file:/run/secrets/sticky}`. Gateways that share it keep clients
    /// together; with another one, every client is given a target anew.
    pub secret: At<Secret>,
    /// How long a browser keeps it after the last answer. Default: until it is closed.
    pub max_age: Option<At<Period>>,
    /// Whether it comes with requests that other sites make: `lax`, `strict` or `none`. Default `lax`.
    pub same_site: Option<At<SameSite>>,
    /// Whether it is sent over TLS only. Default: where the client came over TLS.
    pub secure: Option<At<bool>>,
}

/// With which requests of other sites a cookie comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// With those that follow a link.
    Lax,
    /// With none.
    Strict,
    /// With all. Browsers want `secure` for it.
    None,
}

/// The cookie, as it runs.
#[derive(Clone)]
pub struct Sticky {
    name: Box<str>,
    key: Key,
    /// What follows the value, but for `Secure`.
    attributes: Box<str>,
    /// None: as the client came.
    secure: Option<bool>,
    /// Whether it is set with each answer, so that it does not run out.
    is_renewed: bool,
}

/// Which target a client had, as its cookie says.
pub type Stuck = u128;

const SHORTEST_SECRET: usize = 32;

// === impl Sticky ===

impl Sticky {
    pub fn compile(settings: &StickySettings, wrong: &mut Vec<Diagnostic>) -> Sticky {
        let StickySettings { cookie, secret, max_age, same_site, secure } = settings;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if cookie.is_empty() || cookie.len() > 128 || !cookie.bytes().all(is_token) {
            let message = "not the name of a cookie: expected letters, digits, `-` and `_`, such as `orders-target`";
            wrong.push(Diagnostic::at(&cookie.place, "sticky", message));
        }
        if secret.reveal().len() < SHORTEST_SECRET {
            let message = format!("a secret of {} characters can be guessed: expected at least {SHORTEST_SECRET}", secret.reveal().len());
            wrong.push(Diagnostic::at(&secret.place, "sticky", message).help("make one with `openssl rand -hex 32`"));
        }
        let site = same_site.as_ref().map_or(SameSite::Lax, |site| site.value);
        let secure = secure.as_ref().map(|secure| secure.value);
        if let (SameSite::None, Some(at)) = (site, same_site.as_ref().filter(|_| secure != Some(true))) {
            let message = "browsers drop a cookie with `same_site: none` that is not `secure: true`";
            wrong.push(Diagnostic::at(&at.place, "sticky", message));
        }
        if let Some(age) = max_age.as_ref().filter(|age| age.value < Period::seconds(1)) {
            wrong.push(Diagnostic::at(&age.place, "out-of-range", format!("`{}` is out of range: expected at least 1s", age.value)));
        }
        let age = max_age.as_ref().map(|age| format!("; Max-Age={}", age.value.0.as_secs())).unwrap_or_default();
        let attributes = format!("; Path=/; HttpOnly; SameSite={site}{age}").into();
        let key = Key::new(HMAC_SHA256, secret.reveal().as_bytes());
        Sticky { name: cookie.value.as_str().into(), key, attributes, secure, is_renewed: max_age.is_some() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the client's cookie says, if it could be one of ours. Whether it is shows when a target has it.
    pub fn read(&self, headers: &HeaderMap) -> Option<Stuck> {
        let mut bytes = [0; 16];
        let length = BASE64.decode_slice_unchecked(cookie(headers, &self.name).filter(|value| value.len() == VALUE)?, &mut bytes).ok()?;
        (length == bytes.len()).then(|| Stuck::from_be_bytes(bytes))
    }

    /// What the cookie of a target says.
    pub fn of(&self, upstream: &str, target: &str) -> Stuck {
        let mut context = Context::with_key(&self.key);
        context.update(upstream.as_bytes());
        // Neither names nor addresses have it.
        context.update(&[0]);
        context.update(target.as_bytes());
        let tag = context.sign();
        tag.as_ref().iter().take(16).fold(0, |id, byte| id << 8 | Stuck::from(*byte))
    }

    /// Has the client come back to the target that has answered, unless it would anyway.
    pub fn keep(&self, target: &Target, had: Option<Stuck>, scheme: Scheme, head: &mut ResponseHeader) {
        let stuck = self.of(&target.upstream, &target.address.text);
        if had == Some(stuck) && !self.is_renewed {
            return;
        }
        let is_secure = self.secure.unwrap_or(scheme == Scheme::Https);
        let secure = if is_secure { "; Secure" } else { "" };
        let value = format!("{}={}{}{secure}", self.name, BASE64.encode(stuck.to_be_bytes()), self.attributes);
        if let Ok(mut value) = HeaderValue::from_str(&value) {
            value.set_sensitive(true);
            let _ = head.append_header(SET_COOKIE, value);
        }
    }
}

/// Characters of sixteen bytes in base64.
const VALUE: usize = 22;

impl PartialEq for Sticky {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

impl fmt::Debug for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sticky").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for SameSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::upstream::tests::at;
    use std::time::Duration;

    fn sticky(max_age: Option<u64>, secure: Option<bool>) -> Sticky {
        let settings = StickySettings {
            cookie: at("at".to_owned()),
            secret: at(Secret::new("0123456789abcdef0123456789abcdef")),
            max_age: max_age.map(|seconds| at(Period(Duration::from_secs(seconds)))),
            same_site: None,
            secure: secure.map(at),
        };
        let mut wrong = Vec::new();
        let sticky = Sticky::compile(&settings, &mut wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        sticky
    }

    fn target() -> Target {
        Target::new("orders".into(), crate::relay::targets::address::Address::parse("10.0.0.1:80").unwrap(), Default::default())
    }

    fn set(sticky: &Sticky, had: Option<Stuck>, scheme: Scheme) -> Option<String> {
        let mut head = ResponseHeader::build(200, None).unwrap();
        sticky.keep(&target(), had, scheme, &mut head);
        head.headers.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_cookie_says_nothing_of_the_target_and_is_read_back() {
        let sticky = sticky(None, None);
        let told = set(&sticky, None, Scheme::Http).unwrap();
        let (pair, attributes) = told.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax");
        assert!(!told.contains("10.0"));
        let mut headers = HeaderMap::new();
        headers.insert(http::header::COOKIE, format!("a=b; {pair}").parse().unwrap());
        let stuck = sticky.read(&headers);
        assert_eq!(stuck, Some(sticky.of("orders", "10.0.0.1:80")));
        assert_eq!(set(&sticky, stuck, Scheme::Http), None, "it has it already");
        assert_ne!(stuck, Some(sticky.of("billing", "10.0.0.1:80")));
        for other in ["at=", "at=10.0.0.1", "at=AAAA", "at=!!!!!!!!!!!!!!!!!!!!!!"] {
            headers.insert(http::header::COOKIE, other.parse().unwrap());
            assert_eq!(sticky.read(&headers), None, "{other}");
        }
    }

    #[test]
    fn it_is_secure_where_the_client_is_or_as_is_said_and_renewed_where_it_runs_out() {
        assert!(set(&sticky(None, None), None, Scheme::Https).unwrap().ends_with("; Secure"));
        assert!(!set(&sticky(None, Some(false)), None, Scheme::Https).unwrap().contains("Secure"));
        assert!(set(&sticky(None, Some(true)), None, Scheme::Http).unwrap().ends_with("; Secure"));
        let aging = sticky(Some(3600), None);
        let had = aging.of("orders", "10.0.0.1:80");
        assert!(set(&aging, Some(had), Scheme::Http).unwrap().contains("; Max-Age=3600"));
    }
}
