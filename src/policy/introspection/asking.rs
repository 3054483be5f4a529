//! Asks the issuer about a token: once, however many wait for the answer.
//!
//! Decides what an answer of the issuer's means, that questions on their way are bounded, and that a token which is not active is not
//! asked about again for a while. A failure is never remembered.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde_json::Value;
use tokio::sync::watch;

use super::super::api_key::{KeyHash, hash_key};
use super::super::jwt::json;
use super::super::jwt::kinds::{INACTIVE, Refusal};
use super::super::jwt::times::Times;
use super::super::principal::Identity;
use super::{Inner, Stop};
use crate::ask::{Kept, Question};
use crate::clock;
use crate::config::types::Secret;

/// Bytes of an answer.
const LARGEST: usize = 64 * 1024;
/// Questions that may be on their way at once.
const MOST: usize = 64;
/// Tokens that are known not to be active.
const INACTIVE_TOKENS: usize = 16_384;

/// What became of a question.
#[derive(Clone, Debug)]
pub enum Verdict {
    Active(Arc<Identity>, Times),
    /// Not active, or not meant for us.
    Refused(&'static Refusal, Arc<str>),
    /// The issuer could not be asked.
    Failed(Arc<str>),
}

/// Questions to one issuer.
pub struct Asking {
    server: Kept,
    authorization: HeaderValue,
    deadline: Duration,
    /// How long it is believed that a token is not active, in milliseconds.
    remember: u64,
    inactive: Cache<KeyHash, (u64, &'static Refusal, Arc<str>)>,
    /// By the digest of the token.
    flights: Mutex<HashMap<KeyHash, watch::Receiver<Option<Verdict>>>>,
    /// Why the last question failed; none where it did not.
    trouble: Mutex<Option<Arc<str>>>,
}

// === impl Asking ===

impl Asking {
    pub fn new(server: Kept, client: &str, secret: &Secret, deadline: Duration, remember: u64) -> Self {
        // RFC 6749 section 2.3.1: both are form-encoded first.
        let pair = format!("{}:{}", form(client.as_bytes()), form(secret.reveal().as_bytes()));
        let mut authorization = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).expect("base64 is visible ASCII");
        authorization.set_sensitive(true);
        let (inactive, flights, trouble) = (Cache::new(INACTIVE_TOKENS), Mutex::default(), Mutex::default());
        Asking { server, authorization, deadline, remember, inactive, flights, trouble }
    }

    pub fn server(&self) -> &Kept {
        &self.server
    }

    /// What the issuer says of a token, or said a moment ago. None: too many questions are on their way.
    pub async fn verdict(&self, inner: &Arc<Inner>, token: &[u8], now: u64) -> Option<Verdict> {
        let hash = hash_key(token);
        if let Some((until, refusal, reason)) = self.inactive.get(&hash)
            && now < until
        {
            inner.counts.remembered.fetch_add(1, Relaxed);
            return Some(Verdict::Refused(refusal, reason));
        }
        let mut answer = self.flight(inner, token, hash)?;
        let verdict = answer.wait_for(Option::is_some).await.ok().and_then(|verdict| verdict.clone());
        Some(verdict.unwrap_or_else(|| Verdict::Failed("the question ended early".into())))
    }

    /// The question about this token that is on its way; one is sent where there is none.
    fn flight(&self, inner: &Arc<Inner>, token: &[u8], hash: KeyHash) -> Option<watch::Receiver<Option<Verdict>>> {
        let mut flights = self.flights.lock();
        if let Some(known) = flights.get(&hash) {
            return Some(known.clone());
        }
        if flights.len() >= MOST {
            return None;
        }
        let (said, answer) = watch::channel(None);
        flights.insert(hash, answer.clone());
        let landing = Landing { inner: inner.clone(), hash };
        let token = token.to_vec();
        // A task of its own: whoever asked first may leave, and others wait.
        tokio::spawn(async move {
            let verdict = landing.inner.asking.ask(&landing.inner, &token).await;
            landing.inner.asking.note(&landing.inner, &token, landing.hash, &verdict);
            drop(landing);
            let _ = said.send(Some(verdict));
        });
        Some(answer)
    }

