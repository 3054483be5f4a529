//! Decides whose bucket a request is counted in: the first of a limit's keys that the request has.

use std::fmt;
use std::net::IpAddr;

use http::HeaderName;
use smallvec::SmallVec;

use crate::ctx::{Facts, Now};
use crate::policy::Request;
use crate::policy::buckets::{Buckets, bucket_of, caller_of, caller_under};
use crate::policy::principal::Identity;
use crate::policy::rate_limit::By;

/// What a request is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    Consumer(&'a str),
    /// Subjects of different authenticators are different callers.
    Subject {
        authenticator: &'a str,
        subject: &'a str,
    },
    /// The key's public id.
    ApiKey(&'a str),
    /// Name and value.
    Tag(&'a str, &'a str),
    V4([u8; 4]),
    /// The /64: what lies below is the caller's own to choose.
    V6([u8; 8]),
    Header(&'a HeaderName, &'a [u8]),
    Global,
    /// The request has none of the keys. All such share one bucket of the limit, so that leaving a header out buys nothing.
    Unidentified,
}

/// Of a longer header value the first and last halves of this many bytes are looked at, and the length.
const LONGEST_VALUE: usize = 1024;
/// The kinds of addresses among what is hashed.
const V4: u8 = 3;
const V6: u8 = 4;

// === impl Key ===

