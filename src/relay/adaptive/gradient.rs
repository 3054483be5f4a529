//! Decides how many requests at once an upstream can take, from how long it takes for them: fewer where answers get slower than they are without a queue.
//!
//! Pure: figures of a window in, a limit out; whoever keeps the time is `mod.rs`. The gradient and its headroom are those of Netflix's concurrency-limits; how long
//! an answer takes without a queue is found as BBR does it: every so often the limit is halved for a moment, so that the queue drains, for else a queue that
//! stands would be taken for the nature of the upstream. Those who go first are cut only where they are the queue themselves.

/// What is known of one window of time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// How long answers took, on average.
    pub took: f64,
    /// The most that was in flight, and what is in flight at its end.
    pub in_flight: u32,
    pub left: u32,
}

/// The limit and what it goes by.
#[derive(Clone, Debug)]
pub struct Gradient {
    least: f64,
    most: f64,
    limit: f64,
    /// How long an answer takes without a queue; 0 where it is not known.
    base: f64,
    phase: Phase,
}

/// What a window is for.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// So many more until the queue is drained.
    Steady(u32),
    /// Half of the limit is for all, or for all but those who go first.
    Draining { all: bool },
    /// Likewise, and how long answers take now is how long they take without a queue.
    Looking { all: bool },
}

/// So much slower answers may be before the limit falls: they differ by themselves.
const TOLERANCE: f64 = 1.5;
/// A window moves the limit by so much of the way.
const STEP: f64 = 0.2;
/// Windows between two looks without a queue.
const BETWEEN: u32 = 100;
/// It has drained where no more than this part of the limit is in flight.
const DRAINED: f64 = 0.55;

// === impl Gradient ===

impl Gradient {
    pub fn new(least: u32, most: u32) -> Self {
        let (least, most) = (f64::from(least), f64::from(most));
        // In the middle of what there may be: it falls by half within half a second, and rises more slowly.
        Gradient { least, most, limit: (least * most).sqrt(), base: 0.0, phase: Phase::Steady(BETWEEN) }
    }

    /// The same within other bounds: what is known of the upstream stays.
    pub fn within(self, least: u32, most: u32) -> Self {
        let (least, most) = (f64::from(least), f64::from(most));
        Gradient { least, most, limit: self.limit.clamp(least, most.max(least)), ..self }
    }

    /// Requests at once.
    pub fn limit(&self) -> u32 {
        match self.phase {
            Phase::Steady(_) | Phase::Draining { all: false } | Phase::Looking { all: false } => self.limit as u32,
            Phase::Draining { all: true } | Phase::Looking { all: true } => self.half(),
        }
    }

    /// What those who do not go first have their share of.
    pub fn limit_of_others(&self) -> u32 {
        match self.phase {
            Phase::Steady(_) => self.limit as u32,
            Phase::Draining { .. } | Phase::Looking { .. } => self.half(),
        }
    }

    fn half(&self) -> u32 {
        (self.limit / 2.0).max(self.least) as u32
    }

    /// How long an answer takes without a queue, where that is known.
    pub fn base(&self) -> f64 {
        self.base
    }

