//! What was found last for one upstream, and how asking goes: kept over reloads as long as the source is the same.
//!
//! Decides nothing.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Source;
use super::kubernetes::Slices;
use crate::clock;
use crate::relay::targets::address::Address;
use crate::relay::targets::members::Member;

/// The last good answer of a source.
#[derive(Debug)]
pub struct Found {
    pub source: Source,
    list: ArcSwapOption<Vec<Member>>,
    state: Mutex<Asked>,
    pub counts: Counts,
    /// Where following goes on after the first answer.
    resume: Mutex<Option<Resume>>,
}

/// How far the question before a snapshot took over has led, so that it is not asked twice.
#[derive(Debug)]
pub(super) enum Resume {
    /// The index of the answer.
    Consul(u64),
    Kubernetes(Slices),
}

/// How asking went since the start.
#[derive(Debug, Default)]
pub struct Counts {
    pub good: AtomicU64,
    pub failed: AtomicU64,
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When the source answered last, in milliseconds since 1970; none where it never did.
    pub answered: Option<u64>,
    /// When an answer last differed from the one before.
    pub changed: Option<u64>,
    /// Why the last attempt failed.
    pub trouble: Option<String>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
}

/// The last good answer, for the process that takes over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    pub upstream: String,
    /// The source in words: another one has other targets.
    pub from: String,
    members: Vec<KeptMember>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct KeptMember {
    address: String,
    weight: NonZeroU16,
    priority: u16,
    zone: Option<String>,
}

// === impl Kept ===

impl Kept {
    pub fn of(upstream: &str, found: &Found) -> Option<Kept> {
        let member = |member: &Member| KeptMember {
            address: member.address.to_string(),
            weight: member.weight,
            priority: member.priority,
            zone: member.zone.as_deref().map(str::to_owned),
        };
        let members = found.list()?.iter().map(member).collect();
        Some(Kept { upstream: upstream.to_owned(), from: found.source.to_string(), members })
    }

    pub fn members(&self) -> Vec<Member> {
        let member = |kept: &KeptMember| {
            let KeptMember { address, weight, priority, zone } = kept;
            Some(Member {
                address: Address::parse(address).ok()?,
                weight: *weight,
                drain: false,
                priority: *priority,
                zone: zone.as_deref().map(Into::into),
            })
        };
        self.members.iter().filter_map(member).collect()
    }
}

// === impl Found ===

impl Found {
    pub fn new(source: Source) -> Found {
        Found { source, list: ArcSwapOption::empty(), state: Mutex::default(), counts: Counts::default(), resume: Mutex::default() }
    }

    /// The last good answer; none before the first.
    pub fn list(&self) -> Option<Arc<Vec<Member>>> {
        self.list.load_full()
    }

    /// A good answer. Whether it differs from the one before.
    pub fn answered(&self, members: &[Member]) -> bool {
        let now = clock::now().unix_ms;
        let differs = self.list.load().as_ref().is_none_or(|known| **known != members);
        if differs {
            self.list.store(Some(Arc::new(members.to_vec())));
        }
        self.counts.good.fetch_add(1, Relaxed);
        let mut state = self.state.lock();
        let changed = if differs { Some(now) } else { state.changed };
        *state = Asked { answered: Some(now), changed, trouble: None, failures: 0 };
        differs
    }

    pub(super) fn resume_at(&self, at: Resume) {
        *self.resume.lock() = Some(at);
    }

    /// Once.
    pub(super) fn resume(&self) -> Option<Resume> {
        self.resume.lock().take()
    }

    /// The last good answer that another process had: no answer of the source's own.
    pub fn take_over(&self, members: &[Member]) {
        self.list.store(Some(Arc::new(members.to_vec())));
    }

    /// No answer, or none that can be used. Whether the one before was good, or the reason is another.
    pub fn failed(&self, why: &str) -> bool {
        self.counts.failed.fetch_add(1, Relaxed);
        let mut state = self.state.lock();
        state.failures = state.failures.saturating_add(1);
        state.trouble.replace(why.to_owned()).as_deref() != Some(why)
    }

    pub fn asked(&self) -> Asked {
        self.state.lock().clone()
    }
}
