//! Carries the buckets into a table of another size, and into the next process.
//!
//! A dump holds every bucket that is not at rest: hash, used time, pace. It is taken shard by shard while requests go on, so
//! what is charged to a shard after its rows were written is not in it. Decides what a valid dump is; a bad one changes nothing.
//! Does not decide when to dump nor how the bytes travel.
//!
//! Layout, numbers in little endian: 8 bytes magic and version; seed 16; counts of rows, overflow rows and paces, 8 each; the
//! rows (key or limit 16, nanoseconds until it is at rest 8, fraction or count 4, requests of the window before 2, index of the pace
//! 2); the paces (kind 4, count 4, size 4, nanoseconds 8); SipHash-1-3 of all that, 8.

use std::collections::BTreeMap;
use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use super::pace::{Kind, Pace, Span};
use super::table::{SHARDS, State, Table, sets_per_shard, shard_of};
use crate::policy::buckets::Buckets;

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"buckets\x03";
const HEAD: usize = 8 + 16 + 3 * 8;
const ROW: usize = 32;
const PACE: usize = 20;
const SUM: usize = 8;

/// Whether what a pace counts is worth to be kept through a restart.
pub fn is_long(pace: &Pace) -> bool {
    pace.kind() != Kind::Bucket && pace.per() >= LONG
}

/// What became of the buckets of a dump, or of a table that was replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Buckets that go on where they were.
    pub kept: u64,
    /// Buckets that found no place, those nearest to rest; they start full again.
    pub lost: u64,
}

/// Why a dump was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDump {
    #[error("these are not buckets of this version")]
    Version,
    #[error("the length does not fit the counts")]
    Length,
    #[error("the checksum does not fit the bytes")]
    Checksum,
    #[error("a row says what cannot be")]
    Row,
}

/// One row: a key, or the identity of a limit for its overflow bucket.
#[derive(Clone, Copy)]
struct Row {
    key: u128,
    /// The time until it is at rest, with what a state has for a fraction.
    rest: Span,
    before: u16,
    pace: Pace,
}

/// What a dump is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whole {
    /// All that is counted, for a process that takes over at once.
    All,
    /// Only windows of an hour or more, for one that comes later.
    Long,
}

/// From which on a window outlives a restart.
const LONG: u64 = 3_600_000_000_000;

struct Dump {
    seed: [u64; 2],
    rows: Vec<Row>,
    overflow: Vec<Row>,
}

// === impl Buckets ===

impl Buckets {
    /// All buckets that are not at rest, for [`restore`](Buckets::restore) in another process. About 32 bytes a bucket.
    pub fn dump(&self, now: u64) -> Vec<u8> {
        self.dump_of(Whole::All, now)
    }

    pub fn dump_of(&self, whole: Whole, now: u64) -> Vec<u8> {
        let mut out = Writer { whole, bytes: vec![0; HEAD], paces: BTreeMap::new(), list: Vec::new() };
        let mut counts = [0u64; 3];
        for shard in &self.shards {
            let mut table = shard.table.lock();
            table.latest = table.latest.max(now);
            for (key, state) in table.busy() {
                counts[0] += u64::from(out.row(key, &state, table.latest));
            }
        }
        let overflow = self.overflow.lock();
        let latest = overflow.latest.max(now);
        for (identity, state) in overflow.states.iter().filter(|(_, state)| !state.is_at_rest(latest)) {
            counts[1] += u64::from(out.row(*identity, state, latest));
        }
        drop(overflow);
        counts[2] = out.list.len() as u64;
        out.finish(self.seed(), counts)
    }

    /// Takes over what another process dumped, seed included, and forgets what was here: before the first request is judged.
    /// The time between dump and restore counts as none, so nobody gets a token for it.
    pub fn restore(&self, dump: &[u8], now: u64) -> Result<Moved, BadDump> {
        self.restore_after(dump, now, 0)
    }

