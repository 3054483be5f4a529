//! Follows a list in the store: reads all of it at the beginning, whenever something is published on its channel, and from time to time in
//! case that a publication was lost.
//!
//! Decides how a silent connection is found out: what this gateway publishes itself, once a second, must come back. That measures the lag,
//! too. What an entry says is judged in `policy/list_file.rs`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use redis::Msg;

use super::kept_lists::KeptList;
use crate::clock;
use crate::policy::list_file::{Follow, LARGEST_OF_STORE};
use crate::store::{Link, Store, link};

/// Between two of our own publications, and how long one may be on its way.
const BEAT: Duration = Duration::from_secs(1);
const LOST_NS: u64 = 5_000_000_000;
/// It is read again after so long, whatever was heard.
const AT_LEAST_NS: u64 = 30_000_000_000;
const AGAIN: Duration = Duration::from_millis(500);
/// Entries that the store is asked for at once.
const BATCH: usize = 1_000;

/// Until it is aborted. Whoever goes by the list is told when it was read. Where nobody is reached, what was `kept` is used.
pub async fn follow(key: String, list: Arc<dyn Follow>, store: Store, mut kept: Option<KeptList>, tell: impl Fn()) {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    let own = format!("{key}:ping:{:016x}", u64::from_ne_bytes(random));
    loop {
        if let Err(why) = follow_on(&key, &own, &list, &store, &tell).await {
            if list.is_unread()
                && let Some(kept) = kept.take()
                && kept.restore(&list).await
            {
                tell();
            }
            list.failed(why);
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn follow_on(key: &str, own: &str, list: &Arc<dyn Follow>, store: &Store, tell: &impl Fn()) -> Result<(), String> {
    let mut heard = link::listen(store).await?;
    heard.subscribe(&[key, own]).await.map_err(|e| e.to_string())?;
    let mut link = Link::connect(store).await?;
    // After the subscription, so that nothing is missed in between.
    read(key, list, &mut link).await?;
    tell();
    let mut messages = pin!(heard.on_message());
    let mut beat = tokio::time::interval(BEAT);
    let (mut trip, mut last, mut was_read) = (0, clock::mono(), clock::mono());
    loop {
        let mut is_rung = false;
        let begin;
        tokio::select! {
            message = poll_fn(|cx| messages.as_mut().poll_next(cx)) => {
                begin = clock::mono();
                let mut message = Some(message.ok_or("the connection has ended")?);
                // All that have come by now are answered at once.
                while let Some(next) = message {
                    match sent(&next, own) {
                        Some(sent) => (trip, last) = (begin.saturating_sub(sent), begin),
                        None => is_rung = true,
                    }
                    message = poll_fn(|cx| match messages.as_mut().poll_next(cx) {
                        Poll::Ready(next) => Poll::Ready(next),
                        Poll::Pending => Poll::Ready(None),
                    })
                    .await;
                }
                list.counts().lag.store(trip / 1_000, Relaxed);
            }
            _ = beat.tick() => {
                begin = clock::mono();
                if begin.saturating_sub(last) > LOST_NS {
                    return Err("cannot be followed: what is published does not come back".to_owned());
                }
                link.holds()?;
                let mut publish = redis::cmd("PUBLISH");
                publish.arg(own).arg(begin);
                let () = publish.query_async(&mut link).await.map_err(|e| e.to_string())?;
                is_rung = begin.saturating_sub(was_read) >= AT_LEAST_NS;
            }
        }
        if is_rung {
            read(key, list, &mut link).await?;
            tell();
            was_read = clock::mono();
            list.counts().lag.store((trip + was_read.saturating_sub(begin)) / 1_000, Relaxed);
        }
    }
}

/// When we have published it, where we have.
fn sent(message: &Msg, own: &str) -> Option<u64> {
    (message.get_channel_name() == own).then(|| message.get_payload::<u64>().unwrap_or(u64::MAX))
}

async fn read(key: &str, list: &Arc<dyn Follow>, link: &mut Link) -> Result<(), String> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap_or_else(|_| "not UTF-8 text".to_owned());
    let mut exists = redis::cmd("EXISTS");
    exists.arg(key);
    if !exists.query_async::<bool>(link).await.map_err(|e| e.to_string())? {
        // One that was lost is not one that is empty.
        return Err("is not there: an empty one has an entry `\"\"`".to_owned());
    }
    let (mut cursor, mut size) = (0_u64, 0);
    // What is scanned may come twice.
    let mut all: HashMap<String, String> = HashMap::new();
    loop {
        let mut scan = redis::cmd(if list.is_by_name() { "HSCAN" } else { "SSCAN" });
        scan.arg(key).arg(cursor).arg("COUNT").arg(BATCH);
        let (next, found): (u64, Vec<Vec<u8>>) = scan.query_async(link).await.map_err(|e| e.to_string())?;
        size += found.iter().map(Vec::len).sum::<usize>();
        if size > LARGEST_OF_STORE {
            return Err(format!("is larger than {} MiB", LARGEST_OF_STORE >> 20));
        }
        let mut found = found.into_iter().map(text);
        while let Some(one) = found.next() {
            let value = if list.is_by_name() { found.next().unwrap_or_default() } else { String::new() };
            all.insert(one, value);
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let is_by_name = list.is_by_name();
    let lines = move || all.into_iter().map(|(one, value)| if is_by_name { named(&one, &value) } else { one }).collect();
    let list = list.clone();
    // A million take seconds; probes and signals go on meanwhile.
    let taken = tokio::task::spawn_blocking(move || list.take(lines())).await;
    taken.map_err(|_| "could not be read: a fault of the gateway's own".to_owned())
}

/// As a line of a file would say it.
fn named(name: &str, value: &str) -> String {
    let rest = value.trim();
    match rest.strip_prefix('{') {
        _ if name.is_empty() && rest.is_empty() => String::new(),
        Some(rest) => format!("{{\"consumer\":{},{rest}", serde_json::Value::from(name)),
        None => format!("not an object: {}", serde_json::Value::from(name)),
    }
}
