//! Settles shared limits with Redis or Valkey, on a thread of its own: sends what this gateway has admitted, and hears what is left.
//!
//! Decides when the store counts as gone: it answers an error, or not within a quarter of a second. Then limits go on with this gateway's
//! part, and it is asked again until it answers. One line in the log at each turn. What follows from it: `policy/limits/shared.rs`.
//! Windows and signs of life are by the store's clock, which is the same for all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError};

use crate::clock;
use crate::config::plan::LimitsStore;
use crate::ctx::Now;
use crate::policy::buckets::Buckets;
use crate::policy::limits::pace::Kind;
use crate::policy::limits::shared::{Due, SETTLED_EVERY, Said};
use crate::policy::limits::window::Bounds;
use crate::report::metrics::{Metrics, family};

/// Between two settlements.
const TICK: Duration = Duration::from_millis(SETTLED_EVERY);
/// Between two signs of life, and how long one counts.
const ALIVE_MS: u64 = 1_000;
const COUNTS_MS: u64 = 4_000;
/// How long the store may take.
const PATIENCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(1);
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

/// The thread that settles, until it is dropped.
pub struct Settler {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub store: LimitsStore,
}

/// What is shown of it.
#[derive(Clone)]
pub struct StoreFigures {
    up: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    gateways: Arc<AtomicU64>,
}