    /// The same after so many nanoseconds in which nobody counted.
    pub fn restore_after(&self, dump: &[u8], now: u64, passed: u64) -> Result<Moved, BadDump> {
        let Dump { seed, rows, overflow } = Dump::read(dump)?;
        let mut moved = Moved::default();
        let mut parts: Vec<Vec<(u128, State)>> = vec![Vec::new(); SHARDS];
        for row in rows {
            parts[shard_of(row.key)].extend(row.state(now, passed).map(|state| (row.key, state)));
        }
        self.set_seed(seed);
        for (shard, states) in self.shards.iter().zip(parts) {
            let mut table = shard.table.lock();
            let part = fill(&mut table, states, now);
            shard.set_in_use(part.kept);
            moved.kept += part.kept;
            moved.lost += part.lost;
        }
        let mut mine = self.overflow.lock();
        mine.latest = now;
        mine.states = overflow.iter().filter_map(|row| Some((row.key, row.state(now, passed)?))).collect();
        Ok(moved)
    }

    /// Gives the table another size, shard by shard, while requests go on. Nothing happens where the size is the same.
    pub fn resize(&self, bytes: u64, now: u64) -> Moved {
        let sets = sets_per_shard(bytes);
        let mut moved = Moved::default();
        for shard in &self.shards {
            let mut table = shard.table.lock();
            if table.sets.len() == sets {
                continue;
            }
            let latest = table.latest.max(now);
            table.latest = latest;
            let states = table.busy().collect();
            *table = Table::new(sets, latest);
            let part = fill(&mut table, states, latest);
            shard.set_in_use(part.kept);
            moved.kept += part.kept;
            moved.lost += part.lost;
        }
        moved
    }
}

/// Empties a table and puts these buckets into it, those first that are furthest from rest.
fn fill(table: &mut Table, mut states: Vec<(u128, State)>, now: u64) -> Moved {
    *table = Table::new(table.sets.len(), now);
    states.sort_unstable_by_key(|(_, state)| std::cmp::Reverse(state.full_again));
    let mut moved = Moved::default();
    for (key, state) in states {
        match table.vacancy(key, |_, _| false) {
            Some((set, way)) => {
                table.put(set, way, key, state);
                moved.kept += 1;
            }
            None => moved.lost += 1,
        }
    }
    moved
}

// === impl Row ===

impl Row {
    /// None where it has come to rest.
    fn state(&self, now: u64, passed: u64) -> Option<State> {
        let left = self.rest.ns.checked_sub(passed)?;
        let full_again = Span { ns: now.saturating_add(left), frac: self.rest.frac };
        Some(State { full_again, pace: self.pace.id(), before: self.before })
    }
}

// === impl Writer ===

struct Writer {
    whole: Whole,
    bytes: Vec<u8>,
    /// From the id of a pace, which means something in this process only, to its index in the dump.
    paces: BTreeMap<u16, u16>,
    list: Vec<Pace>,
}

impl Writer {
    /// Whether a row was written.
    fn row(&mut self, key: u128, state: &State, now: u64) -> bool {
        let Some(known) = Pace::known(state.pace) else { return false };
        if self.whole == Whole::Long && !is_long(&known) {
            return false;
        }
        // What those who wait here have taken ahead is not the next process's to wait for.
        let rest = match known.kind() {
            Kind::Bucket => state.used_then(now).min(known.full()),
            Kind::Fixed | Kind::Sliding => state.used_then(now),
        };
        let list = &mut self.list;
        let index = *self.paces.entry(state.pace).or_insert_with(|| {
            list.push(known);
            (list.len() - 1) as u16
        });
        self.bytes.extend_from_slice(&key.to_le_bytes());
        self.bytes.extend_from_slice(&rest.ns.to_le_bytes());
        self.bytes.extend_from_slice(&rest.frac.to_le_bytes());
        self.bytes.extend_from_slice(&state.before.to_le_bytes());
        self.bytes.extend_from_slice(&index.to_le_bytes());
        true
    }

