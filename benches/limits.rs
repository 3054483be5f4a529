//! What a charge costs: one limit and three, one key and many, one thread and all of them on the same bucket.
//!
//! Time is per charge and thread. `cargo bench --bench limits`

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sluice::config::types::Rate;
use sluice::policy::buckets::{Asking, Buckets};
use sluice::policy::limits::pace::Pace;

const MANY: u64 = 1_000_000;

fn pace(rate: &str) -> Pace {
    let rate = Rate::parse(rate).expect("a rate");
    Pace::new(rate, rate.count).expect("a pace")
}

/// One request with `limits` limits, of the caller with this number.
fn charge(buckets: &Buckets, pace: &Pace, limits: u128, caller: u64, now: u64) -> bool {
    let asking = |limit: u128| Asking {
        identity: limit,
        key: buckets.key(limit, 3, &[&caller.to_le_bytes()]),
        pace,
        bounds: Default::default(),
        patience: 0,
    };
    let askings = [asking(1), asking(2), asking(3)];
    buckets.charge(now, &askings[..limits as usize]).is_admitted
}

fn alone(c: &mut Criterion) {
    let mut group = c.benchmark_group("charge");
    for (name, rate, limits, callers) in [
        ("one limit, one caller", "1000000000/s", 1, 1),
        ("one limit, refused", "1/24h", 1, 1),
        ("one limit, a million callers", "1000000000/s", 1, MANY),
        ("three limits, a million callers", "1000000000/s", 3, MANY),
    ] {
        let (buckets, pace) = (Buckets::default(), pace(rate));
        let mut turn = 0u64;
        group.bench_function(name, |b| {
            b.iter(|| {
                turn += 1;
                // A stride that visits callers out of order.
                charge(&buckets, &pace, limits, black_box(turn.wrapping_mul(0x9e37_79b9) % callers), turn * 1_000)
            });
        });
    }
    let (buckets, pace) = (Buckets::new(1 << 20), pace("1/24h"));
    (0..MANY).for_each(|caller| _ = charge(&buckets, &pace, 1, caller, 0));
    let mut turn = MANY;
    group.bench_function("a new caller while the table is full", |b| {
        b.iter(|| {
            turn += 1;
            charge(&buckets, &pace, 1, black_box(turn), 0)
        });
    });
    group.finish();
}

fn contended(c: &mut Criterion) {
    let mut group = c.benchmark_group("contended");
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    for (name, callers) in [("the same bucket", 1), ("a million callers", MANY)] {
        for threads in [1, cores, 4 * cores] {
            let (buckets, pace, stop) = (Buckets::default(), pace("1000000000/s"), AtomicBool::new(false));
            group.bench_function(BenchmarkId::new(name, threads), |b| {
                stop.store(false, Relaxed);
                std::thread::scope(|scope| {
                    for thread in 1..threads as u64 {
                        let (buckets, pace, stop) = (&buckets, &pace, &stop);
                        scope.spawn(move || {
                            let mut turn = thread << 32;
                            while !stop.load(Relaxed) {
                                turn += 1;
                                charge(buckets, pace, 1, turn.wrapping_mul(0x9e37_79b9) % callers, 0);
                            }
                        });
                    }
                    b.iter_custom(|count| {
                        let start = Instant::now();
                        (0..count).for_each(|turn| _ = black_box(charge(&buckets, &pace, 1, turn.wrapping_mul(0x9e37_79b9) % callers, 0)));
                        start.elapsed()
                    });
                    stop.store(true, Relaxed);
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, alone, contended);
criterion_main!(benches);
