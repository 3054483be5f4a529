//! Fetches a provider's key set in the background: when it is no longer fresh, and when a token names a key that is not in it.
//!
//! Decides when. A failure changes nothing but the time of the next attempt. What is fetched is judged in `mod.rs` and `answer.rs`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::{Method, StatusCode};

use super::settings::Origin;
use super::{Published, answer, jittered, ms};
use crate::ask::{Address, Question, Reply, ask};
use crate::clock;
use crate::keep::Store;

/// For one question. A discovery document and a key set are two.
const DEADLINE: Duration = Duration::from_secs(4);
/// Bytes of a document: hundreds of keys.
const LARGEST: usize = 256 * 1024;
/// After the first failure it is tried again so soon, then after twice the time, up to the other.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Fetching goes on until this is dropped.
#[derive(Debug)]
pub struct Keeper {
    task: tokio::task::JoinHandle<()>,
    published: Arc<Published>,
}

/// Keeps a set current, and stores each new one.
pub fn keep(published: &Arc<Published>, store: Option<Arc<Store>>) -> Keeper {
    published.is_kept.store(true, Relaxed);
    Keeper { task: tokio::spawn(go_on(published.clone(), store)), published: published.clone() }
}

async fn go_on(published: Arc<Published>, store: Option<Arc<Store>>) {
    // The keeper before this one may have been stopped while it asked.
    let mut is_wished = {
        let mut wishes = published.wishes.lock();
        let was = wishes.is_pending || wishes.is_flying;
        wishes.is_flying = false;
        was
    };
    loop {
        if !is_wished {
            let due = published.next.load(Relaxed).saturating_sub(clock::now().unix_ms);
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(due)) => {}
                () = published.wish.notified() => {}
            }
        }
        is_wished = false;
        {
            let mut wishes = published.wishes.lock();
            (wishes.is_pending, wishes.is_flying) = (false, true);
        }
        let outcome = attempt(&published).await;
        let is_new = outcome.is_ok();
        published.note(outcome);
        published.wishes.lock().is_flying = false;
        published.attempts.send_modify(|count| *count += 1);
        if let (Some(store), Some(kept), true) = (&store, published.kept(), is_new) {
            store.write(&published.source.file(), &kept).await;
        }
    }
}

async fn attempt(published: &Published) -> Result<(), String> {
    let source = &published.source;
    let keys = match &source.origin {
        Origin::Url(address) => address.clone(),
        Origin::Discovery(address) => {
            let uri = answer::keys_of(&get(published, address).await?.body, &source.issuer).map_err(|why| format!("{address}: {why}"))?;
            let keys = Address::parse(&uri).map_err(|why| format!("{address}: its `jwks_uri` {why}"))?;
            if !keys.is_safe() && !source.plain_http {
                return Err(format!("{address}: its `jwks_uri` is {keys}, which is not https"));
            }
            keys
        }
    };
    let reply = get(published, &keys).await?;
    let text = std::str::from_utf8(&reply.body).map_err(|_| format!("{keys}: the key set is not UTF-8 text"))?;
    let fresh = answer::freshness(&reply.headers, source.soonest, source.latest);
    published.take(text, clock::now().unix_ms, fresh).map_err(|why| format!("{keys}: the key set {why}"))
}

async fn get(published: &Published, address: &Address) -> Result<Reply, String> {
    let (method, body) = (Method::GET, bytes::Bytes::new());
    let question = Question { method, address, headers: Vec::new(), body, deadline: DEADLINE, largest: LARGEST };
    let reply = ask(&published.source.way, &question).await?;
    if reply.status == StatusCode::OK { Ok(reply) } else { Err(format!("{address}: status {}", reply.status.as_u16())) }
}

/// After so many failures in a row.
fn back_off(failures: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(6)).min(LAST_RETRY)
}

// === impl Published ===

impl Published {
    /// Notes how an attempt ended. One line in the log at each turn.
    fn note(&self, outcome: Result<(), String>) {
        let name = &self.source.authenticator;
        match outcome {
            Ok(()) => {
                self.counts.fetched.fetch_add(1, Relaxed);
                self.failures.store(0, Relaxed);
                if self.trouble.lock().take().is_some() {
                    log::info!("authenticator {name}: the key set is fetched again");
                }
            }
            Err(why) => {
                self.counts.failed.fetch_add(1, Relaxed);
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                self.next.store(clock::now().unix_ms + ms(jittered(back_off(failures))), Relaxed);
                let keeps = if self.has_keys() { "the last one stays in use" } else { "there is none yet" };
                if self.trouble.lock().replace(why.clone()).is_none() {
                    log::warn!("authenticator {name}: the key set cannot be fetched, {keeps}: {why}");
                }
            }
        }
    }
}

// === impl Keeper ===

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
        // Nobody waits for an answer that does not come.
        self.published.is_kept.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_that_fails_is_asked_less_and_less_often() {
        let pauses: Vec<_> = [1, 2, 3, 6, 7, 1000].map(|failures| back_off(failures).as_secs()).into();
        assert_eq!(pauses, [1, 2, 4, 32, 60, 60]);
    }
}
