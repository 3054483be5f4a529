//! Decides whether an accepted credential has been revoked since it was issued: a token, all tokens of somebody up to a moment, a key,
//! a consumer.
//!
//! Asked after every authentication, also of tokens that are remembered. Does not decide what is accepted in the first place.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Stop;
use super::list_file::{Held, Lines, ListFile, in_words};
use super::principal::{Credential, Identity};
use crate::clock;
use crate::config::types::{At, Moment};
use crate::reply::problem::{Kind, Problem};

pub static CREDENTIAL_REVOKED: Kind = Kind {
    code: "credential-revoked",
    status: 401,
    error: "Unauthorized",
    about: "The token, key or consumer is in the list of `revocation`. The log says by which entry, and the reason that was written there.",
};

/// What is no longer accepted, though nothing else speaks against it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationSettings {
    /// A file of JSON Lines, each one of `{"jti": "..."}`, `{"sub": "...", "before": "2027-01-31T12:00:00Z"}` (tokens issued before),
    /// `{"kid": "..."}` (tokens signed with this key), `{"key_id": "..."}`, `{"consumer": "..."}`; with them perhaps `authenticator` (of `jti`, `sub` and `kid`; default: any), `until` (the entry is
    /// of no use afterwards) and `reason` (for the log). Read at the start, where a mistake is one of the configuration, and again whenever it
    /// changes, where a mistake leaves in use what was read last. Or `redis`.
    pub file: Option<At<String>>,
    /// The key of a set in `server.limits_store` whose members are such lines. Followed by what is published on the channel of the same name.
    pub redis: Option<At<String>>,
}

pub static REVOCATION_UNAVAILABLE: Kind = Kind {
    code: "revocation-unavailable",
    status: 503,
    error: "Service unavailable",
    about: "Who is revoked is not known: the list of `revocation.redis` has not been read since the start. See `lists` in `/status`, and the log.",
};

pub type Revocations = ListFile<Revoked>;

/// What a file of revocations says.
#[derive(Debug, Default)]
pub struct Revoked {
    tokens: HashMap<Box<str>, Vec<Entry>>,
    subjects: HashMap<Box<str>, Vec<Entry>>,
    signers: HashMap<Box<str>, Vec<Entry>>,
    keys: HashMap<Box<str>, Entry>,
    consumers: HashMap<Box<str>, Entry>,
    entries: usize,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Whose tokens; of anybody where there is none.
    authenticator: Option<Box<str>>,
    /// Tokens that were issued before, in milliseconds since 1970.
    before: u64,
    reason: Option<Box<str>>,
}

/// The names of the authenticators.
#[derive(Debug, Default)]
pub struct Around(pub HashSet<String>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    jti: Option<Box<str>>,
    sub: Option<Box<str>>,
    kid: Option<Box<str>>,
    key_id: Option<Box<str>>,
    consumer: Option<Box<str>>,
    before: Option<Box<str>>,
    authenticator: Option<Box<str>>,
    until: Option<Box<str>>,
    reason: Option<Box<str>>,
}

/// How many entries of each kind there are, as metrics and `explain` call them.
pub const SORTS: [&str; 5] = ["jti", "sub", "kid", "key_id", "consumer"];

// === impl Revocations ===

