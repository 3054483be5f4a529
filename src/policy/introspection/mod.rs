//! Decides who bears a token that only its issuer can read: asks the issuer (RFC 7662), and remembers the answer for a while.
//!
//! Does not ask by itself: how questions are asked, and that many askers of one token are one question, is in `asking.rs`.

mod asking;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::asking::{Asking, Verdict};
use super::Stop;
use super::claimed::{ClaimedPlanSettings, ClaimedTagSettings};
use super::forward::Forward;
use super::jwt::kinds::{AUDIENCE, INACTIVE, ISSUER, MALFORMED};
use super::jwt::times::{Demand, TimeRules, Times};
use super::jwt::{Reading, Who, token};
use super::principal::Identity;
use super::token_memory::TokenMemory;
use crate::ask::{Kept, Way, written as ask};
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_beside;
use crate::config::types::{At, Period, Secret};
use crate::ctx::Now;
use crate::reply::problem::{Kind, Problem};

pub static INTROSPECTION_UNAVAILABLE: Kind = Kind {
    code: "introspection-unavailable",
    status: 503,
    error: "Service unavailable",
    about: "The token's issuer could not be asked about it, or has not answered in time, or too many questions are on their way. The token may be good. See `sluice_introspections_total` and the log.",
};

/// Tokens in `Authorization: Bearer` that their issuer is asked about (RFC 7662).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IntrospectionSettings {
    /// The URL of the issuer's introspection endpoint.
    pub url: At<String>,
    /// As whom the gateway asks.
    pub client_id: At<String>,
    /// Its secret, such as `${file:secret}`.
    pub client_secret: At<Secret>,
    /// The value that `iss` must have, where the answer has one.
    pub issuer: Option<At<String>>,
    /// Values of which the answer's `aud` must contain one; an answer without `aud` is refused. Default: any audience.
    pub audiences: Option<At<Vec<String>>>,
    /// How long the issuer may take. Default 1s, at most 10s.
    pub deadline: Option<At<Period>>,
    /// How long an answer is believed, if the token does not expire before: what the issuer revokes is accepted so long. Default 1m, at most 5m.
    pub remember: Option<At<Period>>,
    /// How long it is believed that a token is not active. Default 10s, at most 5m.
    pub remember_inactive: Option<At<Period>>,
    /// The member with the scopes: a name or a JSON Pointer. Default `scope`, else `scp`.
    pub scope_claim: Option<At<String>>,
    /// The member with the roles. Default `roles`.
    pub role_claim: Option<At<String>>,
    /// The plan of the token's user, as with `jwt`.
    pub plan: Option<At<ClaimedPlanSettings>>,
    /// Tags of the token's user, as with `jwt`.
    #[serde(default)]
    pub tags: BTreeMap<String, At<ClaimedTagSettings>>,
    /// Headers set for the upstream, each from a member of the answer. They are removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
    /// Whether the token itself goes to the upstream too. Default false.
    #[serde(default)]
    pub pass: bool,
    /// Allows plain http to another machine: tokens and the secret could be read on the way. Default false.
    pub plain_http: Option<At<bool>>,
    /// The proxy through which the issuer is reached, as `http://host:port`.
    pub proxy: Option<At<String>>,
    /// A file with the root certificates that are trusted instead of the system's, in PEM.
    pub ca: Option<At<String>>,
}

/// The compiled authenticator.
#[derive(Debug)]
pub struct Introspection {
    inner: Arc<Inner>,
    pass: bool,
    print: [u8; 32],
}

/// What a question needs when whoever asked it has gone.
#[derive(Debug)]
struct Inner {
    name: Arc<str>,
    issuer: Option<String>,
    audiences: Vec<String>,
    reading: Reading,
    remember: u64,
    memory: TokenMemory,
    asking: Asking,
    counts: Counts,
}

/// How often the issuer was asked and what it said.
#[derive(Debug, Default)]
pub struct Counts {
    pub remembered: AtomicU64,
    pub active: AtomicU64,
    pub inactive: AtomicU64,
    pub failed: AtomicU64,
    /// Not asked: too many questions were on their way.
    pub held_back: AtomicU64,
}

const RULES: TimeRules = TimeRules { leeway: 0, max_lifetime: None };

// === impl Introspection ===

