//! Decides whether an API key is known. Keys are held as SHA-256 and compared in constant time.

use std::collections::BTreeMap;

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Stop;
use super::consumers::{ListedConsumers, Owned};
use super::credential::{self, Found};
use super::forward::header_names;
use super::key_table::KeyTable;
use super::principal::{Credential, Identity, KeyId};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Moment};
use crate::reply::problem::{Kind, Problem};

pub static KEY_MALFORMED: Kind = Kind {
    code: "key-malformed",
    status: 401,
    error: "Unauthorized",
    about: "The credential does not look like a key of this gateway: see the authenticator's `format`. Often a placeholder or another service's key.",
};

pub static KEY_UNKNOWN: Kind = Kind {
    code: "key-unknown",
    status: 401,
    error: "Unauthorized",
    about: "The key is none of any consumer's. It was removed, mistyped, or belongs to another environment.",
};

pub static KEY_EXPIRED: Kind = Kind {
    code: "key-expired",
    status: 401,
    error: "Unauthorized",
    about: "The key is a consumer's, but its `expires` has passed. The log says when.",
};

/// Keys of consumers, in a header or a query parameter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySettings {
    /// The request header that carries the key. Exactly one of `header` and `query`.
    pub header: Option<At<String>>,
    /// The query parameter that carries the key. On every route it is cut out before logging, and before forwarding unless the
    /// route's own authenticator has `pass`.
    pub query: Option<At<String>>,
    /// What a key looks like; anything else is refused before it is looked up.
    pub format: Option<KeyFormatSettings>,
    /// Headers set for the upstream from `consumer`. They are removed from what clients send, on every route.
    #[serde(default)]
    pub forward: BTreeMap<String, At<String>>,
    /// Whether the key itself goes to the upstream too. Default false.
    #[serde(default)]
    pub pass: bool,
}

/// What a key looks like.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyFormatSettings {
    /// What it begins with.
    pub prefix: Option<String>,
    /// How many characters it has, the prefix included.
    pub length: Option<At<u16>>,
}

/// The compiled authenticator.
#[derive(Debug)]
pub struct ApiKey {
    carrier: Carrier,
    format: Format,
    name: Arc<str>,
    /// Every consumer's keys that the configuration holds.
    keys: KeyTable<Arc<Identity>>,
    /// Those of a file beside it. Their identities are made when they are asked for: a million take too much room.
    listed: Option<Arc<ListedConsumers>>,
    headers: Vec<HeaderName>,
    pass: bool,
    challenge: HeaderValue,
}

/// Where the key stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    Header(HeaderName),
    Parameter(Box<str>),
}

pub static CONSUMERS_UNAVAILABLE: Kind = Kind {
    code: "consumers-unavailable",
    status: 503,
    error: "Service unavailable",
    about: "Whose the key is is not known: it is not in the configuration, and the list of `consumers_from.redis` has not been read since the start. See `lists` in `/status`, and the log.",
};

/// The SHA-256 of a key.
pub type KeyHash = [u8; 32];

#[derive(Debug, Default)]
struct Format {
    prefix: Box<str>,
    length: Option<usize>,
}

/// Longer values are not hashed.
const LONGEST: usize = 1024;

/// Reads a hash as `sluice key hash` prints it: 64 hex digits.
pub fn parse_hash(text: &str) -> Option<KeyHash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(hash)
}

/// The hash of a key; what configuration files hold in its place.
pub fn hash_key(key: &[u8]) -> KeyHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key).as_ref());
    hash
}

/// The public name of a key: the first 16 hex digits of its hash.
pub fn key_id(hash: &KeyHash) -> String {
    KeyId::of(hash).to_string()
}

// === impl ApiKey ===