impl<'a> Key<'a> {
    #[inline(always)]
    pub fn choose(by: &'a [By], request: &Request<'a>, seen: &Seen<'a>) -> Key<'a> {
        for by in by {
            if let Some(key) = Key::find(by, request, seen) {
                return key;
            }
        }
        Key::Unidentified
    }

    #[inline(always)]
    fn find(by: &'a By, request: &Request<'a>, seen: &Seen<'a>) -> Option<Key<'a>> {
        let identity = seen.identity;
        match by {
            By::Consumer => identity?.consumer.as_ref().map(|consumer| Key::Consumer(&consumer.name)),
            By::Subject => {
                let identity = identity?;
                identity.subject.as_deref().map(|subject| Key::Subject { authenticator: &identity.authenticator, subject })
            }
            By::ApiKey => identity?.key_id.as_deref().map(Key::ApiKey),
            By::Tag(name) => identity?.tag(name).map(|tag| Key::Tag(&tag.name, &tag.value)),
            By::ClientIp => Some(Key::address(seen.client)),
            // The first of several; an empty one says nothing.
            By::Header(name) => request
                .head
                .headers
                .get(name)
                .map(|value| value.as_bytes())
                .filter(|value| !value.is_empty())
                .map(|value| Key::Header(name, value)),
            By::Global => Some(Key::Global),
        }
    }

    pub fn address(address: IpAddr) -> Key<'a> {
        // A v4 address in v6 clothes is the v4 address, or all of them would be one /64.
        match address.to_canonical() {
            IpAddr::V4(v4) => Key::V4(v4.octets()),
            IpAddr::V6(v6) => {
                let [a, b, c, d, e, f, g, h, ..] = v6.octets();
                Key::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// The kind of key, as logs, problems and metrics call it.
    #[inline(always)]
    pub fn kind(&self) -> &'static str {
        match self {
            Key::Consumer(_) => "consumer",
            Key::Subject { .. } => "subject",
            Key::ApiKey(_) => "api_key",
            Key::Tag(..) => "tag",
            Key::V4(_) | Key::V6(_) => "client_ip",
            Key::Header(..) => "header",
            Key::Global => "global",
            Key::Unidentified => "unidentified",
        }
    }

    /// The hash of the bucket that a limit has for it.
    pub fn bucket(&self, buckets: &Buckets, identity: u128) -> u128 {
        self.hash(|kind, parts| buckets.key(identity, kind, parts))
    }

    fn caller(&self, seed: [u64; 2]) -> u128 {
        match self {
            // Of nearly every request, and of a length that the compiler knows.
            Key::V4(octets) => caller_of(seed, V4, octets),
            Key::V6(octets) => caller_of(seed, V6, octets),
            Key::Consumer(_) | Key::Subject { .. } | Key::ApiKey(_) | Key::Tag(..) | Key::Header(..) | Key::Global | Key::Unidentified => {
                self.hash(|kind, parts| caller_under(seed, kind, parts))
            }
        }
    }

    fn hash(&self, hash: impl Fn(u8, &[&[u8]]) -> u128) -> u128 {
        match self {
            Key::Consumer(name) => hash(0, &[name.as_bytes()]),
            Key::Subject { authenticator, subject } => hash(1, &[authenticator.as_bytes(), subject.as_bytes()]),
            Key::ApiKey(id) => hash(2, &[id.as_bytes()]),
            Key::Tag(name, value) => hash(8, &[name.as_bytes(), value.as_bytes()]),
            Key::V4(octets) => hash(V4, &[octets]),
            Key::V6(octets) => hash(V6, &[octets]),
            Key::Header(name, value) if value.len() <= LONGEST_VALUE => hash(5, &[name.as_str().as_bytes(), value]),
            Key::Header(name, value) => {
                let (first, last) = (&value[..LONGEST_VALUE / 2], &value[value.len() - LONGEST_VALUE / 2..]);
                hash(5, &[name.as_str().as_bytes(), first, last, &value.len().to_le_bytes()])
            }
            Key::Global => hash(6, &[]),
            Key::Unidentified => hash(7, &[]),
        }
    }
}

/// What limits see of a request beside its head. Not all that is known of it, so that what they say can be written meanwhile.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    pub identity: Option<&'a Identity>,
    pub client: IpAddr,
    /// The upstream to which it goes.
    pub chosen: usize,
    pub now: Now,
}

/// The callers that one request is counted by: several limits often count by the same, whose hash is made once.
pub struct Hashes<'a> {
    seed: [u64; 2],
    request: &'a Request<'a>,
    pub seen: Seen<'a>,
    client: Option<u128>,
    others: SmallVec<[(Key<'a>, u128); 2]>,
}

// === impl Seen ===

impl<'a> Seen<'a> {
    #[inline(always)]
    pub fn of(facts: &'a Facts) -> Seen<'a> {
        Seen { identity: facts.identity.as_deref(), client: facts.client, chosen: facts.chosen, now: facts.now }
    }
}

// === impl Hashes ===

impl<'a> Hashes<'a> {
    /// Under the seed of this process, or under that of all gateways which share limits: then they are the same in all of them.
    #[inline(always)]
    pub fn new(seed: [u64; 2], request: &'a Request<'a>, seen: Seen<'a>) -> Self {
        Hashes { seed, request, seen, client: None, others: SmallVec::new() }
    }

    /// What a limit counts the request by: the kind of key, and the hash of the bucket.
    #[inline(always)]
    pub fn bucket(&mut self, by: &'a [By], identity: u128) -> (&'static str, u128) {
        for by in by {
            if let Some((kind, caller)) = self.find(by) {
                return (kind, bucket_of(caller, identity));
            }
        }
        (Key::Unidentified.kind(), bucket_of(self.other(Key::Unidentified), identity))
    }

    /// As [`Key::choose`] does. The usual ones are found without being put together, and the caller of this very request has his hash.
    #[inline(always)]
    fn find(&mut self, by: &'a By) -> Option<(&'static str, u128)> {
        let seed = self.seed;
        match by {
            By::Subject => {
                let identity = self.seen.identity?;
                let subject = identity.subject.as_deref()?;
                let key = || Key::Subject { authenticator: &identity.authenticator, subject };
                Some(("subject", identity.hashes.subject.under(seed, || key().caller(seed))))
            }
            By::Consumer => {
                let identity = self.seen.identity?;
                let consumer = identity.consumer.as_ref()?;
                Some(("consumer", identity.hashes.consumer.under(seed, || Key::Consumer(&consumer.name).caller(seed))))
            }
            By::ClientIp => Some(("client_ip", self.client())),
            By::ApiKey | By::Tag(_) | By::Header(_) | By::Global => {
                let key = Key::find(by, self.request, &self.seen)?;
                Some((key.kind(), self.other(key)))
            }
        }
    }

    #[inline(always)]
    fn client(&mut self) -> u128 {
        match self.client {
            Some(caller) => caller,
            None => *self.client.insert(Key::address(self.seen.client).caller(self.seed)),
        }
    }

    #[inline(never)]
    fn other(&mut self, key: Key<'a>) -> u128 {
        if let Some((_, caller)) = self.others.iter().find(|(known, _)| *known == key) {
            return *caller;
        }
        let caller = key.caller(self.seed);
        self.others.push((key, caller));
        caller
    }
}

/// For `explain`: what is counted by. Of a header only its name, for its value may be a credential.
impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Consumer(name) => write!(f, "consumer {name}"),
            Key::Subject { authenticator, subject } => write!(f, "subject {subject} of {authenticator}"),
            Key::ApiKey(id) => write!(f, "api_key {id}"),
            Key::Tag(name, value) => write!(f, "tag {name} {value}"),
            Key::V4(octets) => write!(f, "client_ip {}", IpAddr::from(*octets)),
            Key::V6([a, b, c, d, e, f_, g, h]) => {
                write!(f, "client_ip {}/64", IpAddr::from([*a, *b, *c, *d, *e, *f_, *g, *h, 0, 0, 0, 0, 0, 0, 0, 0]))
            }
            Key::Header(name, _) => write!(f, "header:{name}"),
            Key::Global => f.write_str("global"),
            Key::Unidentified => f.write_str("unidentified"),
        }
    }
}
