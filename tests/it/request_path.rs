//! No request waits for the store: a look at the sources, since no test could try every moment.
//!
//! Nothing on a request's way names the client of the store or who holds it; and what both sides touch, the accounts of shared limits and
//! the lists, is reached by functions that cannot wait, so that no lock is held while the store is asked.

use std::path::{Path, PathBuf};

/// Where the store may be named: who settles and follows, who reads settings, who shows figures.
const MAY_NAME_IT: [&str; 5] = ["src/server/", "src/store/", "src/config/", "src/cli/", "src/main.rs"];
/// What names it.
const NAMES: [&str; 4] = ["redis::", "crate::store", "limits_store::", "Settler"];
/// What the side of the requests and that of the store have in common.
const IN_COMMON: [&str; 6] = [
    "src/policy/limits/",
    "src/policy/rate_limit.rs",
    "src/policy/buckets.rs",
    "src/policy/list_file.rs",
    "src/policy/revocation.rs",
    "src/policy/consumers.rs",
];
/// What can wait for longer than a lock on memory.
const WAITS: [&str; 10] =
    ["async fn", "async move", ".await", "block_on", ".recv()", "sleep(", "tokio::", "TcpStream", "Condvar", "JoinHandle"];

/// The lines that do something, without tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

fn found<'a>(text: &'a str, words: &[&str]) -> Option<&'a str> {
    code(text).find(|line| words.iter().any(|word| line.contains(word)))
}

fn sources(folder: &Path, all: &mut Vec<(String, String)>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let name = path.strip_prefix(root).unwrap().display().to_string();
            all.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
}

fn all() -> Vec<(String, String)> {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    all
}

#[test]
fn nothing_on_a_requests_way_names_the_store() {
    let all = all();
    assert!(all.iter().any(|(name, _)| name == "src/proxy.rs") && all.len() > 100, "the sources are found");
    for (name, text) in &all {
        let may = MAY_NAME_IT.iter().any(|place| name.starts_with(place));
        assert!(may || found(text, &NAMES).is_none(), "{name}: {}", found(text, &NAMES).unwrap_or_default());
    }
}

#[test]
fn what_requests_and_the_store_have_in_common_cannot_wait() {
    let all = all();
    let common: Vec<_> = all.iter().filter(|(name, _)| IN_COMMON.iter().any(|place| name.starts_with(place))).collect();
    assert!(common.iter().any(|(name, _)| name.ends_with("shared.rs")) && common.len() > 15);
    for (name, text) in common {
        assert!(found(text, &WAITS).is_none(), "{name}: {}", found(text, &WAITS).unwrap_or_default());
    }
}

#[test]
fn who_settles_holds_no_lock_of_the_requests() {
    // The locks are private to the accounts, whose functions give them back before they return.
    for (name, text) in all() {
        if name.starts_with("src/server/limits_store") || name.starts_with("src/server/store_lists") || name.starts_with("src/store/") {
            assert!(found(&text, &[".lock()", "MutexGuard", "RwLock"]).is_none(), "{name}");
        }
        if name == "src/policy/limits/shared.rs" {
            assert!(found(&text, &["-> MutexGuard", "pub shards", "pub fn shard"]).is_none(), "{name}: a lock gets out");
        }
    }
}

#[test]
fn a_look_at_the_sources_finds_what_it_looks_for() {
    assert!(found("fn a() {\n    shard.lock().settle().await;\n}\n", &WAITS).is_some());
    assert!(found("use redis::Client;\n", &NAMES).is_some());
    assert!(found("// a redis::Client is not named here\n#[cfg(test)]\nmod tests { use redis::Client; }\n", &NAMES).is_none());
}