impl ApiKey {
    /// `keys`: those of all consumers, none twice, in the order in which they were written.
    pub fn compile(
        name: &At<String>,
        settings: &ApiKeySettings,
        keys: &[(KeyHash, Owned)],
        listed: Option<&Arc<ListedConsumers>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let ApiKeySettings { header, query, format, forward, pass } = settings;
        let mut wrong = Vec::new();
        let carrier = read_carrier(name, header.as_ref(), query.as_ref(), &mut wrong);
        let format = format.as_ref().map_or_else(Format::default, |format| read_format(name, format, &mut wrong));
        let headers: Vec<_> = header_names(forward, &mut wrong)
            .into_iter()
            .filter_map(|(header, from)| {
                let is_known = from.value == "consumer";
                if !is_known {
                    let message = format!("`{}` is not known of an API key: expected `consumer`", from.value);
                    wrong.push(Diagnostic::at(&from.place, "bad-claim", message).help("claims come with tokens only"));
                }
                is_known.then_some(header)
            })
            .collect();
        let name_text: Arc<str> = name.value.as_str().into();
        let mut table = Vec::with_capacity(keys.len());
        for (hash, owned) in keys {
            match identify(&name_text, hash, owned, &headers) {
                Some(identity) => table.push((*hash, Arc::new(identity))),
                None => {
                    let consumer = &owned.consumer.name;
                    let message = format!("`{}` forwards the consumer's name, but `{consumer}` cannot be a header's value", name.value);
                    let told = Diagnostic::at(&name.place, "consumer-name", message);
                    if !wrong.contains(&told) {
                        wrong.push(told);
                    }
                }
            }
        }
        let (Some(carrier), true) = (carrier, wrong.is_empty()) else { return Err(wrong) };
        let Ok(keys) = KeyTable::new(table) else {
            return Err(vec![Diagnostic::at(&name.place, "duplicate-key", "a key is listed twice")]);
        };
        let challenge = match &carrier {
            Carrier::Header(name) => format!("ApiKey in=\"header\", name=\"{name}\""),
            Carrier::Parameter(name) => format!("ApiKey in=\"query\", name=\"{name}\""),
        };
        let challenge = HeaderValue::from_str(&challenge).expect("names of headers and parameters are visible ASCII");
        Ok(ApiKey { carrier, format, name: name_text, keys, listed: listed.cloned(), headers, pass: *pass, challenge })
    }

    /// Whether a key may have an end; those of a list may, whatever stands in it now.
    pub fn can_expire(&self) -> bool {
        self.listed.is_some() || self.keys.iter().any(|(_, identity)| identity.expires.is_some())
    }

    /// Whose key the request carries at `now`, in milliseconds since 1970; `Missing` where it carries none.
    pub fn identify(&self, headers: &HeaderMap, query: Option<&str>, now: u64) -> Result<Found<Arc<Identity>>, Stop> {
        match &self.carrier {
            Carrier::Header(name) => match credential::header(headers, name) {
                Found::One(key) => self.look_up(key, now).map(Found::One),
                Found::Missing => Ok(Found::Missing),
                Found::Ambiguous => Ok(Found::Ambiguous),
            },
            Carrier::Parameter(name) => match credential::parameter(query, name) {
                Found::One(key) => self.look_up(&key, now).map(Found::One),
                Found::Missing => Ok(Found::Missing),
                Found::Ambiguous => Ok(Found::Ambiguous),
            },
        }
    }

    /// As if this consumer's key that is accepted longest had been sent.
    pub fn assume(&self, consumer: &str, now: u64) -> Result<Arc<Identity>, Stop> {
        let is_its = |identity: &&Arc<Identity>| identity.consumer.as_ref().is_some_and(|own| *own.name == *consumer);
        let own = self.keys.iter().map(|(_, identity)| identity).filter(is_its);
        let own = own.max_by_key(|identity| identity.expires.unwrap_or(u64::MAX)).cloned();
        let found = match (own, &self.listed) {
            (Some(own), _) => Some(own),
            (None, Some(listed)) => {
                let held = listed.held();
                held.list.key_of(consumer).and_then(|(hash, owned)| identify(&self.name, hash, owned, &self.headers)).map(Arc::new)
            }
            (None, None) => None,
        };
        match found {
            Some(identity) => self.in_force(identity, now),
            None => Err(self.refuse(&KEY_UNKNOWN, "The key is unknown.", format!("consumer `{consumer}` has no keys"))),
        }
    }

    pub fn carrier(&self) -> &Carrier {
        &self.carrier
    }

