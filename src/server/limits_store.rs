//! Settles shared limits with Redis or Valkey, on a thread of its own: sends what this gateway has admitted, and hears what is left.
//!
//! Decides when the store counts as gone: it answers an error, or not within a quarter of a second. Then limits go on with this gateway's
//! part, and it is asked again until it answers. One line in the log at each turn. What follows from it: `policy/limits/shared.rs`.
//! Windows and signs of life are by the store's clock, which is the same for all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::Cmd;

use crate::clock;
use crate::ctx::Now;
use crate::policy::buckets::Buckets;
use crate::policy::limits::pace::Kind;
use crate::policy::limits::shared::{Due, SETTLED_EVERY, Said};
use crate::policy::limits::window::Bounds;
use crate::report::metrics::{Metrics, family};
use crate::store::{Link, Store};

/// Between two settlements.
const TICK: Duration = Duration::from_millis(SETTLED_EVERY);
/// Between two signs of life, and how long one counts.
const ALIVE_NS: u64 = 1_000_000_000;
const COUNTS_MS: u64 = 4_000;
/// Turns of one minute that are told at once; others a while later, where they last.
const TOLD_A_MINUTE: usize = 10;
const MINUTE_NS: u64 = 60_000_000_000;
const AGAIN: Duration = Duration::from_millis(500);
/// How long a window is kept after its end, for those who settle late.
const KEPT_MS: i64 = 60_000;
const MINUTE_MS: i64 = 60_000;
/// Callers that are settled in one go.
const BATCH: usize = 1_000;

/// ARGV of a bucket: what is owed, nanoseconds of one token, of the whole. The moment at which it is full is kept, in microseconds of the
/// store's clock. Charged whether it fits or not.
const BUCKET: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] \
    local step, full = ARGV[2] / 1000, ARGV[3] / 1000 \
    local tat = math.max(math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + ARGV[1] * step, now) \
    if tonumber(ARGV[1]) ~= 0 then redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000) end \
    return string.format('%.3f', (full - (tat - now)) / step)";
/// KEYS of a window: its own and, of a sliding one, that of the one before. ARGV: what is owed, milliseconds for which it is kept.
const WINDOW: &str = "local count = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[2]) \
    return count .. ' ' .. (KEYS[2] and redis.call('GET', KEYS[2]) or 0)";

/// KEYS: the gateways, with the moment of their last sign by the store's clock. ARGV: who gives one, milliseconds for which it counts.
const SIGN: &str = "local t = redis.call('TIME') local now = t[1] * 1000 + math.floor(t[2] / 1000) \
    redis.call('ZADD', KEYS[1], now, ARGV[1]) redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2]) \
    return {redis.call('ZCARD', KEYS[1]), now}";

/// The thread that settles, until it is dropped.
pub struct Settler {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub store: Store,
}

/// What is shown of it.
#[derive(Clone)]
pub struct StoreFigures {
    up: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    gateways: Arc<AtomicU64>,
}

/// The digests of what is loaded into the store.
struct Scripts {
    bucket: String,
    window: String,
}

/// What was told last of whether the store answers. One that comes and goes all the time does not fill the log.
#[derive(Default)]
struct Turns {
    told: Option<bool>,
    /// When the last ones were told.
    at: VecDeque<u64>,
}

// === impl Turns ===

impl Turns {
    /// Whether it is to be told now.
    fn is_new(&mut self, is_up: bool) -> bool {
        self.is_new_at(is_up, clock::mono())
    }

    fn is_new_at(&mut self, is_up: bool, now: u64) -> bool {
        if self.told == Some(is_up) {
            return false;
        }
        while self.at.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE_NS) {
            self.at.pop_front();
        }
        if self.at.len() >= TOLD_A_MINUTE {
            return false;
        }
        self.at.push_back(now);
        self.told = Some(is_up);
        true
    }
}

// === impl StoreFigures ===

impl StoreFigures {
    pub fn register(metrics: &Metrics) -> StoreFigures {
        StoreFigures {
            up: metrics.number(&family::LIMIT_STORE_UP, &[]),
            failures: metrics.number(&family::LIMIT_STORE_FAILURES, &[]),
            gateways: metrics.number(&family::LIMIT_GATEWAYS, &[]),
        }
    }
}

// === impl Settler ===