    async fn ask(&self, inner: &Inner, token: &[u8]) -> Verdict {
        let claims = match self.claims(token).await {
            Ok(claims) => claims,
            Err(why) => return Verdict::Failed(format!("{}: {why}", self.server.address()).into()),
        };
        // Section 2.2: nothing else counts where it is not active.
        match claims.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Verdict::Refused(&INACTIVE, "the issuer says that it is not active".into()),
            Some(_) | None => {
                return Verdict::Failed(format!("{}: the answer does not say whether the token is active", self.server.address()).into());
            }
        }
        match inner.judge(claims, clock::now().unix_ms) {
            Ok((identity, times)) => Verdict::Active(identity, times),
            Err(Stop::Refuse(problem)) => {
                let refusal = Refusal::of(problem.kind).unwrap_or(&INACTIVE);
                Verdict::Refused(refusal, problem.reason.as_deref().unwrap_or_default().into())
            }
            Err(Stop::Answer(_)) => Verdict::Failed("an answer where none can be".into()),
        }
    }

    async fn claims(&self, token: &[u8]) -> Result<Value, String> {
        let body = format!("token={}&token_type_hint=access_token", form(token));
        let headers = vec![
            (AUTHORIZATION, self.authorization.clone()),
            (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        ];
        let question = Question {
            method: Method::POST,
            address: self.server.address(),
            headers,
            body: body.into(),
            deadline: self.deadline,
            largest: LARGEST,
        };
        // It names the server itself.
        let own = format!("{}: ", self.server.address());
        let reply = self.server.ask(&question).await.map_err(|why| why.strip_prefix(&own).unwrap_or(&why).to_owned())?;
        match reply.status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => return Err("status 401: the issuer does not accept `client_id` and `client_secret`".to_owned()),
            other => return Err(format!("status {}", other.as_u16())),
        }
        json::object(&reply.body).map(Value::Object).map_err(|why| format!("the answer {why}"))
    }

    /// Remembers what may be remembered. One line in the log at each turn.
    fn note(&self, inner: &Inner, token: &[u8], hash: KeyHash, verdict: &Verdict) {
        let (now, counts, name) = (clock::now().unix_ms, &inner.counts, &inner.name);
        let counter = match verdict {
            Verdict::Active(identity, times) => {
                inner.memory.remember(token, identity, *times, now, 0);
                &counts.active
            }
            Verdict::Refused(refusal, reason) => {
                self.inactive.insert(hash, (now + self.remember, *refusal, reason.clone()));
                &counts.inactive
            }
            Verdict::Failed(why) => {
                if self.trouble.lock().replace(why.clone()).is_none() {
                    log::warn!("authenticator {name}: the issuer cannot be asked about tokens: {why}");
                }
                counts.failed.fetch_add(1, Relaxed);
                return;
            }
        };
        counter.fetch_add(1, Relaxed);
        if self.trouble.lock().take().is_some() {
            log::info!("authenticator {name}: the issuer answers again");
        }
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("address", &self.server.address()).finish_non_exhaustive()
    }
}

/// A question is no longer on its way when this is dropped, whatever became of it.
struct Landing {
    inner: Arc<Inner>,
    hash: KeyHash,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.inner.asking.flights.lock().remove(&self.hash);
    }
}

/// application/x-www-form-urlencoded.
fn form(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => text.push(char::from(*byte)),
            b' ' => text.push('+'),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_form_encoded() {
        assert_eq!(form("aZ9-._* ~+/=:é".as_bytes()), "aZ9-._*+%7E%2B%2F%3D%3A%C3%A9");
    }
}