    pub fn observe(&mut self, window: Window) {
        let Window { took, in_flight, left } = window;
        let took = took.max(1.0);
        self.phase = match self.phase {
            Phase::Steady(0) => Phase::Draining { all: false },
            Phase::Steady(windows) => Phase::Steady(windows - 1),
            Phase::Draining { all } => {
                let has_drained = all || f64::from(left) <= self.limit * DRAINED;
                self.phase = if has_drained { Phase::Looking { all } } else { Phase::Draining { all: true } };
                return;
            }
            Phase::Looking { .. } => {
                (self.base, self.phase) = (took, Phase::Steady(BETWEEN));
                return;
            }
        };
        if self.base == 0.0 || took < self.base {
            self.base = if self.base == 0.0 { took } else { self.base + (took - self.base) * 0.3 };
        }
        if f64::from(in_flight) * 2.0 < self.limit {
            // Few are there: whatever makes them slow, it is not their number.
            return;
        }
        let gradient = (TOLERANCE * self.base / took).clamp(0.5, 1.0);
        let aim = self.limit * gradient + self.limit.sqrt();
        self.limit = (self.limit + (aim - self.limit) * STEP).clamp(self.least, self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    /// An upstream that serves so many at once, each for about `service` microseconds; the others wait in its queue.
    struct Upstream {
        places: usize,
        service: f64,
        busy: usize,
        queue: VecDeque<u64>,
        /// When a request is done, and when it had come.
        done: BinaryHeap<Reverse<(u64, u64)>>,
        random: fastrand::Rng,
    }

    impl Upstream {
        fn take(&mut self, now: u64, came: u64) {
            self.busy += 1;
            let takes = self.service * (0.5 + self.random.f64());
            self.done.push(Reverse((now + takes as u64, came)));
        }
    }

    #[derive(Debug)]
    struct Seen {
        answered: f64,
        refused: f64,
        /// Of those who go first.
        first: f64,
        refused_first: f64,
        /// Average microseconds.
        took: f64,
        limit: u32,
    }

    struct World {
        now: u64,
        upstream: Upstream,
        gradient: Gradient,
        window: (u64, f64, u32, u32),
        random: fastrand::Rng,
        /// This part of the requests goes first; the others have this share of the limit.
        first: f64,
        share: u32,
    }

    impl World {
        fn new(most: u32) -> Self {
            let upstream = Upstream {
                places: 20,
                service: 10_000.0,
                busy: 0,
                queue: VecDeque::new(),
                done: BinaryHeap::new(),
                random: fastrand::Rng::with_seed(1),
            };
            World {
                now: 0,
                upstream,
                gradient: Gradient::new(4, most),
                window: (0, 0.0, 0, 0),
                random: fastrand::Rng::with_seed(2),
                first: 1.0,
                share: 100,
            }
        }

        /// Requests come at random, so many a second, whatever becomes of them. What is seen in the second half of the time, a second.
        fn run(&mut self, seconds: u64, per_second: f64) -> Seen {
            let (begin, end) = (self.now, self.now + seconds * 1_000_000);
            let [mut answered, mut refused, mut took, mut first, mut refused_first] = [0.0_f64; 5];
            let mut comes = self.now;
            while self.now < end {
                let done = self.upstream.done.peek().map_or(u64::MAX, |Reverse((at, _))| *at);
                let is_late = self.now > begin + seconds * 500_000;
                let in_flight = (self.upstream.busy + self.upstream.queue.len()) as u32;
                if comes < done {
                    self.now = comes;
                    comes += (-self.random.f64().max(1e-12).ln() * 1_000_000.0 / per_second) as u64 + 1;
                    let goes_first = self.random.f64() < self.first;
                    let most = if goes_first { self.gradient.limit() } else { (self.gradient.limit_of_others() * self.share / 100).max(1) };
                    let counts = f64::from(u8::from(is_late));
                    first += if goes_first { counts } else { 0.0 };
                    if in_flight >= most {
                        refused += counts;
                        refused_first += if goes_first { counts } else { 0.0 };
                    } else if self.upstream.busy < self.upstream.places {
                        self.upstream.take(self.now, self.now);
                    } else {
                        self.upstream.queue.push_back(self.now);
                    }
                    self.window.3 = self.window.3.max(in_flight);
                } else {
                    self.now = done;
                    let Some(Reverse((_, came))) = self.upstream.done.pop() else { continue };
                    self.upstream.busy -= 1;
                    if let Some(next) = self.upstream.queue.pop_front() {
                        self.upstream.take(self.now, next);
                    }
                    let this = (self.now - came) as f64;
                    if is_late {
                        answered += 1.0;
                        took += this;
                    }
                    let (since, sum, count, most) = &mut self.window;
                    *sum += this;
                    *count += 1;
                    let length = 100_000.0_f64.max(2.0 * self.gradient.base());
                    if *count >= 10 && (self.now - *since) as f64 >= length {
                        let left = (self.upstream.busy + self.upstream.queue.len()) as u32;
                        self.gradient.observe(Window { took: *sum / f64::from(*count), in_flight: *most, left });
                        self.window = (self.now, 0.0, 0, 0);
                    }
                }
            }
            let half = seconds as f64 / 2.0;
            let (first, refused_first) = (first / half, refused_first / half);
            let took = took / answered.max(1.0);
            Seen { answered: answered / half, refused: refused / half, first, refused_first, took, limit: self.gradient.limit() }
        }
    }

    /// 20 places of 10 ms answer 2,000 a second.
    const CAPACITY: f64 = 2_000.0;

    #[test]
    fn what_the_upstream_can_do_is_never_refused() {
        let seen = World::new(1_000).run(60, CAPACITY * 0.7);
        assert!(seen.refused < CAPACITY * 0.001, "{seen:?}");
        assert!(seen.took < 13_000.0, "{seen:?}");
    }

    #[test]
    fn three_times_the_load_is_answered_at_full_speed_and_the_rest_refused() {
        // For minutes: a queue that stands must not be taken for the nature of the upstream.
        let mut world = World::new(1_000);
        for minute in 0..5 {
            let seen = world.run(60, CAPACITY * 3.0);
            assert!(seen.answered > CAPACITY * 0.93, "minute {minute}: {seen:?}");
            assert!(seen.took < 25_000.0, "minute {minute}: {seen:?}");
            assert!((20..80).contains(&seen.limit), "minute {minute}: {seen:?}");
        }
    }

    #[test]
    fn without_it_the_same_load_would_wait_a_hundred_times_as_long() {
        let mut world = World::new(2_000);
        world.gradient.least = 2_000.0;
        let seen = world.run(60, CAPACITY * 3.0);
        assert!(seen.took > 900_000.0, "{seen:?}");
    }

    #[test]
    fn an_upstream_that_becomes_slow_gets_less_and_recovers() {
        let mut world = World::new(1_000);
        let before = world.run(60, CAPACITY * 2.0);
        world.upstream.service = 50_000.0;
        let slow = world.run(60, CAPACITY * 2.0);
        assert!(slow.answered > CAPACITY / 5.0 * 0.9 && slow.took < 125_000.0, "{slow:?}");
        // Half of its places are gone.
        world.upstream.places = 10;
        let small = world.run(60, CAPACITY * 2.0);
        assert!(small.answered > CAPACITY / 10.0 * 0.85 && small.took < 150_000.0, "{small:?}");
        world.upstream.service = 10_000.0;
        world.upstream.places = 20;
        let after = world.run(60, CAPACITY * 2.0);
        assert!(after.answered > before.answered * 0.95 && after.took < 25_000.0, "{after:?}, before {before:?}");
    }

    #[test]
    fn those_who_go_first_are_answered_all_the_way_while_the_others_are_refused() {
        let mut world = World::new(1_000);
        // A sixth of three times the load: half of what it can do.
        (world.first, world.share) = (1.0 / 6.0, 60);
        for minute in 0..5 {
            let seen = world.run(60, CAPACITY * 3.0);
            assert!(seen.first > CAPACITY * 0.45, "minute {minute}: {seen:?}");
            assert!(seen.refused_first == 0.0, "minute {minute}: {seen:?}");
            assert!(seen.answered > CAPACITY * 0.9 && seen.took < 25_000.0, "minute {minute}: {seen:?}");
        }
        // Where they alone are too many, the limit holds for them, too.
        (world.first, world.share) = (1.0, 100);
        let seen = world.run(120, CAPACITY * 3.0);
        assert!(seen.answered > CAPACITY * 0.93 && seen.took < 25_000.0, "{seen:?}");
    }

    #[test]
    fn it_stays_within_what_is_written() {
        let mut gradient = Gradient::new(5, 50);
        for _ in 0..1_000 {
            gradient.observe(Window { took: 10.0, in_flight: 1_000, left: 1_000 });
        }
        assert!((25..=50).contains(&gradient.limit()));
        (gradient.base, gradient.phase) = (1.0, Phase::Steady(BETWEEN));
        for _ in 0..50 {
            gradient.observe(Window { took: 1_000_000.0, in_flight: 1_000, left: 1_000 });
        }
        assert_eq!(gradient.limit(), 5);
        // Nobody is there: nothing is learnt.
        let before = gradient.limit();
        gradient.observe(Window { took: 1.0, in_flight: 1, left: 1 });
        assert_eq!(gradient.limit(), before);
    }
}