impl Introspection {
    /// `who`: which tokens are which consumer's, and which plans and tags there are. `memory`: bytes for remembered answers.
    pub fn compile(name: &At<String>, settings: &IntrospectionSettings, who: Who<'_>, memory: u64) -> Result<Self, Vec<Diagnostic>> {
        let IntrospectionSettings {
            url,
            client_id,
            client_secret,
            issuer,
            audiences,
            deadline,
            remember,
            remember_inactive,
            scope_claim,
            role_claim,
            plan,
            tags,
            forward,
            pass,
            plain_http,
            proxy,
            ca,
        } = settings;
        let mut wrong = Vec::new();
        let print = print(name, settings);
        let address = ask::url(url, &mut wrong);
        if let Some(address) = &address {
            let is_plain = plain_http.as_ref().is_some_and(|plain| plain.value);
            ask::plain(address, &url.place, is_plain, "tokens and the client's secret could be read on the way", &mut wrong);
            ask::needless_plain(address, plain_http.as_ref(), &mut wrong);
        }
        let proxy = ask::proxy(proxy.as_ref(), &mut wrong);
        let trust = ask::trust(ca.as_ref(), "issuer", address.as_ref(), &mut wrong);
        if client_id.is_empty() || client_secret.reveal().is_empty() {
            let message = "`client_id` or `client_secret` is empty: the issuer answers nobody whom it does not know";
            wrong.push(Diagnostic::at(&client_id.place, "introspection-client", message));
        }
        if let Some(list) = audiences.as_ref().filter(|list| list.is_empty() || list.iter().any(String::is_empty)) {
            wrong.push(Diagnostic::at(&list.place, "empty-list", "`audiences` is empty or has an empty text: expected at least one"));
        }
        let mut bounded = |written: Option<&At<Period>>, default: u64, most: u64| {
            if let Some(period) = written.filter(|period| period.0.is_zero() || period.value > Period::seconds(most)) {
                let message =
                    format!("`{}` is out of range: expected more than nothing and at most {}", period.value, Period::seconds(most));
                wrong.push(Diagnostic::at(&period.place, "out-of-range", message));
            }
            written.map_or(Duration::from_secs(default), |period| period.0)
        };
        let deadline = bounded(deadline.as_ref(), 1, 10);
        let remember = bounded(remember.as_ref(), 60, 300);
        let inactive = bounded(remember_inactive.as_ref(), 10, 300);
        let forward = Forward::compile(forward).map_err(|more| wrong.extend(more)).ok();
        let claimed = who.claimed(plan.as_ref(), tags).map_err(|more| wrong.extend(more)).ok();
        let reading = match (forward, claimed) {
            (Some(forward), Some(claimed)) => {
                Reading::compile(&name.value, scope_claim.as_ref(), role_claim.as_ref(), forward, claimed, who)
                    .map_err(|more| wrong.extend(more))
                    .ok()
            }
            (Some(_) | None, _) => None,
        };
        let (Some(address), Some(reading), true) = (address, reading, wrong.is_empty()) else { return Err(wrong) };
        let inner = Inner {
            name: name.value.as_str().into(),
            issuer: issuer.as_ref().map(|issuer| issuer.value.clone()),
            audiences: audiences.as_ref().map(|list| list.value.clone()).unwrap_or_default(),
            remember: ms(remember),
            memory: TokenMemory::new(memory),
            asking: Asking::new(Kept::new(address, Way { proxy, trust }), client_id, client_secret, deadline, ms(inactive)),
            counts: Counts::default(),
            reading,
        };
        let print = print_with(print, &inner.reading.print(), memory);
        Ok(Introspection { inner: Arc::new(inner), pass: *pass, print })
    }

    /// Takes over what an earlier snapshot knows, where nothing that it depends on has changed.
    pub fn inherit(&mut self, earlier: &Introspection) {
        if self.print == earlier.print {
            self.inner = earlier.inner.clone();
        }
    }

    /// Who bears this token. Waits for the issuer where it has not said so a short while ago.
    pub async fn identify(&self, token: &[u8], now: Now) -> Result<Arc<Identity>, Stop> {
        if let Some(known) = self.recall(token, now.unix_ms)? {
            return Ok(known);
        }
        let verdict = match self.inner.asking.verdict(&self.inner, token, now.unix_ms).await {
            Some(verdict) => verdict,
            None => {
                self.inner.counts.held_back.fetch_add(1, Relaxed);
                return Err(unavailable("too many questions are on their way to the issuer"));
            }
        };
        match verdict {
            Verdict::Active(identity, times) => times.check(now.unix_ms, &RULES).map(|()| identity),
            Verdict::Refused(refusal, reason) => Err(refusal.because(&*reason)),
            Verdict::Failed(why) => Err(unavailable(&why)),
        }
    }

    /// The same in a simulation, where nobody is asked.
    pub fn identify_offline(&self, token: &[u8], now: u64) -> Result<Arc<Identity>, Stop> {
        self.recall(token, now)?.ok_or_else(|| unavailable("nobody is asked in a simulation: `claims` stand for an answer"))
    }