struct Link {
    connection: MultiplexedConnection,
    bucket: String,
    window: String,
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
    pub fn start(store: &LimitsStore, buckets: Arc<Buckets>, figures: StoreFigures) -> Result<Settler, String> {
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

async fn run(store: &LimitsStore, buckets: &Buckets, figures: &StoreFigures, is_over: &AtomicBool) {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    let me = format!("{:016x}", u64::from_ne_bytes(random));
    let mut was_told_gone = false;
    while !is_over.load(Relaxed) {
        let why = match connect(store, buckets).await {
            Ok(mut link) => {
                let ended = serve(store, buckets, figures, is_over, &me, &mut link, &mut was_told_gone).await;
                let Err(why) = ended else { return };
                why
            }
            Err(why) => why,
        };
        let since = if buckets.shared.is_up() || figures.failures.load(Relaxed) == 0 {
            clock::now().unix_ms
        } else {
            buckets.shared.last_turn().at
        };
        buckets.shared.note(since, Some(why.to_string()));
        buckets.shared.set_up(false);
        figures.up.store(0, Relaxed);
        figures.failures.fetch_add(1, Relaxed);
        if !std::mem::replace(&mut was_told_gone, true) {
            let part = figures.gateways.load(Relaxed).max(1);
            log::warn!("the store of limits at {} is gone: {why}; limits go on here with one part of {part}", store.address);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn connect(store: &LimitsStore, buckets: &Buckets) -> Result<Link, RedisError> {
    let (host, port) = store.address.rsplit_once(':').unwrap_or((&store.address, "6379"));
    let mut login = RedisConnectionInfo::default();
    if let Some(username) = &store.username {
        login = login.set_username(username);
    }
    if let Some(password) = &store.password {
        login = login.set_password(password.reveal());
    }
    let address = ConnectionAddr::Tcp(host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or(6379));
    let info: ConnectionInfo = address.into_connection_info()?.set_redis_settings(login);
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(PATIENCE));
    let mut connection = Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await?;
    // The hashes of callers are under one seed, which whoever comes first has chosen. A store that has lost it gets back the one in use.
    let [low, high] = buckets.shared.seed();
    let mut seed = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    if seed == [0; 16] {
        let _ = getrandom::fill(&mut seed);
    }
    let seed = format!("{:032x}", u128::from_le_bytes(seed));
    let name = format!("{}:seed", store.prefix);
    let (seed, bucket, window, time): (String, String, String, (u64, u64)) = redis::pipe()
        .cmd("SET")
        .arg(&name)
        .arg(seed)
        .arg("NX")
        .ignore()
        .cmd("GET")
        .arg(&name)
        .cmd("SCRIPT")
        .arg("LOAD")
        .arg(BUCKET)
        .cmd("SCRIPT")
        .arg("LOAD")
        .arg(WINDOW)
        .cmd("TIME")
        .query_async(&mut connection)
        .await?;
    let seed = u128::from_str_radix(&seed, 16).unwrap_or_default();
    buckets.shared.set_seed([seed as u64, (seed >> 64) as u64]);
    buckets.shared.set_clock(time.0 * 1_000 + time.1 / 1_000, clock::now().unix_ms);
    Ok(Link { connection, bucket, window })
}

/// Settles until it is over, or fails.
async fn serve(
    store: &LimitsStore,
    buckets: &Buckets,
    figures: &StoreFigures,
    is_over: &AtomicBool,
    me: &str,
    link: &mut Link,
    was_told_gone: &mut bool,
) -> Result<(), RedisError> {
    let (mut told, mut alive) = (false, 0);
    let members = format!("{}:gateways", store.prefix);
    loop {
        let now = buckets.shared.now(clock::now());
        if now.unix_ms.saturating_sub(alive) >= ALIVE_MS {
            alive = now.unix_ms;
            let (gateways, time): (u32, (u64, u64)) = redis::pipe()
                .cmd("ZADD")
                .arg(&members)
                .arg(now.unix_ms)
                .arg(me)
                .ignore()
                .cmd("ZREMRANGEBYSCORE")
                .arg(&members)
                .arg("-inf")
                .arg(now.unix_ms.saturating_sub(COUNTS_MS))
                .ignore()
                .cmd("ZCARD")
                .arg(&members)
                .cmd("TIME")
                .query_async(&mut link.connection)
                .await?;
            buckets.shared.set_clock(time.0 * 1_000 + time.1 / 1_000, clock::now().unix_ms);
            buckets.shared.set_gateways(gateways);
            figures.gateways.store(u64::from(gateways), Relaxed);
            if !std::mem::replace(&mut told, true) {
                buckets.shared.note(clock::now().unix_ms, None);
                buckets.shared.set_up(true);
                figures.up.store(1, Relaxed);
                *was_told_gone = false;
                log::info!("limits are shared over the store at {}, by {gateways} gateways", store.address);
            }
        }
        let is_last = is_over.load(Relaxed);
        for batch in buckets.shared.due(now.mono).chunks(BATCH) {
            settle(store, buckets, link, batch, now).await?;
        }
        if is_last {
            let () = redis::cmd("ZREM").arg(&members).arg(me).query_async(&mut link.connection).await?;
            return Ok(());
        }
        tokio::time::sleep(TICK).await;
    }
}

async fn settle(store: &LimitsStore, buckets: &Buckets, link: &mut Link, batch: &[Due], now: Now) -> Result<(), RedisError> {
    let mut pipe = Pipeline::with_capacity(batch.len());
    for due in batch {
        let pace = &due.pace;
        match pace.kind() {
            Kind::Bucket => {
                let step = pace.per() as f64 / f64::from(pace.count());
                let key = key(store, due.key, None);
                pipe.cmd("EVALSHA").arg(&link.bucket).arg(1).arg(key).arg(due.owed).arg(step).arg(step * f64::from(pace.size()));
            }
            Kind::Fixed => {
                let (window, rest) = window(due, now);
                pipe.cmd("EVALSHA").arg(&link.window).arg(1).arg(key(store, due.key, Some(window))).arg(due.owed).arg(rest + KEPT_MS);
            }
            Kind::Sliding => {
                let (this, rest) = window(due, now);
                let length = (due.bounds.length / 1_000_000) as i64;
                let (last, _) =
                    window(&Due { bounds: Bounds { end: due.bounds.end.saturating_sub(due.bounds.length), ..due.bounds }, ..*due }, now);
                let (this, last) = (key(store, due.key, Some(this)), key(store, due.key, Some(last)));
                pipe.cmd("EVALSHA").arg(&link.window).arg(2).arg(this).arg(last).arg(due.owed).arg(rest + length + KEPT_MS);
            }
        };
    }
    let said: Vec<String> = pipe.query_async(&mut link.connection).await?;
    let now = clock::mono();
    for (due, said) in batch.iter().zip(said) {
        let said = match (due.pace.kind(), said.split_once(' ')) {
            (Kind::Bucket, _) => said.parse().ok().map(Said::Bucket),
            (Kind::Fixed | Kind::Sliding, Some((count, before))) => {
                count.parse().ok().zip(before.parse().ok()).map(|(count, before)| Said::Window(count, before))
            }
            (Kind::Fixed | Kind::Sliding, None) => None,
        };
        if let Some(said) = said {
            buckets.shared.settled(due, said, now);
        }
    }
    Ok(())
}

/// What belongs to one caller of one limit lies together, in a cluster too.
fn key(store: &LimitsStore, caller: u128, window: Option<i64>) -> String {
    match window {
        None => format!("{}:{{{caller:032x}}}", store.prefix),
        Some(window) => format!("{}:{{{caller:032x}}}:{window}", store.prefix),
    }
}

/// Which window, the same at every gateway, and the milliseconds until it ends: by the minute in which it does, as calendars and windows of
/// minutes do, or by how many of its length there were since 1970.
fn window(due: &Due, now: Now) -> (i64, i64) {
    let rest = (due.bounds.end as i64 - now.mono as i64) / 1_000_000;
    let length = (due.bounds.length / 1_000_000).max(1) as i64;
    let unit = if length % MINUTE_MS == 0 { MINUTE_MS } else { length };
    ((now.unix_ms as i64 + rest + unit / 2).div_euclid(unit), rest.max(0))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::config::types::Rate;
    use crate::policy::buckets::Asking;
    use crate::policy::limits::pace::Pace;

    /// A store on a free port; it ends with the test.
    struct Redis(Child);

    impl Drop for Redis {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn redis() -> (Redis, String) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let child = command.stdout(Stdio::null()).spawn().expect("`scripts/setup.sh test` installs redis-server");
        (Redis(child), format!("127.0.0.1:{port}"))
    }

    #[test]
    fn three_gateways_admit_a_thousand_a_second_together_over_a_real_store() {
        let (_redis, address) = redis();
        let store = LimitsStore { address, username: None, password: None, prefix: "test".to_owned() };
        let metrics = Metrics::new();
        let figures = StoreFigures::register(&metrics);
        let gateways: Vec<_> = (0..3).map(|_| Arc::new(Buckets::new(0))).collect();
        let _settlers: Vec<_> = gateways.iter().map(|one| Settler::start(&store, one.clone(), figures.clone()).unwrap()).collect();
        let begin = clock::mono();
        while !gateways.iter().all(|one| one.shared.is_up() && one.shared.gateways() == 3) {
            assert!(clock::mono() - begin < 30_000_000_000, "the store was not reached");
            std::thread::yield_now();
        }
        let pace = Pace::new(Rate::parse("1000/s").unwrap(), 1000).unwrap();
        // One caller comes to all alike, another nearly always to the first. Both want twice what there is.
        let loads = [(7, [2, 2, 2]), (8, [4, 1, 1])];
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
        let exact = 1_000.0 + (clock::mono() - begin) as f64 / 1e6;
        for ((_, load), (admitted, most)) in loads.iter().zip(counts) {
            let (admitted, most) = (admitted.into_inner() as f64, most.into_inner());
            println!("{load:?}: {admitted} admitted of {exact}, at most {most} too many at some moment");
            assert!((admitted / exact - 1.0).abs() < 0.02, "{load:?}: {admitted} of {exact}");
            assert!(most <= 1_000 / 3, "{load:?}: {most} too many at some moment: more than one lease");
        }
    }
}