    /// Headers that it sets for the upstream.
    pub fn headers(&self) -> &[HeaderName] {
        &self.headers
    }

    /// Whether the key goes to the upstream too.
    pub fn passes_credential(&self) -> bool {
        self.pass
    }

    /// What `WWW-Authenticate` says of it. No scheme for keys is registered; this says where the key belongs.
    pub fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    fn look_up(&self, key: &[u8], now: u64) -> Result<Arc<Identity>, Stop> {
        let malformed = |reason: String| self.refuse(&KEY_MALFORMED, "The key is malformed.", reason);
        if key.is_empty() || key.len() > LONGEST {
            return Err(malformed(format!("has {} bytes, expected 1 to {LONGEST}", key.len())));
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err(malformed("has characters other than visible ASCII".to_owned()));
        }
        if !key.starts_with(self.format.prefix.as_bytes()) {
            return Err(malformed(format!("does not begin with `{}`", self.format.prefix)));
        }
        if let Some(length) = self.format.length
            && key.len() != length
        {
            return Err(malformed(format!("has {} characters, expected {length}", key.len())));
        }
        let hash = hash_key(key);
        let found = self.keys.find(&hash).cloned().or_else(|| {
            let held = self.listed.as_ref()?.held();
            Some(Arc::new(identify(&self.name, &hash, held.list.find(&hash)?, &self.headers)?))
        });
        match found {
            Some(identity) => self.in_force(identity, now),
            None if self.listed.as_ref().is_some_and(|listed| listed.is_unread()) => Err(self.unavailable().into()),
            None => Err(self.refuse(&KEY_UNKNOWN, "The key is unknown.", format!("no consumer has key {}", key_id(&hash)))),
        }
    }

    fn unavailable(&self) -> Problem {
        let listed = self.listed.as_ref();
        let why = listed.map(|listed| format!("{} {}", listed.origin(), listed.shown().trouble.as_deref().unwrap_or("not read yet")));
        Problem::new(&CONSUMERS_UNAVAILABLE).detail("The key cannot be looked up now.").reason(why.unwrap_or_default())
    }

    fn in_force(&self, identity: Arc<Identity>, now: u64) -> Result<Arc<Identity>, Stop> {
        match identity.expires.filter(|expires| now >= *expires) {
            None => Ok(identity),
            Some(expires) => {
                let whose = identity.consumer.as_ref().map_or("", |consumer| &consumer.name);
                let reason =
                    format!("key {} of `{whose}` has expired at {}", identity.key_id.as_deref().unwrap_or_default(), Moment(expires));
                Err(self.refuse(&KEY_EXPIRED, "The key has expired.", reason))
            }
        }
    }

    fn refuse(&self, kind: &'static Kind, detail: &'static str, reason: String) -> Stop {
        Problem::new(kind).detail(detail).reason(reason).header(WWW_AUTHENTICATE, self.challenge.clone()).into()
    }
}

/// `None` where the consumer's name cannot be a header's value.
fn identify(authenticator: &Arc<str>, hash: &KeyHash, owned: &Owned, headers: &[HeaderName]) -> Option<Identity> {
    let Owned { consumer, expires } = owned;
    let headers = headers.iter().map(|name| Some((name.clone(), HeaderValue::from_str(&consumer.name).ok()?))).collect::<Option<_>>()?;
    Some(Identity {
        credential: Credential::ApiKey,
        authenticator: authenticator.clone(),
        consumer: Some(consumer.clone()),
        key_id: Some(KeyId::of(hash)),
        scopes: consumer.scopes.clone(),
        headers,
        expires: *expires,
        ..Identity::default()
    })
}