    fn finish(mut self, seed: [u64; 2], counts: [u64; 3]) -> Vec<u8> {
        for pace in &self.list {
            let (count, size, per) = pace.parts();
            self.bytes.extend_from_slice(&(pace.kind() as u32).to_le_bytes());
            self.bytes.extend_from_slice(&count.to_le_bytes());
            self.bytes.extend_from_slice(&size.to_le_bytes());
            self.bytes.extend_from_slice(&per.to_le_bytes());
        }
        self.bytes[..8].copy_from_slice(&MAGIC);
        for (place, number) in self.bytes[8..HEAD].chunks_exact_mut(8).zip(seed.into_iter().chain(counts)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let sum = checksum(&self.bytes);
        self.bytes.extend_from_slice(&sum.to_le_bytes());
        self.bytes
    }
}

fn checksum(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(0, 0);
    hasher.write(bytes);
    hasher.finish()
}

// === impl Dump ===

impl Dump {
    fn read(bytes: &[u8]) -> Result<Dump, BadDump> {
        let mut head = bytes.strip_prefix(&MAGIC).ok_or(BadDump::Version)?;
        let mut number = || take::<8>(&mut head).map(u64::from_le_bytes).ok_or(BadDump::Length);
        let seed = [number()?, number()?];
        let counts = [number()?, number()?, number()?];
        let count = |number: u64, size: usize| usize::try_from(number).ok().and_then(|n| n.checked_mul(size)).ok_or(BadDump::Length);
        let (rows, overflow, paces) = (count(counts[0], ROW)?, count(counts[1], ROW)?, count(counts[2], PACE)?);
        let all = [HEAD, rows, overflow, paces, SUM].into_iter().try_fold(0usize, |sum, n| sum.checked_add(n));
        if all != Some(bytes.len()) {
            return Err(BadDump::Length);
        }
        let (body, sum) = bytes.split_at(bytes.len() - SUM);
        if sum != checksum(body).to_le_bytes() {
            return Err(BadDump::Checksum);
        }
        let (rows, rest) = body[HEAD..].split_at(rows);
        let (overflow, paces) = rest.split_at(overflow);
        let paces = paces.chunks_exact(PACE).map(read_pace).collect::<Option<Vec<Pace>>>().ok_or(BadDump::Row)?;
        let read = |rows: &[u8]| rows.chunks_exact(ROW).map(|row| read_row(row, &paces)).collect::<Option<Vec<Row>>>();
        Ok(Dump { seed, rows: read(rows).ok_or(BadDump::Row)?, overflow: read(overflow).ok_or(BadDump::Row)? })
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*first)
}

fn read_pace(mut bytes: &[u8]) -> Option<Pace> {
    let kind = u32::from_le_bytes(take(&mut bytes)?);
    let kind = [Kind::Bucket, Kind::Fixed, Kind::Sliding].into_iter().find(|known| *known as u32 == kind)?;
    let count = u32::from_le_bytes(take(&mut bytes)?);
    let size = u32::from_le_bytes(take(&mut bytes)?);
    Pace::from_parts(kind, count, size, u64::from_le_bytes(take(&mut bytes)?))
}

fn read_row(mut bytes: &[u8], paces: &[Pace]) -> Option<Row> {
    let key = u128::from_le_bytes(take(&mut bytes)?);
    let ns = u64::from_le_bytes(take(&mut bytes)?);
    let frac = u32::from_le_bytes(take(&mut bytes)?);
    let before = u16::from_le_bytes(take(&mut bytes)?);
    let pace = *paces.get(usize::from(u16::from_le_bytes(take(&mut bytes)?)))?;
    let rest = Span { ns, frac };
    let can_be = match pace.kind() {
        Kind::Bucket => rest <= pace.full() && frac < pace.parts().0,
        // A month may be longer than the measure of months, and a sliding window counts for two.
        Kind::Fixed | Kind::Sliding => ns <= pace.per().saturating_mul(3),
    };
    can_be.then_some(Row { key, rest, before, pace })
}

#[cfg(test)]
mod tests {
    use super::super::pace::tests::{Dice, pace};
    use super::super::window::Bounds;
    use super::*;
    use crate::policy::buckets::{Asking, Verdict};

    const SECOND: u64 = 1_000_000_000;

