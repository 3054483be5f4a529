//! The key set of a provider, fetched again and again, and kept through outages, reloads, upgrades and restarts.
//!
//! Decides what of a set is believed and how old it may be. Fetching is in `keeper.rs`; what waits for an unknown key in `wish.rs`.
//! On the way of a request nothing is fetched here.

mod answer;
mod keeper;
mod settings;
mod wish;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use http::HeaderValue;
use http::header::RETRY_AFTER;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

pub use self::keeper::{Keeper, keep};
pub use self::settings::{RefreshSettings, Source};
pub use self::wish::Wished;
use self::wish::Wishes;
use super::keys::KeySet;
use crate::policy::Stop;
use crate::reply::problem::{Kind, Problem};

pub static KEYS_UNAVAILABLE: Kind = Kind {
    code: "keys-unavailable",
    status: 503,
    error: "Service unavailable",
    about: "The token cannot be verified now: no key set has been fetched yet, or the token's `kid` is new and the provider cannot be asked. See `sluice_key_set_fetches_total` and the log.",
};

pub static KEYS_TOO_OLD: Kind = Kind {
    code: "keys-too-old",
    status: 503,
    error: "Service unavailable",
    about: "The provider's key set could not be fetched for longer than the authenticator's `keys.max_age` allows.",
};

/// A provider's key set; shared by all snapshots whose settings for it are the same.
pub struct Published {
    pub source: Source,
    held: ArcSwapOption<Held>,
    /// Why the last attempt failed; none where it did not.
    trouble: Mutex<Option<String>>,
    failures: AtomicU32,
    /// When it is fetched next, in milliseconds since 1970.
    next: AtomicU64,
    /// Whether somebody fetches it: not so in `check`, `explain` and tests.
    is_kept: AtomicBool,
    wishes: Mutex<Wishes>,
    wish: Notify,
    /// How many attempts have ended.
    attempts: watch::Sender<u64>,
    pub counts: Counts,
}

/// What happened since the authenticator's set was first asked for in this process.
#[derive(Debug, Default)]
pub struct Counts {
    pub fetched: AtomicU64,
    pub failed: AtomicU64,
    /// Fetches because of a key that was not known.
    pub wished: AtomicU64,
    /// Unknown keys that were not asked for: asked for a moment ago, or too many.
    pub held_back: AtomicU64,
}

/// A set that was fetched and read.
pub struct Held {
    pub keys: KeySet,
    /// As it came; what is stored and handed over.
    text: Box<str>,
    /// When it was fetched, in milliseconds since 1970.
    fetched: u64,
    /// How long it need not be fetched again.
    fresh: Duration,
    /// Changes when a key goes or changes: what was verified before is to be verified again.
    pub epoch: u64,
}

/// A set as it is stored and handed over.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    pub identity: String,
    fetched: u64,
    fresh_ms: u64,
    keys: String,
}

/// What is shown of it.
pub struct Shown {
    pub keys: usize,
    pub fetched: Option<u64>,
    pub next: u64,
    /// Why the last attempt failed; none where it did not, or there was none.
    pub trouble: Option<String>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
}

// === impl Published ===

impl Published {
    pub fn new(source: Source) -> Self {
        Published {
            source,
            held: ArcSwapOption::empty(),
            trouble: Mutex::new(None),
            failures: AtomicU32::new(0),
            next: AtomicU64::new(0),
            is_kept: AtomicBool::new(false),
            wishes: Mutex::default(),
            wish: Notify::new(),
            attempts: watch::Sender::new(0),
            counts: Counts::default(),
        }
    }

    /// The keys at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// Why there are none: never fetched, or too long ago.
    pub fn keys(&self, now: u64) -> Result<Guard<Option<Arc<Held>>>, Stop> {
        let held = self.held.load();
        match (&*held, self.source.max_age) {
            (None, _) => Err(self.unavailable("no key set has been fetched yet")),
            (Some(held), Some(max_age)) if now.saturating_sub(held.fetched) > ms(max_age) => {
                let age = now.saturating_sub(held.fetched) / 1000;
                let reason = format!("the key set is {age} s old, `max_age` is {} s{}", max_age.as_secs(), self.because());
                Err(later(&KEYS_TOO_OLD, reason))
            }
            (Some(_), _) => Ok(held),
        }
    }