fn read_carrier(
    authenticator: &At<String>,
    header: Option<&At<String>>,
    query: Option<&At<String>>,
    wrong: &mut Vec<Diagnostic>,
) -> Option<Carrier> {
    const FRAMING: [&str; 8] = ["connection", "content-length", "cookie", "host", "origin", "te", "transfer-encoding", "upgrade"];
    match (header, query) {
        (Some(header), None) => match HeaderName::from_bytes(header.as_bytes()) {
            Ok(name) if !FRAMING.contains(&name.as_str()) => Some(Carrier::Header(name)),
            Ok(_) => {
                let message = format!("`{}` cannot carry a key: it has a meaning of its own", header.value);
                wrong.push(Diagnostic::at(&header.place, "reserved-header", message).help("such as `x-api-key`"));
                None
            }
            Err(_) => {
                wrong.push(Diagnostic::at(&header.place, "bad-header-name", format!("`{}` is not a header name", header.value)));
                None
            }
        },
        (None, Some(query)) => {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
            if query.is_empty() || !query.bytes().all(is_plain) {
                let message = format!("`{}` is not the name of a parameter: expected letters, digits, `-`, `_`, `.` and `~`", query.value);
                wrong.push(Diagnostic::at(&query.place, "bad-parameter-name", message));
                return None;
            }
            Some(Carrier::Parameter(query.as_str().into()))
        }
        (Some(at), Some(_)) => {
            wrong.push(Diagnostic::at(&at.place, "api-key-carrier", "`header` and `query` are both written: expected one of them"));
            None
        }
        (None, None) => {
            let message = format!("`{}` does not say where the key is: expected `header` or `query`", authenticator.value);
            wrong.push(Diagnostic::at(&authenticator.place, "api-key-carrier", message).help("such as `header: x-api-key`"));
            None
        }
    }
}

