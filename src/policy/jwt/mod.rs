//! Decides whether a JSON Web Token is genuine and in force (RFC 7519, RFC 8725). Does not decide what its bearer may do: see `authz.rs`.

mod algorithm;
#[cfg(test)]
pub(crate) mod fixtures;
mod identity;
pub mod json;
mod jwks;
pub(super) mod keys;
pub mod kinds;
pub mod named;
pub mod published;
pub(super) mod times;
pub mod token;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use self::algorithm::JwtAlgorithm;
pub use self::identity::{Reading, TokenOf, Who};
pub use self::keys::JwtKeysSettings;
use self::keys::KeySet;
use self::kinds::{AUDIENCE, CLAIMS, ISSUER, KEY_UNKNOWN};
use self::published::{Published, Source, Wished};
use self::times::{Demand, TimeRules, Times};
use self::token::Token;
use super::Stop;
use super::claimed::{ClaimedPlanSettings, ClaimedTagSettings};
use super::forward::Forward;
use super::principal::Identity;
use super::token_memory::{Asked, TokenMemory};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::ctx::Now;

/// Tokens in `Authorization: Bearer`, verified with keys that the gateway holds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JwtSettings {
    /// The value that `iss` must have. Where several authenticators of a route read tokens, it chooses among them.
    pub issuer: At<String>,
    /// Values of which `aud` must contain one.
    pub audiences: At<Vec<String>>,
    /// Signature algorithms that are accepted; never taken from the token.
    pub algorithms: At<Vec<At<JwtAlgorithm>>>,
    /// Where the verification keys are.
    pub keys: At<JwtKeysSettings>,
    /// How far the clocks of issuer and gateway may be apart. Default 0s.
    pub leeway: Option<Period>,
    /// Tokens that live longer than this (`exp` minus `iat`) are refused; `iat` is then required.
    pub max_lifetime: Option<Period>,
    /// The claim with the scopes: a name, or a JSON Pointer such as `/realm/scopes`. Default `scope`, else `scp`.
    pub scope_claim: Option<At<String>>,
    /// The claim with the roles, likewise. Default `roles`.
    pub role_claim: Option<At<String>>,
    /// The plan of the token's user, from a claim; that of the consumer whose token it is counts before it. Counted by consumer, else by subject.
    pub plan: Option<At<ClaimedPlanSettings>>,
    /// Tags of the token's user, each from a claim; those of the consumer whose token it is count before them.
    #[serde(default)]
    pub tags: BTreeMap<String, At<ClaimedTagSettings>>,
    /// Headers set for the upstream, each from a claim. They are removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
    /// Whether the token itself goes to the upstream too. Default false.
    #[serde(default)]
    pub pass: bool,
}

/// The compiled authenticator.
#[derive(Debug)]
pub struct Jwt {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<JwtAlgorithm>,
    keys: Keys,
    rules: TimeRules,
    reading: Reading,
    pass: bool,
    memory: Arc<TokenMemory>,
    uses: Arc<MemoryUses>,
    fingerprint: [u8; 32],
}

/// Where the keys come from.
#[derive(Debug)]
enum Keys {
    /// From the configuration; they never change.
    Held(KeySet),
    /// From the provider.
    Published(Arc<Published>),
}

/// Why nobody is known by a token.
enum Miss {
    Refused(Stop),
    /// The provider may know the key of this name, for it may be new.
    UnknownKey(String, Stop),
}

/// How often the memory knew a token and how often not; lives as long as the authenticator's name.
#[derive(Debug, Default)]
pub struct MemoryUses {
    pub hits: AtomicU64,
    pub misses: AtomicU64,
}

/// More than this is no difference between clocks.
const LONGEST_LEEWAY: Duration = Duration::from_secs(600);

// === impl Jwt ===

