//! How many requests of one caller are on their way at once: decides, exactly, whether there is a place for one more.
//!
//! A place is held by a guard, so that whatever becomes of a request (an answer, a reset, a panic, a task that is cut) gives it back. An entry
//! lives only as long as somebody holds a place: there are never more than requests on their way, which the listeners bound.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderValue;
use http::header::RETRY_AFTER;
use parking_lot::Mutex;

use super::limit::Limit;
use super::used::Used;
use crate::reply::problem::{Kind, Problem};
use crate::report::metrics::series::{AtUpstream, LimitSeries};

pub static CONCURRENCY_LIMITED: Kind = Kind {
    code: "concurrency-limited",
    status: 429,
    error: "Too many requests at once",
    about: "So many requests of the caller as a limit allows at once are on their way. Members `limit` and `key` say which limit and what it counts by; there is a place again when one of them ends.",
};

const SHARDS: usize = 16;

/// The places of all limits that are taken. One for the process; outlives snapshots.
#[derive(Debug, Default)]
pub struct Places {
    shards: [Mutex<HashMap<u128, u32, BuildHasherDefault<Hashed>>>; SHARDS],
}

/// One that is taken, until it is dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    key: u128,
    series: Arc<LimitSeries>,
    /// The upstream that it is at, where the limit counts by that.
    at: Option<Arc<AtUpstream>>,
    /// The name of the limit, and what it counted by.
    pub limit: Arc<str>,
    pub key_kind: &'static str,
    /// How many were taken with this one, of how many.
    pub taken: u32,
    pub most: u32,
}

/// Keys are hashes under a seed already.
#[derive(Debug, Default)]
pub struct Hashed(u64);

// === impl Hashed ===

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

// === impl Places ===

impl Places {
    /// Takes a place of a limit, unless `most` are taken.
    pub fn take(self: &Arc<Self>, used: &Used, chosen: usize, key: u128, key_kind: &'static str, most: u32) -> Option<Place> {
        let limit = &used.limit;
        let taken = {
            let mut shard = self.shard(key).lock();
            let taken = shard.entry(key).or_default();
            if *taken >= most {
                return None;
            }
            *taken += 1;
            *taken
        };
        limit.series().held.fetch_add(1, Relaxed);
        let at = used.at(chosen).cloned();
        if let Some(at) = &at {
            at.held.fetch_add(1, Relaxed);
        }
        Some(Place { places: self.clone(), key, series: limit.series().clone(), at, limit: limit.name().clone(), key_kind, taken, most })
    }

    fn shard(&self, key: u128) -> &Mutex<HashMap<u128, u32, BuildHasherDefault<Hashed>>> {
        // Not the bits by which a map tells its keys apart.
        &self.shards[(key >> 96) as usize % SHARDS]
    }

    fn give_back(&self, key: u128) {
        let mut shard = self.shard(key).lock();
        if let Some(taken) = shard.get_mut(&key) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                shard.remove(&key);
            }
        }
        // After a crowd the room that it took is not kept.
        if shard.capacity() > 1024 && shard.len() * 8 < shard.capacity() {
            shard.shrink_to(1024);
        }
    }

    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.places.give_back(self.key);
        self.series.held.fetch_sub(1, Relaxed);
        if let Some(at) = &self.at {
            at.held.fetch_sub(1, Relaxed);
        }
    }
}

/// Why a request has no place. The client is not told the names of upstreams.
pub fn refusal(limit: &Limit, at: Option<&AtUpstream>, key_kind: &'static str, most: u32) -> Problem {
    let name = limit.name();
    let to = at.map(|at| format!(" to `{}`", at.upstream)).unwrap_or_default();
    Problem::new(&CONCURRENCY_LIMITED)
        .reason(format!("limit `{name}` of {most} at once by {key_kind}: all of them are on their way{to}"))
        .detail(format!("limit `{name}` of {most} at once by {key_kind}; wait until one of them has ended"))
        .member("limit", &**name)
        .member("key", key_kind)
        .header(RETRY_AFTER, HeaderValue::from_static("1"))
}

#[cfg(test)]
mod tests {
    use super::super::limit::tests::limit;
    use super::*;
    use crate::policy::rate_limit::By;

    #[test]
    fn there_are_so_many_places_and_one_comes_back_whatever_happens() {
        let (places, limit) = (Arc::new(Places::default()), limit("slots", "1/s", &[By::Global]));
        let used = Used::on_listener(&limit);
        let take = |key: u128| places.take(&used, 0, key, "global", 2);
        let (one, two) = (take(1).unwrap(), take(1).unwrap());
        assert_eq!((one.taken, two.taken), (1, 2));
        assert!(take(1).is_none() && take(2).is_some());
        drop(one);
        let again = take(1);
        assert!(again.is_some() && take(1).is_none());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = again;
            panic!("in a hook");
        }));
        assert!(panicked.is_err());
        assert!(take(1).is_some());
        drop(two);
        assert_eq!((places.entries(), limit.series().held.load(Relaxed)), (0, 0), "nothing is left behind");
    }

    #[test]
    fn threads_together_never_hold_more_than_there_are() {
        let (places, limit) = (Arc::new(Places::default()), limit("slots", "1/s", &[By::Global]));
        let used = Used::on_listener(&limit);
        let (now, most, admitted) =
            (std::sync::atomic::AtomicI64::new(0), std::sync::atomic::AtomicI64::new(0), std::sync::atomic::AtomicI64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let Some(_place) = places.take(&used, 0, 7, "global", 3) else { continue };
                        most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                        admitted.fetch_add(1, Relaxed);
                        std::thread::yield_now();
                        now.fetch_sub(1, Relaxed);
                    }
                });
            }
        });
        assert!(most.load(Relaxed) <= 3 && admitted.load(Relaxed) > 0, "{most:?}");
        assert_eq!(places.entries(), 0);
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let (places, limit) = (Arc::new(Places::default()), limit("slots", "1/s", &[By::Global]));
        let used = Used::on_listener(&limit);
        let spread = |key: u128| key.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let crowd: Vec<_> = (0..100_000u128).filter_map(|key| places.take(&used, 0, spread(key), "global", 1)).collect();
        assert_eq!(places.entries(), 100_000);
        drop(crowd);
        let room: usize = places.shards.iter().map(|shard| shard.lock().capacity()).sum();
        assert!(places.entries() == 0 && room <= SHARDS * 4096, "{room}");
    }
}
