//! What the store said of a list, as another process takes it over.
//!
//! Decides that it counts only where nothing is known, and is as old as it is. Where it is kept and how long it is believed: `server/kept_lists.rs`.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Lines, ListFile, Origin};
use crate::clock;

/// What the store said.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    key: String,
    /// When the store said so last, in milliseconds since 1970.
    pub read: u64,
    #[serde(serialize_with = "whole", deserialize_with = "shared")]
    lines: Arc<Vec<String>>,
}

// === impl ListFile ===

impl<T: Lines> ListFile<T> {
    /// What the store said last; nothing of a file, and of one that was never read.
    pub fn kept(&self) -> Option<Kept> {
        let Origin::Key(key) = &self.origin else { return None };
        if self.is_unread() {
            return None;
        }
        let (lines, read) = self.said.lock().clone();
        Some(Kept { key: key.clone(), read, lines })
    }

    /// Uses what another process has heard, until the store says more. Whether it does: not where it is of another key, or the store has
    /// said something meanwhile.
    pub fn restore(&self, kept: Kept) -> bool {
        let Kept { key, read, lines } = kept;
        if !self.is_at_key(&key) || !self.is_unread() {
            return false;
        }
        let age = clock::now().unix_ms.saturating_sub(read) / 1000;
        log::warn!("{}: what the store said {age} s ago is used, until it is reached", self.origin);
        self.use_lines(lines, read);
        !self.is_unread()
    }
}

// === impl Kept ===

impl Kept {
    pub fn says_the_same(&self, other: &Kept) -> bool {
        self.key == other.key && (Arc::ptr_eq(&self.lines, &other.lines) || self.lines == other.lines)
    }
}

fn whole<S: Serializer>(lines: &Arc<Vec<String>>, to: S) -> Result<S::Ok, S::Error> {
    lines.as_slice().serialize(to)
}

fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Vec<String>>, D::Error> {
    Vec::deserialize(from).map(Arc::new)
}
