//! A million consumers of a file: how long it takes to read them, how much memory they take, what a look-up costs among them and among ten.
//! `cargo run --release --example consumers [COUNT]`. Says figures; decides nothing.

use std::io::Write;
use std::time::Instant;

use sluice::config::compile;
use sluice::config::plan::Gateway;
use sluice::policy::api_key::hash_key;
use sluice::policy::authenticators::Method;
use sluice::state::State;

const CONFIG: &str = "listeners: { l: { address: 127.0.0.1:1 } }
authenticators: { keys: { api_key: { header: x-api-key } } }
consumers_from: { file: consumers.jsonl }
plans: { pro: { rate: 10000/h } }
routes: { r: { match: { path: /** }, auth: [keys], respond: { status: 204 } } }
";

fn key(n: usize) -> String {
    format!("sk_{n:037}")
}

fn load(folder: &std::path::Path, count: usize) -> Gateway {
    let file = std::fs::File::create(folder.join("consumers.jsonl")).expect("a file can be made");
    let mut lines = std::io::BufWriter::new(file);
    for n in 0..count {
        let hash: String = hash_key(key(n).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        let version = 1 + n % 2;
        writeln!(
            lines,
            r#"{{"consumer":"partner-{n}","keys":[{{"sha256":"{hash}","expires":"2999-01-31"}}],"plan":"pro","scopes":["orders:read"],"tags":{{"version":"v{version}"}}}}"#
        )
        .expect("it can be written");
    }
    lines.flush().expect("it can be written");
    let config = folder.join("sluice.yaml");
    std::fs::write(&config, CONFIG).expect("a file can be written");
    compile::load(&config, &|_| None, &State::default(), None).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

/// Nanoseconds for one key, hash included: the fastest of many rounds.
fn look_up(gateway: &Gateway, count: usize) -> u128 {
    let found = gateway.authenticators.iter().find_map(|one| match &one.method {
        Method::ApiKey(keys) => Some(keys),
        Method::Jwt(_) | Method::Introspection(_) | Method::ClientCertificate(_) => None,
    });
    let keys = found.expect("there is one");
    let asked: Vec<_> = (0..1000)
        .map(|n| {
            let mut headers = http::HeaderMap::new();
            headers.insert("x-api-key", key(n * 7919 % count).parse().expect("it is ASCII"));
            headers
        })
        .collect();
    let round = || {
        let begin = Instant::now();
        for headers in &asked {
            assert!(keys.identify(headers, None, 0).is_ok());
        }
        begin.elapsed().as_nanos() / 1000
    };
    (0..50).map(|_| round()).min().unwrap_or_default()
}

/// A figure of this process in kB, as the kernel has it.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim_matches([':', '\t', ' ', 'k', 'B']).parse().unwrap_or_default()
}

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let folder = std::env::temp_dir().join(format!("sluice-consumers-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let few = load(&folder, 10);
    println!("10 consumers: a look-up takes {} ns", look_up(&few, 10));
    load(&folder, count);
    let (before, begin) = (memory("VmRSS"), Instant::now());
    let many = compile::load(&folder.join("sluice.yaml"), &|_| None, &State::default(), None).unwrap_or_else(|why| panic!("{why:?}"));
    println!("{count} consumers: read in {:.2} s", begin.elapsed().as_secs_f64());
    println!("{} kB resident before, {} kB after, {} kB at most", before, memory("VmRSS"), memory("VmHWM"));
    println!("{count} consumers: a look-up takes {} ns", look_up(&many, count));
    let _ = std::fs::remove_dir_all(&folder);
}