impl Jwt {
    /// `who`: which tokens are which consumer's, and which plans and tags there are. `memory`: bytes for remembered tokens.
    pub fn compile(name: &At<String>, settings: &JwtSettings, who: Who<'_>, memory: u64) -> Result<Self, Vec<Diagnostic>> {
        let JwtSettings { issuer, audiences, algorithms, keys, leeway, max_lifetime, scope_claim, role_claim, plan, tags, forward, pass } =
            settings;
        let mut wrong = Vec::new();
        if issuer.is_empty() {
            wrong.push(Diagnostic::at(&issuer.place, "jwt-empty", "`issuer` is empty: expected the text that `iss` must have"));
        }
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            wrong.push(Diagnostic::at(&audiences.place, "jwt-empty", "`audiences` is empty or has an empty text: expected at least one"));
        }
        if algorithms.is_empty() {
            wrong.push(Diagnostic::at(&algorithms.place, "jwt-empty", "`algorithms` is empty: expected at least one, such as `ES256`"));
        }
        for (index, algorithm) in algorithms.iter().enumerate() {
            if algorithms[..index].iter().any(|other| other.value == algorithm.value) {
                let message = format!("`{}` is listed twice", algorithm.as_str());
                wrong.push(Diagnostic::at(&algorithm.place, "jwt-duplicate", message));
            }
        }
        if leeway.is_some_and(|leeway| leeway.0 > LONGEST_LEEWAY) {
            let message = format!("`leeway` of `{}` is more than 10 minutes: expired tokens would live on", name.value);
            wrong.push(Diagnostic::at(&name.place, "jwt-leeway", message).help("clocks are kept together by NTP; `30s` is generous"));
        }
        if max_lifetime.is_some_and(|longest| longest.0.is_zero()) {
            let message = format!("`max_lifetime` of `{}` is zero: no token could pass", name.value);
            wrong.push(Diagnostic::at(&name.place, "jwt-lifetime", message));
        }
        let mut take = |result: Result<_, Vec<Diagnostic>>| result.map_err(|more| wrong.extend(more)).ok();
        let keys =
            if algorithms.is_empty() { None } else { take(Keys::compile(&name.value, keys, issuer, algorithms).map(Some)).flatten() };
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
        let (Some(keys), Some(reading), true) = (keys, reading, wrong.is_empty()) else { return Err(wrong) };
        let ms = |period: Period| u64::try_from(period.0.as_millis()).unwrap_or(u64::MAX);
        let mut jwt = Jwt {
            issuer: issuer.value.clone(),
            audiences: audiences.value.clone(),
            algorithms: algorithms.iter().map(|algorithm| algorithm.value).collect(),
            keys,
            rules: TimeRules { leeway: leeway.map_or(0, ms), max_lifetime: max_lifetime.map(ms) },
            reading,
            pass: *pass,
            memory: Arc::new(TokenMemory::new(memory)),
            uses: Arc::default(),
            fingerprint: [0; 32],
        };
        jwt.fingerprint = jwt.print();
        Ok(jwt)
    }

    /// Takes over the tokens that an earlier snapshot remembers, where nothing that they depend on has changed.
    pub fn inherit(&mut self, earlier: &Jwt) {
        self.uses = earlier.uses.clone();
        if let (Keys::Published(own), Keys::Published(earlier)) = (&mut self.keys, &earlier.keys) {
            if own.source == earlier.source {
                *own = earlier.clone();
            } else {
                own.adopt(earlier);
            }
        }
        // Published keys are in it by their source: those that are the same have the same epochs.
        if self.fingerprint == earlier.fingerprint {
            self.memory = earlier.memory.clone();
        }
    }

    /// The provider's key set, where there is one.
    pub fn published(&self) -> Option<&Arc<Published>> {
        match &self.keys {
            Keys::Held(_) => None,
            Keys::Published(published) => Some(published),
        }
    }

    /// Who bears this token at `now`, in milliseconds since 1970. A token that is remembered costs no signature and no allocation.
    pub fn identify(&self, token: &[u8], now: u64) -> Result<Arc<Identity>, Stop> {
        self.find(token, now).map_err(|miss| match miss {
            Miss::Refused(stop) | Miss::UnknownKey(_, stop) => stop,
        })
    }

    /// As [`identify`](Jwt::identify), but where the token's key is not known, the provider may be asked for it.
    pub async fn identify_asking(&self, token: &[u8], now: Now) -> Result<Arc<Identity>, Stop> {
        let (kid, stop) = match self.find(token, now.unix_ms) {
            Ok(identity) => return Ok(identity),
            Err(Miss::Refused(stop)) => return Err(stop),
            Err(Miss::UnknownKey(kid, stop)) => (kid, stop),
        };
        let Some(published) = self.published() else { return Err(stop) };
        let outcome = match published.wish_for(&kid, now.mono).await {
            Wished::Answered => self.find(token, now.unix_ms),
            Wished::Unanswered => return Err(published.unanswered()),
            Wished::HeldBack => Err(Miss::UnknownKey(kid, stop)),
        };
        outcome.map_err(|miss| match miss {
            Miss::Refused(stop) => stop,
            // The client's token may be good.
            Miss::UnknownKey(_, stop) => published.unreachable().unwrap_or(stop),
        })
    }

    fn find(&self, token: &[u8], now: u64) -> Result<Arc<Identity>, Miss> {
        match &self.keys {
            Keys::Held(keys) => self.verify(token, now, keys, 0),
            Keys::Published(published) => match &*published.keys(now)? {
                Some(held) => self.verify(token, now, &held.keys, held.epoch),
                None => Err(Miss::Refused(KEY_UNKNOWN.because("no key set has been fetched yet"))),
            },
        }
    }

    fn verify(&self, token: &[u8], now: u64, keys: &KeySet, epoch: u64) -> Result<Arc<Identity>, Miss> {
        token::check_size(token)?;
        if let Some(known) = self.memory.recall(token)
            && known.epoch == epoch
        {
            let in_force = known.times.check(now, &self.rules);
            if in_force.is_err() || known.is_fresh(now) {
                self.uses.hits.fetch_add(1, Relaxed);
                return Ok(in_force.map(|()| known.identity)?);
            }
        }
        let read = Token::read(token, &self.algorithms)?;
        let key = keys.choose(&read).map_err(|stop| match keys.lacks(&read) {
            Some(kid) => Miss::UnknownKey(kid.to_owned(), stop),
            None => Miss::Refused(stop),
        })?;
        self.memory.note_signature();
        self.uses.misses.fetch_add(1, Relaxed);
        key.verify(&read)?;
        let (identity, times) = self.judge(Value::Object(read.claims()?), now, Demand::Required, key.kid())?;
        self.memory.remember(token, &identity, times, now, epoch);
        Ok(identity)
    }

    /// Who would bear a token with these claims. Those that only a real token needs (`iss`, `aud`, `exp`, `iat`) may be missing; what is there is judged.
    pub fn assume(&self, claims: &Value, now: u64) -> Result<Arc<Identity>, Stop> {
        self.judge(claims.clone(), now, Demand::Optional, None).map(|(identity, _)| identity)
    }

    /// When a token with these claims is no longer accepted, in milliseconds since 1970.
    pub fn end(&self, claims: &Value) -> Option<u64> {
        Times::read(claims.as_object()?, &self.rules, Demand::Optional).ok()?.end(&self.rules)
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it has verified this very token, which then named its issuer; in force or not.
    pub fn remembers(&self, asked: &Asked<'_>) -> bool {
        self.memory.knows(asked)
    }

    /// Whether the token goes to the upstream too.
    pub fn passes_credential(&self) -> bool {
        self.pass
    }

    pub fn forward(&self) -> &Forward {
        self.reading.forward()
    }

    pub fn memory(&self) -> &TokenMemory {
        &self.memory
    }

    pub fn uses(&self) -> &MemoryUses {
        &self.uses
    }

    /// Equal where settings, keys and consumers are.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    fn judge(&self, claims: Value, now: u64, demand: Demand, signed_by: Option<&str>) -> Result<(Arc<Identity>, Times), Stop> {
        let Value::Object(members) = &claims else { return Err(CLAIMS.because("claims are not an object")) };
        match members.get("iss") {
            Some(Value::String(issuer)) if *issuer == self.issuer => {}
            Some(Value::String(_)) => return Err(ISSUER.because(format!("expected issuer `{}`", self.issuer))),
            Some(_) => return Err(CLAIMS.because("`iss` is not text")),
            None if demand == Demand::Required => return Err(CLAIMS.because("has no `iss`")),
            None => {}
        }
        let is_ours = |value: &Value| value.as_str().is_some_and(|text| self.audiences.iter().any(|own| own == text));
        let is_for_us = match members.get("aud") {
            Some(audience @ Value::String(_)) => is_ours(audience),
            Some(Value::Array(list)) if list.iter().all(Value::is_string) => list.iter().any(is_ours),
            Some(_) => return Err(CLAIMS.because("`aud` is neither text nor a list of texts")),
            None if demand == Demand::Required => return Err(CLAIMS.because("has no `aud`")),
            None => true,
        };
        if !is_for_us {
            return Err(AUDIENCE.because(format!("expected audience `{}`", self.audiences.join("` or `"))));
        }
        let times = Times::read(members, &self.rules, demand)?;
        times.check(now, &self.rules)?;
        let identity = Identity { signed_by: signed_by.map(Into::into), ..self.reading.identity(claims)? };
        Ok((Arc::new(identity), times))
    }

    fn print(&self) -> [u8; 32] {
        let Jwt { issuer, audiences, algorithms, keys, rules, reading, pass: _, memory, uses: _, fingerprint: _ } = self;
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        // Lengths keep neighbours apart: `ab`, `c` is not `a`, `bc`.
        let mut field = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        field(issuer.as_bytes());
        field(format!("{audiences:?} {algorithms:?} {rules:?} {}", memory.capacity()).as_bytes());
        field(reading.print().as_bytes());
        match keys {
            Keys::Held(keys) => keys.identify(field),
            Keys::Published(published) => field(format!("{:?}", published.source).as_bytes()),
        }
        let mut print = [0; 32];
        print.copy_from_slice(context.finish().as_ref());
        print
    }
}

// === impl Keys ===

impl Keys {
    fn compile(name: &str, settings: &At<JwtKeysSettings>, issuer: &str, algorithms: &[At<JwtAlgorithm>]) -> Result<Keys, Vec<Diagnostic>> {
        match Source::compile(name, settings, issuer, algorithms)? {
            Some(source) => Ok(Keys::Published(Arc::new(Published::new(source)))),
            None => KeySet::compile(settings, algorithms).map(Keys::Held),
        }
    }
}

impl From<Stop> for Miss {
    fn from(stop: Stop) -> Self {
        Miss::Refused(stop)
    }
}

#[cfg(test)]
mod tests;
