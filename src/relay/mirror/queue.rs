//! Sends copies of requests on a thread of their own, and throws away what is answered.
//!
//! Everything is bounded: copies that wait, their bytes, those on their way, time. Decides that what does not fit is dropped. Does not decide which
//! requests are copied: see `mod.rs`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::{Copy, Mirrored};
use crate::clock;
use crate::relay::address::Spot;
use crate::relay::balance::{Wanted, choose};
use crate::relay::connect::connect;
use crate::relay::open::open;
use crate::relay::protocol::Protocol;
use crate::relay::target::Chosen;
use crate::report::metrics::series::Failure;

/// The one queue of the process. Its thread begins with the first copy.
#[derive(Debug, Default)]
pub struct Mirrors {
    sender: OnceLock<Option<mpsc::Sender<Waiting>>>,
    /// Of bodies and heads that wait or are on their way.
    bytes: Arc<AtomicUsize>,
}

/// A copy, and the room that it takes until it is dropped.
#[derive(Debug)]
struct Waiting {
    copy: Copy,
    room: usize,
    bytes: Arc<AtomicUsize>,
}

type Sender = SendRequest<Full<Bytes>>;

/// Connections at rest, by target and address.
type Idle = Arc<Mutex<HashMap<(u64, Spot), Vec<(Sender, Instant)>>>>;

/// So many copies may wait.
const QUEUE: usize = 1024;
/// So many bytes may wait or be on their way.
const ROOM: usize = 16 * 1024 * 1024;
/// So many are on their way at once.
const AT_ONCE: usize = 64;
/// So many connections to one address rest, and for so long.
const RESTING: usize = 16;
const REST: Duration = Duration::from_secs(15);
/// A head takes about this much.
const HEAD: usize = 2048;
/// Of an answer, so much is read so that the connection can be kept.
const ANSWER: usize = 1024 * 1024;

// === impl Mirrors ===

impl Mirrors {
    /// Takes a copy, if there is room for it. Never waits.
    pub fn offer(&self, copy: Copy) -> bool {
        let room = copy.size + HEAD;
        let before = self.bytes.fetch_add(room, Relaxed);
        let waiting = Waiting { copy, room, bytes: self.bytes.clone() };
        if before + room > ROOM {
            return false;
        }
        let sender = self.sender.get_or_init(start);
        sender.as_ref().is_some_and(|sender| sender.try_send(waiting).is_ok())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.room, Relaxed);
    }
}

/// None: the system gives no thread, so nothing is mirrored, and all of it counted.
fn start() -> Option<mpsc::Sender<Waiting>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let started =
        runtime.and_then(|runtime| std::thread::Builder::new().name("mirror".to_owned()).spawn(move || runtime.block_on(serve(receiver))));
    match started {
        Ok(_) => Some(sender),
        Err(error) => {
            log::error!("nothing is mirrored: no thread for it: {error}");
            None
        }
    }
}

async fn serve(mut receiver: mpsc::Receiver<Waiting>) {
    let (places, idle) = (Arc::new(Semaphore::new(AT_ONCE)), Idle::default());
    while let Some(waiting) = receiver.recv().await {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let idle = idle.clone();
        tokio::spawn(async move {
            let outcome = send(&waiting.copy, &idle).await;
            waiting.copy.mirror.count(if outcome { Mirrored::Answered } else { Mirrored::Failed });
            drop(place);
        });
    }
}

/// Whether it was answered.
async fn send(copy: &Copy, idle: &Idle) -> bool {
    let upstream = &copy.mirror.upstream;
    let wanted = Wanted { now: clock::mono(), ..Wanted::default() };
    let Some(chosen) = choose(&upstream.pool, wanted, || fastrand::u64(..)) else {
        upstream.series.failed(Failure::Connect);
        return false;
    };
    let timeouts = upstream.pool.upstream.timeouts;
    let key = (chosen.target().group_key, chosen.addr());
    let rested = take(idle, key);
    let counter = if rested.is_some() { &upstream.series.connections_reused } else { &upstream.series.connections_new };
    counter.fetch_add(1, Relaxed);
    let sender = match rested {
        Some(sender) => Some(sender),
        None => dial(copy, &chosen).await,
    };
    let Some(mut sender) = sender else {
        upstream.series.failed(Failure::Connect);
        return false;
    };
    match timeout(timeouts.response, exchange(&mut sender, copy)).await {
        Ok(Some((status, is_whole))) => {
            upstream.series.answered(status);
            if is_whole && !upstream.pool.upstream.reuse.idle.is_zero() {
                put(idle, key, sender);
            }
            true
        }
        Ok(None) => {
            upstream.series.failed(Failure::Broken);
            false
        }
        Err(_) => {
            upstream.series.failed(Failure::ResponseTimeout);
            false
        }
    }
}

async fn dial(copy: &Copy, chosen: &Chosen) -> Option<Sender> {
    let upstream = &copy.mirror.upstream.pool.upstream;
    let (target, within) = (chosen.target(), upstream.timeouts.connect);
    match &upstream.tls {
        Some(tls) => begin(connect(tls, target, chosen.addr(), within, Protocol::Http1, &[]).await.ok()?).await,
        None => begin(open(target, chosen.addr(), within, &[]).await.ok()?).await,
    }
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Option<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with the sender, or when the target closes.
    tokio::spawn(connection);
    Some(sender)
}

/// The status, and whether the answer was read to its end.
async fn exchange(sender: &mut Sender, copy: &Copy) -> Option<(u16, bool)> {
    let mut body = BytesMut::with_capacity(copy.size);
    copy.body.iter().for_each(|piece| body.extend_from_slice(piece));
    let mut request = Request::new(Full::new(body.freeze()));
    request.method_mut().clone_from(&copy.method);
    request.uri_mut().clone_from(&copy.uri);
    request.headers_mut().clone_from(&copy.headers);
    sender.ready().await.ok()?;
    let (head, mut body) = sender.send_request(request).await.ok()?.into_parts();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.ok()?.data_ref().map_or(0, Bytes::len);
        if read > ANSWER {
            return Some((head.status.as_u16(), false));
        }
    }
    Some((head.status.as_u16(), true))
}

fn take(idle: &Idle, key: (u64, Spot)) -> Option<Sender> {
    let mut idle = idle.lock();
    let resting = idle.get_mut(&key)?;
    while let Some((sender, since)) = resting.pop() {
        if since.elapsed() < REST && !sender.is_closed() {
            return Some(sender);
        }
    }
    idle.remove(&key);
    None
}

fn put(idle: &Idle, key: (u64, Spot), sender: Sender) {
    let mut idle = idle.lock();
    // Those of targets that are gone go with them.
    idle.values_mut().for_each(|resting| resting.retain(|(sender, since)| since.elapsed() < REST && !sender.is_closed()));
    idle.retain(|_, resting| !resting.is_empty());
    let resting = idle.entry(key).or_default();
    if resting.len() < RESTING {
        resting.push((sender, Instant::now()));
    }
}