    fn ask(buckets: &Buckets, caller: u64, pace: &Pace, now: u64) -> Verdict {
        let key = buckets.key(1, 0, &[&caller.to_le_bytes()]);
        buckets.charge(now, &[Asking { identity: 1, key, pace, bounds: Bounds::default(), patience: 0 }]).verdicts[0]
    }

    /// A thousand callers, each of whom has used some of ten.
    fn used(bytes: u64, pace: &Pace, now: u64) -> Buckets {
        let buckets = Buckets::new(bytes);
        for caller in 0..1_000 {
            (0..caller % 10).for_each(|_| _ = ask(&buckets, caller, pace, now));
        }
        buckets
    }

    #[test]
    fn the_next_process_goes_on_where_the_last_one_was_on_a_clock_of_its_own() {
        let pace = pace("7/h", 10);
        let old = used(1 << 20, &pace, 5_000 * SECOND);
        let dump = old.dump(5_000 * SECOND);
        let new = Buckets::new(1 << 19);
        assert_eq!(new.restore(&dump, 3 * SECOND), Ok(Moved { kept: 900, lost: 0 }));
        assert_eq!(new.figures().in_use, 900);
        for caller in 0..1_000 {
            assert_eq!(ask(&new, caller, &pace, 3 * SECOND), ask(&old, caller, &pace, 5_000 * SECOND), "caller {caller}");
        }
    }

    #[test]
    fn a_dump_leaves_out_what_is_at_rest_and_carries_overflow_buckets() {
        let (slow, fast) = (pace("3/h", 3), pace("3/s", 3));
        let old = Buckets::new(0);
        for caller in 0..2_000 {
            ask(&old, caller, &fast, 0);
        }
        assert_eq!(old.dump(SECOND).len(), HEAD + SUM);
        for caller in 0..2_000 {
            ask(&old, caller, &slow, SECOND);
        }
        assert!(ask(&old, 5_000, &slow, SECOND).is_overflow);
        let new = Buckets::new(0);
        let moved = new.restore(&old.dump(SECOND), 0).unwrap();
        assert_eq!(moved, Moved { kept: old.figures().in_use, lost: 0 });
        let late = ask(&new, 5_000, &slow, 0);
        assert!(late.is_overflow && late.retry_after > 0, "{late:?}");
    }

    /// Requests of one caller that a window admits, with so many nanoseconds of it left.
    fn admitted(buckets: &Buckets, pace: &Pace, now: u64, rest: u64) -> usize {
        let bounds = Bounds { end: now + rest, length: pace.per() };
        let key = buckets.key(1, 0, &[b"caller"]);
        (0..100).filter(|_| buckets.charge(now, &[Asking { identity: 1, key, pace, bounds, patience: 0 }]).is_admitted).count()
    }

    #[test]
    fn windows_are_handed_over_and_those_of_an_hour_outlive_a_restart() {
        const HOUR: u64 = 3600 * SECOND;
        for (kind, kept_after) in [(Kind::Fixed, [0, 10]), (Kind::Sliding, [0, 0])] {
            let (long, short) = (
                Pace::of_windows(kind, 10, std::time::Duration::from_secs(3600)).unwrap(),
                Pace::of_windows(kind, 10, std::time::Duration::from_secs(60)).unwrap(),
            );
            let old = Buckets::new(1 << 18);
            assert_eq!(admitted(&old, &long, 9 * HOUR, HOUR / 2), 10);
            let new = Buckets::new(1 << 18);
            new.restore(&old.dump(9 * HOUR), 3).unwrap();
            assert_eq!(admitted(&new, &long, 3, HOUR / 2), 0, "{kind:?}");
            // A restart a minute and half an hour later, on a clock of its own.
            for (passed, expected) in [60 * SECOND, HOUR / 2 + 1].into_iter().zip(kept_after) {
                let new = Buckets::new(1 << 18);
                new.restore_after(&old.dump_of(Whole::Long, 9 * HOUR), 3, passed).unwrap();
                let rest = if passed > HOUR / 2 { HOUR } else { HOUR / 2 - passed };
                assert_eq!(admitted(&new, &long, 3, rest), expected, "{kind:?} after {passed}");
            }
            assert_eq!(admitted(&old, &short, 20 * HOUR, SECOND), 10);
            assert_eq!(old.dump_of(Whole::Long, 20 * HOUR).len(), HEAD + SUM, "{kind:?}: nothing is worth keeping");
        }
    }