impl Revocations {
    /// Lets a caller pass who is in no entry. Looked up once for each identity and content of the file.
    ///
    /// # Errors
    /// It is revoked. `challenge` is what `WWW-Authenticate` says of its authenticator, where it says anything.
    pub fn judge(&self, identity: &Identity, challenge: Option<&HeaderValue>) -> Result<(), Stop> {
        let held = self.held();
        let Held { list, generation, read: _ } = &**held;
        if *generation == 0 {
            let why = self.shown().trouble.unwrap_or_else(|| "not read yet".to_owned());
            let problem = Problem::new(&REVOCATION_UNAVAILABLE).detail("Whether the credential is revoked is not known now.");
            return Err(problem.reason(format!("{} {why}", self.origin())).into());
        }
        // The entries do not depend on the time: what was not among them is not until the file changes.
        if identity.cleared.load(Relaxed) == *generation {
            return Ok(());
        }
        let Some(reason) = list.find(identity) else {
            identity.cleared.store(*generation, Relaxed);
            return Ok(());
        };
        let problem = Problem::new(&CREDENTIAL_REVOKED).detail("The credential was revoked.").reason(reason);
        let token = HeaderValue::from_static("Bearer error=\"invalid_token\", error_description=\"The token was revoked.\"");
        let challenge = if identity.credential == Credential::Token { Some(&token) } else { challenge };
        Err(match challenge {
            Some(challenge) => problem.header(WWW_AUTHENTICATE, challenge.clone()),
            None => problem,
        }
        .into())
    }
}

// === impl Revoked ===

impl Revoked {
    /// How many there are, in the order of [`SORTS`].
    pub fn counts(&self) -> [usize; 5] {
        let many = |map: &HashMap<Box<str>, Vec<Entry>>| map.values().map(Vec::len).sum();
        [many(&self.tokens), many(&self.subjects), many(&self.signers), self.keys.len(), self.consumers.len()]
    }

    /// Why somebody is revoked, for the log.
    fn find(&self, identity: &Identity) -> Option<String> {
        let told = |what: String, entry: &Entry| match &entry.reason {
            Some(reason) => format!("{what} is revoked: {reason}"),
            None => format!("{what} is revoked"),
        };
        if let Some(consumer) = &identity.consumer
            && let Some(entry) = self.consumers.get(&*consumer.name)
        {
            return Some(told(format!("consumer `{}`", consumer.name), entry));
        }
        if let Some(id) = &identity.key_id
            && let Some(entry) = self.keys.get(&**id)
        {
            return Some(told(format!("key {}", &**id), entry));
        }
        if identity.credential != Credential::Token {
            return None;
        }
        let is_of = |entry: &&Entry| entry.authenticator.as_ref().is_none_or(|of| **of == *identity.authenticator);
        if let Some(jti) = identity.claims.get("jti").and_then(|jti| jti.as_str())
            && let Some(entry) = self.tokens.get(jti).and_then(|all| all.iter().find(is_of))
        {
            return Some(told("the token's `jti`".to_owned(), entry));
        }
        if let Some(kid) = &identity.signed_by
            && let Some(entry) = self.signers.get(kid).and_then(|all| all.iter().find(is_of))
        {
            return Some(told("the key that the token is signed with".to_owned(), entry));
        }
        // One that does not say when it was issued may have been issued before.
        let issued = identity.claims.get("iat").and_then(|iat| iat.as_f64()).map_or(0, |seconds| (seconds * 1000.0) as u64);
        let entries = identity.subject.as_deref().and_then(|subject| self.subjects.get(subject));
        let entry = entries.and_then(|all| all.iter().filter(is_of).find(|entry| issued < entry.before))?;
        Some(told(format!("what was issued to the token's `sub` before {}", Moment(entry.before)), entry))
    }
}

impl Lines for Revoked {
    type Around = Around;

    fn begin(_: &Around) -> Self {
        Revoked::default()
    }