impl Settler {
    /// # Errors
    /// The thread cannot be started.
    pub fn start(store: &Store, buckets: Arc<Buckets>, figures: StoreFigures) -> Result<Settler, String> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, settings) = (is_over.clone(), store.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| format!("limits_store: {e}"))?;
        let thread = std::thread::Builder::new().name("limits store".to_owned()).spawn(move || {
            runtime.block_on(run(&settings, &buckets, &figures, &over));
            buckets.shared.set_up(false);
        });
        Ok(Settler { is_over, thread: Some(thread.map_err(|e| format!("limits_store: {e}"))?), store: store.clone() })
    }
}

impl Drop for Settler {
    /// What was admitted is settled once more.
    fn drop(&mut self) {
        self.is_over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn run(store: &Store, buckets: &Buckets, figures: &StoreFigures, is_over: &AtomicBool) {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    let me = format!("{:016x}", u64::from_ne_bytes(random));
    let mut turns = Turns::default();
    while !is_over.load(Relaxed) {
        let Err(why) = settle_on(store, buckets, figures, is_over, &me, &mut turns).await else { return };
        let is_turn = buckets.shared.is_up() || figures.failures.load(Relaxed) == 0;
        let since = if is_turn { clock::now().unix_ms } else { buckets.shared.last_turn().at };
        buckets.shared.note(since, Some(why.clone()));
        buckets.shared.set_up(false);
        figures.up.store(0, Relaxed);
        figures.failures.fetch_add(1, Relaxed);
        if turns.is_new(false) {
            let part = buckets.shared.gateways();
            log::warn!("the store of limits at {store} is gone: {why}; limits go on here with one part of {part}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Settles until it is over, or fails.
async fn settle_on(
    store: &Store,
    buckets: &Buckets,
    figures: &StoreFigures,
    is_over: &AtomicBool,
    me: &str,
    turns: &mut Turns,
) -> Result<(), String> {
    let mut link = Link::connect(store).await?;
    let scripts = prepare(store, buckets, &mut link).await?;
    let mut alive: Option<u64> = None;
    loop {
        let is_last = is_over.load(Relaxed);
        let now = clock::mono();
        if alive.is_none_or(|alive| now.saturating_sub(alive) >= ALIVE_NS) {
            let is_first = alive.replace(now).is_none();
            let gateways = sign(store, buckets, &mut link, me).await?;
            buckets.shared.set_gateways(gateways);
            figures.gateways.store(u64::from(gateways), Relaxed);
            if is_first {
                buckets.shared.note(clock::now().unix_ms, None);
                buckets.shared.set_up(true);
                figures.up.store(1, Relaxed);
            }
        }
        link.holds()?;
        let now = buckets.shared.now(clock::now());
        for batch in buckets.shared.due(now.mono).chunks(BATCH) {
            settle(store, buckets, &mut link, &scripts, batch, now).await?;
        }
        if turns.is_new(true) {
            log::info!("limits are shared over the store at {store}, by {} gateways", buckets.shared.gateways());
        }
        if is_last {
            return redis::cmd("ZREM").arg(members(store)).arg(me).query_async(&mut link).await.map_err(|e| e.to_string());
        }
        tokio::time::sleep(TICK).await;
    }
}

/// What has to be there before anything is settled. The hashes of callers are under one seed, which whoever comes first has chosen; a store
/// that has lost it gets back the one in use.
async fn prepare(store: &Store, buckets: &Buckets, link: &mut Link) -> Result<Scripts, String> {
    let [low, high] = buckets.shared.seed();
    let mut seed = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    if seed == [0; 16] {
        let _ = getrandom::fill(&mut seed);
    }
    let (name, seed) = (format!("{}:seed", store.prefix), format!("{:032x}", u128::from_le_bytes(seed)));
    let mut pipe = redis::pipe();
    pipe.cmd("SET").arg(&name).arg(seed).arg("NX").ignore().cmd("GET").arg(&name);
    let (seed,): (String,) = pipe.query_async(link).await.map_err(|e| e.to_string())?;
    let seed = u128::from_str_radix(&seed, 16).map_err(|_| format!("what is in `{name}` is no seed"))?;
    buckets.shared.set_seed([seed as u64, (seed >> 64) as u64]);
    let mut scripts = Vec::new();
    for script in [BUCKET, WINDOW] {
        // In a cluster, at every node.
        let loaded = redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(link).await;
        scripts.push(loaded.map_err(|e| e.to_string())?);
    }
    let [bucket, window] = <[String; 2]>::try_from(scripts).map_err(|_| "scripts are missing".to_owned())?;
    Ok(Scripts { bucket, window })
}

/// Gives a sign of life. How many gateways there are.
async fn sign(store: &Store, buckets: &Buckets, link: &mut Link, me: &str) -> Result<u32, String> {
    let mut question = redis::cmd("EVAL");
    question.arg(SIGN).arg(1).arg(members(store)).arg(me).arg(COUNTS_MS);
    let (gateways, time): (u32, u64) = question.query_async(link).await.map_err(|e| e.to_string())?;
    buckets.shared.set_clock(time, clock::now().unix_ms);
    Ok(gateways)
}

async fn settle(store: &Store, buckets: &Buckets, link: &mut Link, scripts: &Scripts, batch: &[Due], now: Now) -> Result<(), String> {
    let said = link.ask_all(batch.iter().map(|due| question(store, scripts, due, now)).collect()).await?;
    let now = clock::mono();
    for (due, said) in batch.iter().zip(said) {
        if let Some(said) = read(due, &said) {
            buckets.shared.settled(due, said, now);
        }
    }
    Ok(())
}

fn question(store: &Store, scripts: &Scripts, due: &Due, now: Now) -> Cmd {
    let mut question = redis::cmd("EVALSHA");
    match due.pace.kind() {
        Kind::Bucket => {
            let step = due.pace.per() as f64 / f64::from(due.pace.count());
            let key = key(store, due.key, None);
            question.arg(&scripts.bucket).arg(1).arg(key).arg(due.owed).arg(step).arg(step * f64::from(due.pace.size()));
        }
        Kind::Fixed => {
            let (window, rest) = window(due.bounds, now);
            question.arg(&scripts.window).arg(1).arg(key(store, due.key, Some(window))).arg(due.owed).arg(rest + KEPT_MS);
        }
        Kind::Sliding => {
            let (this, rest) = window(due.bounds, now);
            let length = (due.bounds.length / 1_000_000) as i64;
            let (last, _) = window(Bounds { end: due.bounds.end.saturating_sub(due.bounds.length), ..due.bounds }, now);
            let (this, last) = (key(store, due.key, Some(this)), key(store, due.key, Some(last)));
            question.arg(&scripts.window).arg(2).arg(this).arg(last).arg(due.owed).arg(rest + length + KEPT_MS);
        }
    }
    question
}

fn read(due: &Due, said: &str) -> Option<Said> {
    match due.pace.kind() {
        Kind::Bucket => said.parse().ok().map(Said::Bucket),
        Kind::Fixed | Kind::Sliding => {
            let (count, before) = said.split_once(' ')?;
            Some(Said::Window(count.parse().ok()?, before.parse().ok()?))
        }
    }
}

fn members(store: &Store) -> String {
    format!("{}:gateways", store.prefix)
}

/// What belongs to one caller of one limit lies together, in a cluster too.
fn key(store: &Store, caller: u128, window: Option<i64>) -> String {
    match window {
        None => format!("{}:{{{caller:032x}}}", store.prefix),
        Some(window) => format!("{}:{{{caller:032x}}}:{window}", store.prefix),
    }
}

/// Which window, the same at every gateway, and the milliseconds until it ends: by the minute in which it does, as calendars and windows of
/// minutes do, or by how many of its length there were since 1970.
fn window(bounds: Bounds, now: Now) -> (i64, i64) {
    let rest = (bounds.end as i64 - now.mono as i64) / 1_000_000;
    let length = (bounds.length / 1_000_000).max(1) as i64;
    let unit = if length % MINUTE_MS == 0 { MINUTE_MS } else { length };
    ((now.unix_ms as i64 + rest + unit / 2).div_euclid(unit), rest.max(0))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::process::{Child, Command, Stdio};

    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::config::types::Rate;
    use crate::policy::buckets::Asking;
    use crate::policy::limits::pace::Pace;
    use crate::store::settings::{Host, Login, Place};

    /// A store on a port that is held for it, so that nobody else is given it; it ends with the test.
    struct Redis {
        child: Child,
        _held: Socket,
    }

    impl Drop for Redis {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn redis() -> (Redis, String) {
        let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        held.set_reuse_address(true).unwrap();
        held.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        let port = held.local_addr().unwrap().as_socket().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.stdout(Stdio::null()).spawn().expect("`scripts/setup.sh test` installs redis-server");
        (Redis { child, _held: held }, format!("127.0.0.1:{port}"))
    }

    #[test]
    fn each_turn_is_told_unless_there_is_one_after_the_other() {
        let mut turns = Turns::default();
        let told = (0..100u64).filter(|at| turns.is_new_at(at % 2 == 0, at * 1_000_000)).count();
        assert_eq!(told, TOLD_A_MINUTE);
        assert!(!turns.is_new_at(false, MINUTE_NS), "it was told last that it is gone");
        assert!(turns.is_new_at(true, MINUTE_NS), "a minute later there is room again");
    }

    #[test]
    fn three_gateways_admit_a_thousand_a_second_together_over_a_real_store() {
        let (_redis, address) = redis();
        let place = Place::One(Host::parse(&address).unwrap());
        let store = Store { place, login: Login::default(), tls: None, prefix: "test".to_owned() };
        let metrics = Metrics::new();
        let figures = StoreFigures::register(&metrics);
        let gateways: Vec<_> = (0..3).map(|_| Arc::new(Buckets::new(0))).collect();
        let _settlers: Vec<_> = gateways.iter().map(|one| Settler::start(&store, one.clone(), figures.clone()).unwrap()).collect();
        for round in 3..8 {
            let begin = clock::mono();
            while !gateways.iter().all(|one| one.shared.is_up() && one.shared.gateways() == 3) {
                assert!(clock::mono() - begin < 30_000_000_000, "the store was not reached");
                std::thread::yield_now();
            }
            let failures = figures.failures.load(Relaxed);
            let pace = Pace::new(Rate::parse("1000/s").unwrap(), 1000).unwrap();
            // One caller comes to all alike, another nearly always to the first. Both want twice what there is.
            let loads = [(2 * round, [2, 2, 2]), (2 * round + 1, [4, 1, 1])];
            let counts: Vec<_> = loads.iter().map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
            let begin = clock::mono();
            std::thread::scope(|scope| {
                for (at, gateway) in gateways.iter().enumerate() {
                    let (counts, pace) = (&counts, &pace);
                    scope.spawn(move || {
                        let mut asked = [0; 2];
                        while clock::mono() - begin < 10_000_000_000 {
                            for (index, (key, per_ms)) in loads.iter().enumerate() {
                                let (admitted, most) = &counts[index];
                                // As many as are due by now, however busy the machine is.
                                while asked[index] < per_ms[at] * (clock::mono() - begin) / 1_000_000 {
                                    asked[index] += 1;
                                    let asking = Asking { identity: 1, key: *key, pace, bounds: Bounds::default(), patience: 0 };
                                    if gateway.shared.take(clock::mono(), &asking).is_some_and(|verdict| verdict.retry_after == 0) {
                                        let so_far = admitted.fetch_add(1, Relaxed) + 1;
                                        let exact = 1_000 + (clock::mono() - begin) / 1_000_000;
                                        most.fetch_max(so_far.saturating_sub(exact), Relaxed);
                                    }
                                }
                            }
                            std::thread::park_timeout(Duration::from_micros(500));
                        }
                    });
                }
            });
            let is_late = clock::mono() - begin > 10_050_000_000;
            if figures.failures.load(Relaxed) != failures || is_late {
                // A machine that is so busy that the store was not heard for a quarter of a second, which is another test's, or that a gateway asked
                // on when the others had ended.
                continue;
            }
            let exact = 1_000.0 + (clock::mono() - begin) as f64 / 1e6;
            for ((_, load), (admitted, most)) in loads.iter().zip(counts) {
                let (admitted, most) = (admitted.into_inner() as f64, most.into_inner());
                println!("{load:?}: {admitted} admitted of {exact}, at most {most} too many at some moment");
                assert!((admitted / exact - 1.0).abs() < 0.02, "{load:?}: {admitted} of {exact}");
                assert!(most <= 1_000 / 3, "{load:?}: {most} too many at some moment: more than one lease");
            }
            return;
        }
        panic!("the store was not there, or this machine was late, in each of five rounds of ten seconds");
    }
}