    #[test]
    fn a_damaged_dump_changes_nothing() {
        let pace = pace("7/h", 10);
        let good = used(1 << 20, &pace, 0).dump(0);
        let here = Buckets::new(1 << 20);
        (0..4).for_each(|_| _ = ask(&here, 7, &pace, 0));
        let mut dice = Dice(7);
        for _ in 0..300 {
            let mut bad = good.clone();
            match dice.roll(3) {
                0 => bad.truncate(dice.roll(good.len() as u64) as usize),
                1 => bad.push(0),
                _ => bad[dice.roll(good.len() as u64) as usize] ^= 1 << dice.roll(8),
            }
            assert!(here.restore(&bad, 0).is_err());
        }
        assert_eq!(here.restore(b"", 0), Err(BadDump::Version));
        assert_eq!(ask(&here, 7, &pace, 0).reading.remaining, 5);
    }

    #[test]
    fn a_dump_of_another_version_or_with_impossible_rows_is_refused() {
        let pace = pace("7/h", 10);
        let good = used(1 << 20, &pace, 0).dump(0);
        let forge = |change: &dyn Fn(&mut [u8])| {
            let mut bytes = good[..good.len() - SUM].to_vec();
            change(&mut bytes);
            let sum = checksum(&bytes);
            bytes.extend_from_slice(&sum.to_le_bytes());
            Buckets::new(0).restore(&bytes, 0)
        };
        assert!(forge(&|_| ()).is_ok());
        assert_eq!(forge(&|bytes| bytes[7] += 1), Err(BadDump::Version));
        // A count that would overflow, a used part larger than the bucket, a fraction that is none, a pace that is not there.
        assert_eq!(forge(&|bytes| bytes[24..32].fill(0xff)), Err(BadDump::Length));
        assert_eq!(forge(&|bytes| bytes[HEAD + 16..HEAD + 24].fill(0xff)), Err(BadDump::Row));
        assert_eq!(forge(&|bytes| bytes[HEAD + 24] = 7), Err(BadDump::Row));
        assert_eq!(forge(&|bytes| bytes[HEAD + 30] = 1), Err(BadDump::Row));
    }

    #[test]
    fn a_table_that_grows_or_shrinks_keeps_every_bucket_that_has_room() {
        let pace = pace("7/h", 10);
        let (table, like) = (used(1 << 20, &pace, 0), used(1 << 20, &pace, 0));
        assert_eq!(table.resize(1 << 20, 0), Moved::default(), "the same size");
        for bytes in [4 << 20, 1 << 18] {
            assert_eq!(table.resize(bytes, 0), Moved { kept: 900, lost: 0 });
            assert_eq!((table.figures().bytes, table.figures().in_use), (bytes, 900));
        }
        for caller in 0..1_000 {
            assert_eq!(ask(&table, caller, &pace, 0), ask(&like, caller, &pace, 0), "caller {caller}");
        }
    }

    #[test]
    fn where_too_few_slots_are_left_those_nearest_to_rest_are_lost() {
        let pace = pace("7/h", 10);
        let table = used(1 << 20, &pace, 0);
        let moved = table.resize(0, 0);
        assert_eq!(moved.kept + moved.lost, 900);
        assert_eq!(moved.kept, table.figures().in_use);
        assert!(moved.kept > 400, "{moved:?}");
        let lost = |level: u64| {
            let key = |caller: u64| table.key(1, 0, &[&caller.to_le_bytes()]);
            let here: Vec<u128> = table.shards.iter().flat_map(|s| s.table.lock().busy().map(|(key, _)| key).collect::<Vec<_>>()).collect();
            (0..100).filter(|n| !here.contains(&key(n * 10 + level))).count()
        };
        assert!(lost(1) > 60 && lost(9) < 10, "{} {}", lost(1), lost(9));
    }
}
