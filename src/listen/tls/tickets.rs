//! Tickets with which clients resume a session: all that is needed is in the ticket, sealed with keys of ours.
//!
//! Decides how long a key seals (six hours) and opens (twelve more). The keys are the process's: all workers and all snapshots share
//! them, and an upgrade hands them on. Each listener that asks for certificates of clients seals with keys derived from whose it
//! believes, so that a session of before a change of them is not resumed after it, nor at another listener.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use parking_lot::Mutex;
use rustls::server::ProducesTickets;

use crate::clock;

/// How long one key seals, in seconds.
const SEALS: u64 = 6 * 3600;
/// How long a ticket is good, in seconds; as long as its key opens after it has stopped sealing.
const GOOD: u32 = 12 * 3600;
/// Keys that open: the one that seals and its predecessors.
const KEPT: usize = 3;
const SECRET: usize = 32;
const NAME: usize = 16;

/// The secrets, the newest first.
pub struct TicketKeys {
    secrets: Mutex<Vec<Secret>>,
    /// Changes with each change of the secrets.
    generation: AtomicU64,
    /// When the newest has sealed long enough, in seconds since 1970.
    until: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Secret {
    since: u64,
    bytes: [u8; SECRET],
}

/// Seals and opens for the listeners with the same context.
pub struct Ticketer {
    keys: Arc<TicketKeys>,
    context: Vec<u8>,
    derived: ArcSwap<Derived>,
}

struct Derived {
    generation: u64,
    keys: Vec<([u8; NAME], RandomizedNonceKey)>,
}

// === impl TicketKeys ===

impl Default for TicketKeys {
    fn default() -> Self {
        TicketKeys { secrets: Mutex::new(Vec::new()), generation: AtomicU64::new(0), until: AtomicU64::new(0) }
    }
}

impl TicketKeys {
    /// Begins a new key where there is none or the newest has sealed long enough.
    fn turn(&self, now: u64) {
        if now < self.until.load(Ordering::Acquire) {
            return;
        }
        let mut secrets = self.secrets.lock();
        if secrets.first().is_some_and(|newest| now < newest.since + SEALS) {
            return; // another thread was faster
        }
        let mut bytes = [0; SECRET];
        if getrandom::fill(&mut bytes).is_err() {
            return log::error!("no random numbers for a new ticket key: the old one stays");
        }
        secrets.insert(0, Secret { since: now, bytes });
        secrets.truncate(KEPT);
        self.settle(&secrets);
    }