    fn line(&mut self, around: &Around, text: &str) -> Result<(), String> {
        let Line { jti, sub, kid, key_id, consumer, before, authenticator, until, reason } =
            serde_json::from_str(text).map_err(|e| in_words(&e))?;
        let moment = |name: &str, text: Option<&str>| match text.map(Moment::parse) {
            None => Ok(None),
            Some(Some(moment)) => Ok(Some(moment.0)),
            Some(None) => Err(format!("`{name}` is not a moment such as `2027-01-31T12:00:00Z`")),
        };
        let (before, until) = (moment("before", before.as_deref())?, moment("until", until.as_deref())?);
        if let Some(name) = authenticator.as_ref().filter(|name| !around.0.contains(&***name)) {
            return Err(format!("`authenticator` is `{}`, which there is not", name.escape_default()));
        }
        let reason = reason.map(|reason| reason.chars().take(200).filter(|c| !c.is_control()).collect::<String>().into());
        let is_for_tokens = jti.is_some() || sub.is_some() || kid.is_some();
        if !is_for_tokens && authenticator.is_some() {
            return Err("`authenticator` belongs to `jti`, `sub` and `kid`".to_owned());
        }
        if before.is_some() != sub.is_some() {
            return Err("`sub` and `before` belong together: which tokens of whom".to_owned());
        }
        let entry = Entry { authenticator, before: before.unwrap_or_default(), reason };
        let is_over = until.is_some_and(|until| until <= clock::now().unix_ms);
        let written: Vec<bool> = [&jti, &sub, &kid, &key_id, &consumer].into_iter().flatten().map(|text| text.is_empty()).collect();
        if written.len() != 1 {
            return Err("expected exactly one of `jti`, `sub`, `kid`, `key_id` and `consumer`".to_owned());
        }
        if written.contains(&true) {
            return Err("an entry is empty: it would revoke nothing".to_owned());
        }
        if key_id.as_ref().is_some_and(|id| id.len() != 16 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))) {
            return Err("`key_id` is not the id of a key: expected the first 16 digits of its hash".to_owned());
        }
        if is_over {
            return Ok(());
        }
        for (list, name) in [(&mut self.tokens, jti), (&mut self.subjects, sub), (&mut self.signers, kid)] {
            if let Some(name) = name {
                list.entry(name).or_default().push(entry.clone());
            }
        }
        for (list, name) in [(&mut self.keys, key_id), (&mut self.consumers, consumer)] {
            if let Some(name) = name {
                list.insert(name, entry.clone());
            }
        }
        self.entries += 1;
        Ok(())
    }

    fn end(&mut self, _: &Around) -> Result<(), String> {
        Ok(())
    }

    fn entries(&self) -> usize {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::policy::fixtures::{NOW, place_in, refusal};
    use crate::policy::principal::{Consumer, KeyId};

    fn list(lines: &str) -> Result<(tempfile::TempDir, Revocations), String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("revoked.jsonl"), lines).unwrap();
        let around = Around(["idp".to_owned(), "other".to_owned()].into());
        Revocations::open(&place_in(folder.path().join("a.yaml")), "revoked.jsonl", around).map(|list| (folder, list))
    }

    fn token(claims: Value) -> Identity {
        let subject = claims["sub"].as_str().map(str::to_owned);
        Identity { authenticator: "idp".into(), subject, claims, ..Identity::default() }
    }

    fn told(list: &Revocations, identity: &Identity) -> String {
        match list.judge(identity, Some(&HeaderValue::from_static("ApiKey"))) {
            Ok(()) => "passed".to_owned(),
            Err(stop) => refusal(Err(stop)).reason.unwrap(),
        }
    }

    #[test]
    fn a_credential_is_refused_by_whichever_entry_it_is_in() {
        let key = KeyId::of(&[7; 32]);
        let lines = format!(
            r#"{{"jti":"t1","reason":"stolen\nlaptop"}}
{{"jti":"t2","authenticator":"other"}}
{{"sub":"u1","before":"2025-01-01T00:00:00Z"}}
{{"kid":"old","reason":"was on a laptop"}}
{{"kid":"other","authenticator":"other"}}
{{"key_id":"{}"}}
{{"consumer":"acme","reason":"contract ended"}}"#,
            &*key
        );
        let (_folder, list) = list(&lines).unwrap();
        assert_eq!(list.held().list.counts(), [2, 1, 2, 1, 1]);
        assert_eq!(told(&list, &token(json!({ "jti": "t1" }))), "the token's `jti` is revoked: stolenlaptop");
        assert_eq!(told(&list, &token(json!({ "jti": "t2" }))), "passed", "another authenticator's");
        assert_eq!(told(&list, &token(json!({ "jti": 7, "sub": "u2" }))), "passed");
        let before = "what was issued to the token's `sub` before 2025-01-01T00:00:00.000Z is revoked";
        assert_eq!(told(&list, &token(json!({ "sub": "u1", "iat": NOW - 1 }))), before);
        assert_eq!(told(&list, &token(json!({ "sub": "u1" }))), before, "it may have been");
        assert_eq!(told(&list, &token(json!({ "sub": "u1", "iat": NOW }))), "passed");
        let signed = |kid: &str| Identity { signed_by: Some(kid.into()), ..token(json!({ "sub": "u2" })) };
        assert_eq!(told(&list, &signed("old")), "the key that the token is signed with is revoked: was on a laptop");
        assert_eq!([told(&list, &signed("new")), told(&list, &signed("other"))], ["passed", "passed"]);
        let key_of = |name: &str, key_id: Option<KeyId>| {
            let consumer = Consumer { name: name.into(), ..Consumer::default() };
            Identity { credential: Credential::ApiKey, consumer: Some(Arc::new(consumer)), key_id, ..Identity::default() }
        };
        assert_eq!(told(&list, &key_of("beta", Some(key))), "key 0707070707070707 is revoked");
        assert_eq!(told(&list, &key_of("beta", Some(KeyId::of(&[8; 32])))), "passed");
        assert_eq!(told(&list, &key_of("acme", None)), "consumer `acme` is revoked: contract ended");
    }

    #[test]
    fn who_was_not_in_the_list_is_looked_for_again_when_it_changes() {
        let (folder, list) = list("").unwrap();
        let remembered = token(json!({ "jti": "t1" }));
        assert_eq!((told(&list, &remembered), told(&list, &remembered)), ("passed".into(), "passed".into()));
        std::fs::write(folder.path().join("revoked.jsonl"), r#"{"jti":"t1"}"#).unwrap();
        list.read_again();
        assert_eq!(told(&list, &remembered), "the token's `jti` is revoked");
        std::fs::write(folder.path().join("revoked.jsonl"), "nonsense").unwrap();
        list.read_again();
        assert_eq!(told(&list, &remembered), "the token's `jti` is revoked", "the last good one");
    }

    #[test]
    fn a_line_that_revokes_nothing_in_particular_is_a_mistake() {
        for (line, why) in [
            ("{}", "line 1: expected exactly one of"),
            (r#"{"jti":"a","sub":"b","before":"2025-01-01"}"#, "line 1: expected exactly one of"),
            (r#"{"jti":""}"#, "line 1: an entry is empty"),
            (r#"{"sub":"a"}"#, "line 1: `sub` and `before` belong together"),
            (r#"{"jti":"a","before":"2025-01-01"}"#, "line 1: `sub` and `before` belong together"),
            (r#"{"sub":"a","before":"yesterday"}"#, "line 1: `before` is not a moment"),
            (r#"{"key_id":"ABC"}"#, "line 1: `key_id` is not the id of a key"),
            (r#"{"consumer":"a","authenticator":"idp"}"#, "line 1: `authenticator` belongs to"),
            (r#"{"jti":"a","authenticator":"nobody"}"#, "line 1: `authenticator` is `nobody`"),
            (r#"{"jit":"a"}"#, "line 1: unknown member `jit`"),
        ] {
            let told = list(line).err().unwrap_or_else(|| panic!("{line} is accepted"));
            assert!(told.starts_with(why), "{line}: {told}");
        }
        let (_folder, list) = list("{\"jti\":\"a\",\"until\":\"2025-01-01\"}\n{\"jti\":\"b\",\"until\":\"2999-01-01\"}").unwrap();
        assert_eq!(list.held().list.counts(), [1, 0, 0, 0, 0], "what is over is left out");
    }
}