    fn recall(&self, token: &[u8], now: u64) -> Result<Option<Arc<Identity>>, Stop> {
        token::check_size(token)?;
        // RFC 6750 section 2.1: b64token.
        let is_plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
        if token.is_empty() || !token.iter().all(is_plain) {
            return Err(MALFORMED.because("not a token as RFC 6750 has it"));
        }
        let Some(known) = self.inner.memory.recall(token) else { return Ok(None) };
        known.times.check(now, &RULES)?;
        if known.age(now).is_none_or(|age| age >= self.inner.remember) {
            return Ok(None);
        }
        self.inner.counts.remembered.fetch_add(1, Relaxed);
        Ok(Some(known.identity))
    }

    /// Who would bear a token about which the issuer says this.
    pub fn assume(&self, claims: &Value, now: u64) -> Result<Arc<Identity>, Stop> {
        let mut claims = claims.clone();
        if let (Some(members), Some(issuer)) = (claims.as_object_mut(), self.inner.audiences.first()) {
            // What only a real answer needs may be missing.
            members.entry("aud").or_insert_with(|| issuer.clone().into());
        }
        self.inner.judge(claims, now).map(|(identity, _)| identity)
    }

    /// When a token with these claims is no longer accepted, in milliseconds since 1970.
    pub fn end(&self, claims: &Value) -> Option<u64> {
        Times::read(claims.as_object()?, &RULES, Demand::Optional).ok()?.end(&RULES)
    }

    pub fn passes_credential(&self) -> bool {
        self.pass
    }

    pub fn forward(&self) -> &Forward {
        self.inner.reading.forward()
    }

    pub fn counts(&self) -> &Counts {
        &self.inner.counts
    }

    /// Where it asks, for `explain`.
    pub fn told(&self) -> String {
        let (server, remember) = (self.inner.asking.server(), Period(Duration::from_millis(self.inner.remember)));
        let through = server.proxy().map(|proxy| format!(" through the proxy {}", proxy.endpoint())).unwrap_or_default();
        format!("asked about at {}{through}, believed for {remember}", server.address())
    }
}

// === impl Inner ===

impl Inner {
    fn judge(&self, claims: Value, now: u64) -> Result<(Arc<Identity>, Times), Stop> {
        let Value::Object(members) = &claims else { return Err(INACTIVE.because("the answer is not an object")) };
        if let (Some(issuer), Some(found)) = (&self.issuer, members.get("iss"))
            && found.as_str() != Some(issuer)
        {
            return Err(ISSUER.because(format!("expected issuer `{issuer}`")));
        }
        let is_ours = |value: &Value| value.as_str().is_some_and(|text| self.audiences.iter().any(|own| own == text));
        let is_for_us = match members.get("aud") {
            Some(Value::Array(list)) => list.iter().any(is_ours),
            Some(audience) => is_ours(audience),
            None => false,
        };
        if !self.audiences.is_empty() && !is_for_us {
            return Err(AUDIENCE.because(format!("expected audience `{}`", self.audiences.join("` or `"))));
        }
        let times = Times::read(members, &RULES, Demand::Optional)?;
        times.check(now, &RULES)?;
        Ok((Arc::new(self.reading.identity(claims)?), times))
    }
}

fn unavailable(why: &str) -> Stop {
    Problem::new(&INTROSPECTION_UNAVAILABLE)
        .detail("Tokens cannot be verified at the moment.")
        .reason(why.to_owned())
        .header(RETRY_AFTER, HeaderValue::from_static("5"))
        .into()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What answers depend on besides how they are read; the secret only as a digest.
fn print(name: &At<String>, settings: &IntrospectionSettings) -> String {
    let IntrospectionSettings {
        url,
        client_id,
        client_secret,
        issuer,
        audiences,
        deadline,
        remember,
        remember_inactive,
        plain_http,
        proxy,
        ca,
        // How they are read: see `print_with`.
        scope_claim: _,
        role_claim: _,
        plan: _,
        tags: _,
        forward: _,
        pass: _,
    } = settings;
    let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
    let time = |at: &Option<At<Period>>| at.as_ref().map(|at| at.value);
    let ca = ca.as_ref().and_then(|file| read_beside(&file.place, file).ok());
    format!(
        "{name} {url} {client_id} {secret} {issuer:?} {audiences:?} {deadline:?} {remember:?} {inactive:?} {plain:?} {proxy:?} {ca:?}",
        name = name.value,
        url = url.value,
        client_id = client_id.value,
        secret = super::api_key::key_id(&super::api_key::hash_key(client_secret.reveal().as_bytes())),
        issuer = text(issuer),
        audiences = audiences.as_ref().map(|list| list.value.clone()),
        deadline = time(deadline),
        remember = time(remember),
        inactive = time(remember_inactive),
        plain = plain_http.as_ref().map(|plain| plain.value),
        proxy = text(proxy),
    )
}

fn print_with(own: String, reading: &str, memory: u64) -> [u8; 32] {
    super::api_key::hash_key(format!("{} {own} {reading} {memory}", own.len()).as_bytes())
}
