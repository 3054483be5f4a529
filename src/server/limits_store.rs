//! Settles shared limits with Redis or Valkey, on a thread of its own: sends what this gateway has admitted, and hears what is left.
//!
//! Decides when the store counts as gone: it answers an error, or not within a quarter of a second. Then limits go on with this gateway's
//! part, and it is asked again until it answers. One line in the log at each turn. What follows from it: `policy/limits/shared.rs`.

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
use crate::policy::limits::shared::Due;
use crate::report::metrics::{Metrics, family};

/// Between two settlements.
const TICK: Duration = Duration::from_millis(20);
/// Between two signs of life, and how long one counts.
const ALIVE_MS: u64 = 1_000;
const COUNTS_MS: u64 = 4_000;
/// How long the store may take.
const PATIENCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(500);
/// Callers that are settled in one go.
const BATCH: usize = 1_000;

/// ARGV of a bucket: what is owed, nanoseconds of one token, of the whole. The moment at which it is full is kept, in microseconds of the
/// store's clock. Charged whether it fits or not.
const BUCKET: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] \
    local step, full = ARGV[2] / 1000, ARGV[3] / 1000 \
    local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now) + ARGV[1] * step \
    if tonumber(ARGV[1]) > 0 then redis.call('SET', KEYS[1], string.format('%.3f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000) end \
    return string.format('%.3f', (full - (tat - now)) / step)";
/// ARGV of a window: what is owed, how many in all, milliseconds for which it is kept.
const WINDOW: &str = "local count = redis.call('INCRBY', KEYS[1], ARGV[1]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) \
    return tostring(ARGV[2] - count)";

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
    // The hashes of callers are under one seed, which whoever comes first has chosen.
    let mut seed = [0; 16];
    let _ = getrandom::fill(&mut seed);
    let seed: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("{}:seed", store.prefix);
    let (seed, bucket, window): (String, String, String) = redis::pipe()
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
        .query_async(&mut connection)
        .await?;
    let seed = u128::from_str_radix(&seed, 16).unwrap_or_default();
    buckets.shared.set_seed([seed as u64, (seed >> 64) as u64]);
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
        let now = clock::now();
        if now.unix_ms.saturating_sub(alive) >= ALIVE_MS {
            alive = now.unix_ms;
            let (gateways,): (u32,) = redis::pipe()
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
                .query_async(&mut link.connection)
                .await?;
            buckets.shared.set_gateways(gateways);
            figures.gateways.store(u64::from(gateways), Relaxed);
            if !std::mem::replace(&mut told, true) {
                buckets.shared.set_up(true);
                figures.up.store(1, Relaxed);
                *was_told_gone = false;
                log::info!("limits are shared over the store at {}, by {gateways} gateways", store.address);
            }
        }
        let is_last = is_over.load(Relaxed);
        for batch in buckets.shared.due().chunks(BATCH) {
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
        let key = format!("{}:{:032x}", store.prefix, due.key);
        match pace.kind() {
            Kind::Bucket => {
                let step = pace.per() as f64 / f64::from(pace.count());
                pipe.cmd("EVALSHA").arg(&link.bucket).arg(1).arg(key).arg(due.owed).arg(step).arg(step * f64::from(pace.size()));
            }
            Kind::Fixed | Kind::Sliding => {
                let rest_ms = due.bounds.end.saturating_sub(now.mono) / 1_000_000;
                // Which window, the same at every gateway, whatever its clock says of the second.
                let window = (now.unix_ms + rest_ms + 30_000) / 60_000;
                pipe.cmd("EVALSHA")
                    .arg(&link.window)
                    .arg(1)
                    .arg(format!("{key}:{window}"))
                    .arg(due.owed)
                    .arg(pace.size())
                    .arg(rest_ms + 60_000);
            }
        };
    }
    let left: Vec<String> = pipe.query_async(&mut link.connection).await?;
    let now = clock::mono();
    for (due, left) in batch.iter().zip(left) {
        if let Ok(left) = left.parse() {
            buckets.shared.settled(due, left, now);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::config::types::Rate;
    use crate::policy::buckets::Asking;
    use crate::policy::limits::pace::Pace;
    use crate::policy::limits::window::Bounds;

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
        let (admitted, most) = (AtomicU64::new(0), AtomicU64::new(0));
        let begin = clock::mono();
        std::thread::scope(|scope| {
            for gateway in &gateways {
                let (admitted, most, pace) = (&admitted, &most, &pace);
                scope.spawn(move || {
                    while clock::mono() - begin < 10_000_000_000 {
                        let now = clock::mono();
                        // More than there is: two for each millisecond.
                        let asking = Asking { identity: 1, key: 7, pace, bounds: Bounds::default(), patience: 0 };
                        if gateway.shared.take(now, &asking).is_some_and(|verdict| verdict.retry_after == 0) {
                            let so_far = admitted.fetch_add(1, Relaxed) + 1;
                            let exact = 1_000 + (clock::mono() - begin) / 1_000_000;
                            most.fetch_max(so_far.saturating_sub(exact), Relaxed);
                        }
                        std::thread::park_timeout(Duration::from_micros(500));
                    }
                });
            }
        });
        let exact = 1_000.0 + (clock::mono() - begin) as f64 / 1e6;
        let admitted = admitted.load(Relaxed) as f64;
        assert!((admitted / exact - 1.0).abs() < 0.02, "{admitted} of {exact}");
        assert!(most.load(Relaxed) <= 1_000 / 3, "{most:?} too many at some moment: more than one part");
    }
}
