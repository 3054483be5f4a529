//! Who calls: what an authenticator found out.
//!
//! Decides nothing but which tag and which plan of several counts. Authenticators make an [`Identity`] once per credential and share
//! it between requests.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http::{HeaderName, HeaderValue};

use super::limits::hash::Kept;
use crate::report::metrics::tags::TagSeries;

/// The name of a plan and the index of its limit in the snapshot's plans.
pub type PlanRef = (Arc<str>, usize);

/// Sorted by name, none twice.
pub type Tags = Arc<[Tag]>;

/// A party that the operator knows by name, with keys, a plan, scopes and tags.
#[derive(Debug, Default)]
pub struct Consumer {
    pub name: Box<str>,
    pub plan: Option<PlanRef>,
    /// What its keys may do.
    pub scopes: Arc<[String]>,
    pub tags: Tags,
}

/// A word about a caller under a name, such as `version` `v2`.
#[derive(Clone)]
pub struct Tag {
    pub name: Arc<str>,
    pub value: Arc<str>,
    /// Counts its requests; shared by all values that no configuration names.
    pub series: Arc<TagSeries>,
}

/// Public id of an API key: the first 16 hex digits of its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; 16]);

/// What a caller has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Credential {
    #[default]
    Token,
    ApiKey,
    /// In the handshake of its connection.
    Certificate,
}

/// An accepted credential: a verified token, a known API key, a certificate.
#[derive(Debug, Default)]
pub struct Identity {
    pub credential: Credential,
    /// Name of the authenticator that accepted it.
    pub authenticator: Arc<str>,
    /// The token's `sub`, or whom the certificate names; none for API keys.
    pub subject: Option<String>,
    /// Index into the snapshot's consumers' list is not kept: the consumer itself is shared.
    pub consumer: Option<Arc<Consumer>>,
    /// None where it is none.
    pub key_id: Option<KeyId>,
    /// The `kid` of the key that a token is signed with, where it has one.
    pub signed_by: Option<Box<str>>,
    pub scopes: Arc<[String]>,
    pub roles: Vec<String>,
    /// All claims of the token, or facts of the certificate; `Null` for API keys.
    pub claims: serde_json::Value,
    /// Identity headers for the upstream, made once.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The plan and tags that a token brings by its claims; see [`plan`](Identity::plan) and [`tag`](Identity::tag).
    pub claimed_plan: Option<PlanRef>,
    pub claimed_tags: Tags,
    /// When an API key, or a certificate with its chain, is no longer accepted, in milliseconds since 1970; tokens know by their claims.
    pub expires: Option<u64>,
    /// The revocation list that it was last looked for in; see [`Revocations`](super::revocation::Revocations).
    pub cleared: AtomicU64,
    /// What its buckets are found by.
    pub hashes: CallerHashes,
    /// What the access log says of it, where it is remembered: see `report/access_log/caller.rs`.
    pub spelt: Option<Box<[u8]>>,
}

/// The hashes of a caller as limits count it: nothing of an [`Identity`] that goes into them ever changes.
#[derive(Debug, Default)]
pub struct CallerHashes {
    pub subject: Kept,
    pub consumer: Kept,
}

// === impl Identity ===

impl Identity {
    /// Its plan: the consumer's, which the operator wrote, else what its claims say.
    pub fn plan(&self) -> Option<&PlanRef> {
        let of_consumer = self.consumer.as_ref().and_then(|consumer| consumer.plan.as_ref());
        of_consumer.or(self.claimed_plan.as_ref())
    }

    /// The tag of this name: the consumer's, which the operator wrote, else what its claims say.
    pub fn tag(&self, name: &str) -> Option<&Tag> {
        let of_consumer = self.consumer.as_ref().and_then(|consumer| find(&consumer.tags, name));
        of_consumer.or_else(|| find(&self.claimed_tags, name))
    }

    /// All its tags, those of the consumer first.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        let of_consumer = self.consumer.as_ref().map_or(&[][..], |consumer| &consumer.tags);
        of_consumer.iter().chain(self.claimed_tags.iter().filter(|tag| find(of_consumer, &tag.name).is_none()))
    }
}

/// A caller has a handful of them.
fn find<'t>(tags: &'t [Tag], name: &str) -> Option<&'t Tag> {
    tags.iter().find(|tag| *tag.name == *name)
}

// === impl Tag ===

/// Not the counter: what is compared by this text does not change with every request.
impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}", self.name, self.value)
    }
}

/// Names of tags are as those of everything else: small letters, digits, `-` and `_`.
pub fn is_tag_name(text: &str) -> bool {
    let is_first = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 64 && text.bytes().next().is_some_and(is_first) && text.bytes().all(|c| is_first(c) || c == b'-' || c == b'_')
}

/// Values of tags are short words: they stand in logs, and choose upstreams.
pub fn is_tag_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}

// === impl KeyId ===

impl KeyId {
    /// Of the SHA-256 of a key.
    pub fn of(hash: &[u8; 32]) -> Self {
        let mut text = [0; 16];
        for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
            (pair[0], pair[1]) = (digit(byte >> 4), digit(*byte));
        }
        KeyId(text)
    }
}

impl Deref for KeyId {
    type Target = str;
    fn deref(&self) -> &str {
        // It is hex digits.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(pairs: &[(&str, &str)]) -> Tags {
        let tag = |(name, value): &(&str, &str)| Tag { name: (*name).into(), value: (*value).into(), series: Arc::default() };
        pairs.iter().map(tag).collect()
    }

    #[test]
    fn what_the_operator_wrote_counts_before_what_a_token_says() {
        let consumer = Consumer { plan: Some(("gold".into(), 0)), tags: tags(&[("a", "1")]), ..Consumer::default() };
        let bare = Consumer { tags: tags(&[("c", "3")]), ..Consumer::default() };
        let claimed = |consumer: Option<Consumer>| Identity {
            consumer: consumer.map(Arc::new),
            claimed_plan: Some(("free".into(), 1)),
            claimed_tags: tags(&[("a", "x"), ("b", "y")]),
            ..Identity::default()
        };
        let told =
            |identity: &Identity| (identity.plan().map(|plan| plan.0.to_string()), format!("{:?}", identity.tags().collect::<Vec<_>>()));
        assert_eq!(told(&claimed(Some(consumer))), (Some("gold".into()), r#"[a="1", b="y"]"#.into()));
        assert_eq!(told(&claimed(Some(bare))), (Some("free".into()), r#"[c="3", a="x", b="y"]"#.into()));
        assert_eq!(told(&claimed(None)), (Some("free".into()), r#"[a="x", b="y"]"#.into()));
        assert_eq!(claimed(None).tag("b").map(|tag| &*tag.value), Some("y"));
        assert!(claimed(None).tag("c").is_none());
    }

    #[test]
    fn the_id_of_a_key_is_the_beginning_of_its_hash() {
        let mut hash = [0; 32];
        (hash[0], hash[7], hash[8]) = (0x9f, 0x0a, 0xff);
        assert_eq!(&*KeyId::of(&hash), "9f0000000000000a");
    }

    #[test]
    fn tags_are_short_words() {
        assert!(["a", "version", "a-b_2", "0"].iter().all(|name| is_tag_name(name)));
        assert!(["", "A", "-a", "a b", "a.b", &"x".repeat(65)].iter().all(|name| !is_tag_name(name)));
        assert!(["v2", "A.b/c", "äx"].map(is_tag_value) == [true, true, false]);
        assert!(["", "a b", "a\"", "a\n", &"x".repeat(65)].iter().all(|value| !is_tag_value(value)));
    }
}