fn read_format(authenticator: &At<String>, settings: &KeyFormatSettings, wrong: &mut Vec<Diagnostic>) -> Format {
    let KeyFormatSettings { prefix, length } = settings;
    let mut tell = |place, message: String| wrong.push(Diagnostic::at(place, "api-key-format", message));
    let bytes = prefix.as_ref().map_or(0, String::len);
    if prefix.is_none() && length.is_none() {
        tell(&authenticator.place, format!("`format` of `{}` says nothing: expected `prefix` or `length`", authenticator.value));
    }
    if prefix.as_ref().is_some_and(|prefix| prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_graphic())) {
        tell(&authenticator.place, format!("`prefix` of `{}` is empty or not visible ASCII: no key begins with it", authenticator.value));
    }
    if let Some(length) = length {
        let n = usize::from(length.value);
        if n <= bytes || n > LONGEST {
            tell(&length.place, format!("`length` is {n}: expected more than the prefix has ({bytes}) and at most {LONGEST}"));
        }
    }
    Format { prefix: prefix.as_deref().unwrap_or_default().into(), length: length.as_ref().map(|length| usize::from(length.value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::{NOW, at, at_text, codes, head, refusal};
    use crate::policy::principal::Consumer;

    const KEY: &str = "sk_0123456789abcdef";

    fn settings() -> ApiKeySettings {
        ApiKeySettings { header: Some(at_text("X-API-Key")), query: None, format: None, forward: BTreeMap::new(), pass: false }
    }

    fn format(prefix: Option<&str>, length: Option<u16>) -> ApiKeySettings {
        let format = KeyFormatSettings { prefix: prefix.map(str::to_owned), length: length.map(at) };
        ApiKeySettings { format: Some(format), ..settings() }
    }

    fn consumer(name: &str) -> Owned {
        let consumer = Consumer { name: name.into(), scopes: ["orders:read".to_owned()].into(), ..Consumer::default() };
        Owned { consumer: Arc::new(consumer), expires: None }
    }

    fn compile(settings: &ApiKeySettings) -> Result<ApiKey, Vec<Diagnostic>> {
        let keys: Vec<_> = (0..100).map(|n| (hash_key(format!("other{n}").as_bytes()), consumer("other"))).collect();
        let keys = [keys, vec![(hash_key(KEY.as_bytes()), consumer("acme"))]].concat();
        ApiKey::compile(&at_text("partners"), settings, &keys, None)
    }

    /// The consumer's name, `none` or `several`, or the code and reason of the refusal.
    fn told(keys: &ApiKey, line: &str, headers: &[(&str, &str)]) -> String {
        let head = head(line, headers);
        match keys.identify(&head.headers, head.uri.query(), NOW * 1000) {
            Ok(Found::One(identity)) => identity.consumer.as_ref().unwrap().name.to_string(),
            Ok(Found::Missing) => "none".to_owned(),
            Ok(Found::Ambiguous) => "several".to_owned(),
            Err(stop) => {
                let problem = refusal(Err(stop));
                assert_eq!((problem.kind.status, problem.kind.error), (401, "Unauthorized"));
                assert!(!format!("{problem:?}").contains("0123456789abcdef"), "shows a key: {problem:?}");
                format!("{}: {}", problem.kind.code, problem.reason.unwrap())
            }
        }
    }

    #[test]
    fn a_known_key_is_its_consumers() {
        let keys = compile(&settings()).unwrap();
        assert_eq!(told(&keys, "GET /", &[("x-api-key", KEY)]), "acme");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "other42")]), "other");
        assert_eq!(told(&keys, "GET /", &[]), "none");
        assert_eq!(told(&keys, "GET /?x-api-key=other42", &[]), "none");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", KEY), ("x-api-key", KEY)]), "several");
    }

    #[test]
    fn an_unknown_key_is_named_by_its_hash() {
        let keys = compile(&settings()).unwrap();
        let id = key_id(&hash_key(b"sk_wrong"));
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "sk_wrong")]), format!("key-unknown: no consumer has key {id}"));
        assert_eq!(told(&keys, "GET /", &[("x-api-key", &KEY.to_uppercase())]).split(':').next(), Some("key-unknown"));
        let problem = refusal(keys.look_up(b"sk_wrong", 0).map(drop));
        assert_eq!(problem.headers[0], (WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey in=\"header\", name=\"x-api-key\"")));
    }

    #[test]
    fn the_same_hash_prefix_is_not_the_same_key() {
        let mut near = hash_key(KEY.as_bytes());
        near[31] ^= 1;
        let keys = [(near, consumer("near")), (hash_key(KEY.as_bytes()), consumer("acme"))];
        let both = ApiKey::compile(&at_text("partners"), &settings(), &keys, None).unwrap();
        assert_eq!(told(&both, "GET /", &[("x-api-key", KEY)]), "acme");
        let only_near = ApiKey::compile(&at_text("partners"), &settings(), &keys[..1], None).unwrap();
        assert!(told(&only_near, "GET /", &[("x-api-key", KEY)]).starts_with("key-unknown"));
    }

    #[test]
    fn a_key_is_refused_from_the_moment_at_which_it_expires() {
        let expires =
            |key: &str, seconds: u64| (hash_key(key.as_bytes()), Owned { expires: Some((NOW + seconds) * 1000), ..consumer("acme") });
        let keys = ApiKey::compile(&at_text("partners"), &settings(), &[expires("old", 10), expires("new", 20)], None).unwrap();
        let verdict = |key: &str, ms: u64| match keys.look_up(key.as_bytes(), NOW * 1000 + ms) {
            Ok(_) => "accepted".to_owned(),
            Err(stop) => refusal(Err(stop)).reason.unwrap(),
        };
        assert_eq!((verdict("old", 9_999), verdict("new", 19_999)), ("accepted".to_owned(), "accepted".to_owned()));
        let id = key_id(&hash_key(b"old"));
        assert_eq!(verdict("old", 10_000), format!("key {id} of `acme` has expired at 2025-01-01T00:00:10.000Z"));
        // The one that is accepted longest stands for the consumer.
        assert!(keys.assume("acme", (NOW + 15) * 1000).is_ok());
        let problem = refusal(keys.assume("acme", (NOW + 20) * 1000).map(drop));
        assert_eq!((problem.kind.code, problem.kind.status), ("key-expired", 401));
    }

    #[test]
    fn a_key_in_the_query_is_decoded() {
        let keys = compile(&ApiKeySettings { header: None, query: Some(at_text("api_key")), ..settings() }).unwrap();
        assert_eq!(told(&keys, &format!("GET /a?b=1&api_key={KEY}"), &[]), "acme");
        assert_eq!(told(&keys, &format!("GET /a?api%5fkey=%73k_{}", &KEY[3..]), &[]), "acme");
        assert_eq!(told(&keys, "GET /a?api_key=x&api_key=x", &[]), "several");
        assert_eq!(told(&keys, "GET /a?api_key=", &[]), "key-malformed: has 0 bytes, expected 1 to 1024");
        assert_eq!(told(&keys, "GET /a", &[("api_key", KEY)]), "none");
    }

    #[test]
    fn the_format_is_judged_before_the_key_is_looked_up() {
        let keys = compile(&format(Some("sk_"), Some(19))).unwrap();
        assert_eq!(told(&keys, "GET /", &[("x-api-key", KEY)]), "acme");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "other42")]), "key-malformed: does not begin with `sk_`");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "sk_1")]), "key-malformed: has 4 characters, expected 19");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "")]), "key-malformed: has 0 bytes, expected 1 to 1024");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", "sk_ 1")]), "key-malformed: has characters other than visible ASCII");
        assert_eq!(told(&keys, "GET /", &[("x-api-key", &"a".repeat(1025))]), "key-malformed: has 1025 bytes, expected 1 to 1024");
    }

    #[test]
    fn an_identity_has_the_scopes_of_its_consumer_and_carries_its_name() {
        let forward = [("X-Client-ID".to_owned(), at_text("consumer"))].into();
        let keys = compile(&ApiKeySettings { forward, ..settings() }).unwrap();
        let identity = keys.look_up(KEY.as_bytes(), 0).unwrap();
        assert_eq!(identity.headers, [(HeaderName::from_static("x-client-id"), HeaderValue::from_static("acme"))]);
        assert_eq!(*identity.scopes, ["orders:read"]);
        assert_eq!(identity.key_id.as_deref(), Some(key_id(&hash_key(KEY.as_bytes())).as_str()));
        assert_eq!(identity.key_id.as_ref().unwrap().len(), 16);
        assert!(Arc::ptr_eq(&identity, &keys.look_up(KEY.as_bytes(), 0).unwrap()), "made once, then shared");
    }

    #[test]
    fn a_consumer_can_stand_for_its_key() {
        let keys = compile(&settings()).unwrap();
        assert_eq!(*keys.assume("acme", 0).unwrap().consumer.as_ref().unwrap().name, *"acme");
        assert_eq!(refusal(keys.assume("nobody", 0).map(drop)).reason.unwrap(), "consumer `nobody` has no keys");
    }

    #[test]
    fn settings_that_cannot_work_are_mistakes() {
        assert_eq!(codes(compile(&ApiKeySettings { query: Some(at_text("k")), ..settings() })), ["api-key-carrier"]);
        assert_eq!(codes(compile(&ApiKeySettings { header: None, ..settings() })), ["api-key-carrier"]);
        assert_eq!(codes(compile(&ApiKeySettings { header: Some(at_text("a b")), ..settings() })), ["bad-header-name"]);
        assert_eq!(codes(compile(&ApiKeySettings { header: Some(at_text("Host")), ..settings() })), ["reserved-header"]);
        assert_eq!(codes(compile(&ApiKeySettings { header: None, query: Some(at_text("a&b")), ..settings() })), ["bad-parameter-name"]);
        assert_eq!(codes(compile(&format(None, None))), ["api-key-format"]);
        assert_eq!(codes(compile(&format(Some("sk_"), Some(3)))), ["api-key-format"]);
        assert_eq!(codes(compile(&format(Some(""), Some(2000)))), ["api-key-format", "api-key-format"]);
        let forward = [("x-tenant".to_owned(), at_text("tenant"))].into();
        assert_eq!(codes(compile(&ApiKeySettings { forward, ..settings() })), ["bad-claim"]);
        let forward = [("x-client".to_owned(), at_text("consumer"))].into();
        let odd = ApiKeySettings { forward, ..settings() };
        assert_eq!(
            codes(ApiKey::compile(&at_text("k"), &odd, &[([0; 32], consumer("a\nb")), ([1; 32], consumer("a\nb"))], None)),
            ["consumer-name"]
        );
    }

    #[test]
    fn hashes_are_64_hex_digits() {
        let text = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(parse_hash(text), Some(hash_key(b"test")));
        assert_eq!(parse_hash(&text.to_uppercase()), Some(hash_key(b"test")));
        for bad in ["", &text[1..], &format!("{text}0"), &text.replace('9', "g"), &text.replace("9f", "+9")] {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }
}