    fn settle(&self, secrets: &[Secret]) {
        self.until.store(secrets.first().map_or(0, |newest| newest.since + SEALS), Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// For the process that takes over.
    pub fn dump(&self) -> Vec<u8> {
        self.secrets.lock().iter().flat_map(|secret| secret.since.to_le_bytes().into_iter().chain(secret.bytes)).collect()
    }

    /// Takes over the keys of the process before this one; what is no dump is nothing.
    pub fn restore(&self, dump: &[u8]) {
        let (pieces, rest) = dump.as_chunks::<{ 8 + SECRET }>();
        if pieces.is_empty() || !rest.is_empty() {
            return;
        }
        let mut all = Vec::new();
        for piece in pieces.iter().take(KEPT) {
            let (since, secret) = piece.split_at(8);
            let (Ok(since), Ok(bytes)) = (since.try_into(), secret.try_into()) else { return };
            all.push(Secret { since: u64::from_le_bytes(since), bytes });
        }
        let mut secrets = self.secrets.lock();
        *secrets = all;
        self.settle(&secrets);
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys")
    }
}

// === impl Ticketer ===

impl Ticketer {
    /// `context` is the digest of whose certificates are believed; none where nobody's are asked for.
    pub(super) fn new(keys: Arc<TicketKeys>, context: Option<[u8; 32]>) -> Self {
        let context = context.map(Vec::from).unwrap_or_default();
        Ticketer { keys, context, derived: ArcSwap::from_pointee(Derived { generation: 0, keys: Vec::new() }) }
    }

    /// The keys of now.
    fn derived(&self, now: u64) -> Arc<Derived> {
        self.keys.turn(now);
        let generation = self.keys.generation.load(Ordering::Acquire);
        let known = self.derived.load();
        if known.generation == generation {
            return known.clone();
        }
        let secrets = self.keys.secrets.lock().clone();
        let keys = secrets.iter().filter(|secret| now < secret.since + SEALS + u64::from(GOOD)).filter_map(|secret| self.derive(secret));
        let derived = Arc::new(Derived { generation, keys: keys.collect() });
        self.derived.store(derived.clone());
        derived
    }

    fn derive(&self, secret: &Secret) -> Option<([u8; NAME], RandomizedNonceKey)> {
        let (mut name, mut key) = ([0; NAME], [0; 32]);
        let root = Salt::new(HKDF_SHA256, &[]).extract(&secret.bytes);
        root.expand(&[b"sluice ticket name", &self.context], HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        name.copy_from_slice(&key[..NAME]);
        root.expand(&[b"sluice ticket key", &self.context], HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        Some((name, RandomizedNonceKey::new(&AES_256_GCM, &key).ok()?))
    }

    fn seal(&self, now: u64, plain: &[u8]) -> Option<Vec<u8>> {
        let derived = self.derived(now);
        let (name, key) = derived.keys.first()?;
        let mut sealed = plain.to_vec();
        let nonce = key.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        let mut ticket = Vec::with_capacity(NAME + NONCE_LEN + sealed.len());
        ticket.extend_from_slice(name);
        ticket.extend_from_slice(nonce.as_ref());
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn open(&self, now: u64, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let derived = self.derived(now);
        let (_, key) = derived.keys.iter().find(|(known, _)| known == name)?;
        let mut sealed = sealed.to_vec();
        let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(name), &mut sealed).ok()?.len();
        sealed.truncate(length);
        Some(sealed)
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        GOOD
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(clock::now().unix_ms / 1_000, plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(clock::now().unix_ms / 1_000, cipher)
    }
}

impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticketer(keys: &Arc<TicketKeys>, context: Option<[u8; 32]>) -> Ticketer {
        Ticketer::new(keys.clone(), context)
    }

    #[test]
    fn a_ticket_is_good_as_long_as_it_says_and_not_much_longer() {
        let keys = Arc::new(TicketKeys::default());
        let one = ticketer(&keys, None);
        let ticket = one.seal(1_000_000, b"session").unwrap();
        let last = one.seal(1_000_000 + SEALS - 1, b"session").unwrap();
        assert_eq!(ticket[..NAME], last[..NAME], "one key for six hours");
        for after in [0, SEALS, 2 * SEALS, 3 * SEALS - 2] {
            // Others seal meanwhile, and so turn the key.
            one.seal(1_000_000 + after, b"other").unwrap();
            assert_eq!(one.open(1_000_000 + after, &last).as_deref(), Some(&b"session"[..]), "{after}");
        }
        one.seal(1_000_000 + 3 * SEALS, b"other").unwrap();
        assert_eq!(one.open(1_000_000 + 3 * SEALS, &ticket), None);
    }

    #[test]
    fn ten_thousand_clients_resume_whatever_their_order_and_nothing_is_kept_for_them() {
        let keys = Arc::new(TicketKeys::default());
        let (one, other) = (ticketer(&keys, None), ticketer(&keys, None));
        let session = |n: u32| format!("the session of client {n}");
        let tickets: Vec<_> = (0..10_000).map(|n| one.seal(1_000_000 + u64::from(n), session(n).as_bytes()).unwrap()).collect();
        let distinct: std::collections::BTreeSet<_> = tickets.iter().collect();
        assert_eq!(distinct.len(), 10_000);
        // The last first, at another worker, and once more.
        for _ in 0..2 {
            for (n, ticket) in (0..10_000).zip(&tickets).rev() {
                assert_eq!(other.open(1_010_000, ticket).as_deref(), Some(session(n).as_bytes()));
            }
        }
        assert_eq!((keys.secrets.lock().len(), one.derived.load().keys.len()), (1, 1), "one key is all there is");
    }

    #[test]
    fn a_ticket_is_opened_by_every_worker_and_by_the_process_that_takes_over() {
        let keys = Arc::new(TicketKeys::default());
        let ticket = ticketer(&keys, None).seal(1_000_000, b"session").unwrap();
        assert_eq!(ticketer(&keys, None).open(1_000_001, &ticket).as_deref(), Some(&b"session"[..]));
        let next = Arc::new(TicketKeys::default());
        assert_eq!(ticketer(&next, None).open(1_000_001, &ticket), None, "without the keys");
        next.restore(&keys.dump());
        assert_eq!(ticketer(&next, None).open(1_000_001, &ticket).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn a_ticket_is_worth_nothing_where_other_clients_are_believed() {
        let keys = Arc::new(TicketKeys::default());
        let anybody = ticketer(&keys, None).seal(1_000_000, b"session").unwrap();
        let ours = ticketer(&keys, Some([1; 32]));
        assert_eq!(ours.open(1_000_000, &anybody), None);
        let known = ours.seal(1_000_000, b"session").unwrap();
        assert_eq!(ticketer(&keys, Some([2; 32])).open(1_000_000, &known), None);
        assert_eq!(ticketer(&keys, Some([1; 32])).open(1_000_000, &known).as_deref(), Some(&b"session"[..]));
    }

    #[test]
    fn what_is_not_ours_opens_nothing() {
        let keys = Arc::new(TicketKeys::default());
        let one = ticketer(&keys, None);
        let ticket = one.seal(1_000_000, b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(one.open(1_000_000, &ticket[..length]), None);
        }
        for at in 0..ticket.len() {
            let mut other = ticket.clone();
            other[at] ^= 1;
            assert_eq!(one.open(1_000_000, &other), None, "{at}");
        }
        for dump in [&b""[..], b"short", &[7; 81]] {
            keys.restore(dump);
        }
        assert!(one.open(1_000_000, &ticket).is_some(), "a dump that is none changes nothing");
    }
}
