//! Whole lines that stand behind those of the next head on a connection, without being fields of it.
//!
//! Decides nothing: who tells them is in `exchange/beside.rs`, the session writes them. What was written for an answer stays where it is until
//! the next one is written over it: room that is made, or cleared, for each answer costs more than these few bytes.

#[derive(Debug, Default)]
pub struct Beside {
    room: Vec<u8>,
    end: usize,
}

// === impl Beside ===

impl Beside {
    /// In place of what was there: `write` is given room of at least so many bytes, and says how many it used.
    #[inline]
    pub fn write(&mut self, room: usize, write: impl FnOnce(&mut [u8]) -> usize) {
        if self.room.len() < room {
            self.room.resize(room, 0);
        }
        self.end = write(&mut self.room).min(self.room.len());
    }

    pub fn text(&self) -> &[u8] {
        self.room.get(..self.end).unwrap_or_default()
    }

    /// What is there was written, or is not to be.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    pub fn has_room(&self) -> bool {
        !self.room.is_empty()
    }
}