    /// The refusal of a token whose key is not known, where the provider could not be asked for it.
    pub fn unreachable(&self) -> Option<Stop> {
        let is_in_trouble = self.trouble.lock().is_some();
        is_in_trouble.then(|| self.unavailable("the token's key is not known"))
    }

    /// The refusal of a token whose key the provider was asked for in vain.
    pub fn unanswered(&self) -> Stop {
        self.unavailable("the token's key is not known, and the provider has not answered within a second")
    }

    fn unavailable(&self, why: &str) -> Stop {
        later(&KEYS_UNAVAILABLE, format!("{why}{}", self.because()))
    }

    fn because(&self) -> String {
        self.trouble.lock().as_ref().map(|why| format!("; {why}")).unwrap_or_default()
    }

    /// Takes a set that was fetched at `now`.
    ///
    /// # Errors
    /// Why it is of no use. What is held stays.
    fn take(&self, text: &str, now: u64, fresh: Duration) -> Result<(), String> {
        let (keys, refused) = KeySet::read_published(text, &self.source.algorithms)?;
        let before = self.held.load_full();
        if before.as_ref().is_none_or(|before| *before.text != *text) {
            let name = &self.source.authenticator;
            for why in refused {
                log::warn!("authenticator {name}: {why}; it is passed over");
            }
            log::info!("authenticator {name}: {} keys from {}", keys.len(), self.source.origin);
        }
        let epoch = before.map_or(0, |before| if keys.has_all_of(&before.keys) { before.epoch } else { before.epoch + 1 });
        self.next.store(now + ms(jittered(fresh)), Relaxed);
        self.held.store(Some(Arc::new(Held { keys, text: text.into(), fetched: now, fresh, epoch })));
        Ok(())
    }

    /// Takes over what an earlier snapshot held for the same provider under other settings.
    pub fn adopt(&self, earlier: &Published) {
        if self.source.identity() == earlier.source.identity() {
            self.held.store(earlier.held.load_full());
            self.next.store(earlier.next.load(Relaxed), Relaxed);
        }
    }

    /// What is to be stored or handed over.
    pub fn kept(&self) -> Option<Kept> {
        let held = self.held.load();
        let Held { keys: _, text, fetched, fresh, epoch: _ } = &**held.as_ref()?;
        Some(Kept { identity: self.source.identity(), fetched: *fetched, fresh_ms: ms(*fresh), keys: text.to_string() })
    }

    /// Takes over what another process held, unless what is held here is newer.
    pub fn restore(&self, kept: &Kept, now: u64) {
        let Kept { identity, fetched, fresh_ms, keys } = kept;
        let is_older = self.held.load().as_ref().is_some_and(|held| held.fetched >= *fetched);
        // What comes from the future was stored by a clock that was wrong.
        if *identity != self.source.identity() || is_older || *fetched > now {
            return;
        }
        let fresh = Duration::from_millis(*fresh_ms).min(self.source.latest);
        if let Err(why) = self.take(keys, *fetched, fresh) {
            log::warn!("authenticator {}: the key set that was kept {why}", self.source.authenticator);
        }
    }

    pub fn has_keys(&self) -> bool {
        self.held.load().is_some()
    }

    /// Waits until there are keys.
    pub async fn first(&self) {
        let mut attempts = self.attempts.subscribe();
        // The sender lives as long as `self`.
        let _ = attempts.wait_for(|_| self.has_keys()).await;
    }

    pub fn shown(&self) -> Shown {
        let held = self.held.load();
        Shown {
            keys: held.as_ref().map_or(0, |held| held.keys.len()),
            fetched: held.as_ref().map(|held| held.fetched),
            next: self.next.load(Relaxed),
            trouble: self.trouble.lock().clone(),
            failures: self.failures.load(Relaxed),
        }
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("source", &self.source).finish_non_exhaustive()
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Somewhat less, by chance: many gateways shall not ask at the same moment.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.2 * fastrand::f64())
}

fn later(kind: &'static Kind, reason: String) -> Stop {
    Problem::new(kind)
        .detail("Tokens cannot be verified at the moment.")
        .reason(reason)
        .header(RETRY_AFTER, HeaderValue::from_static("5"))
        .into()
}

#[cfg(test)]
mod tests;
