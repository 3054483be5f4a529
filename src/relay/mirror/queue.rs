//! Sends copies of requests on a thread of their own, and throws away what is answered.
//!
//! Everything is bounded: copies that wait, their bytes, those on their way, time. Decides that what does not fit is dropped. Does not decide which
//! requests are copied: see `mod.rs`.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, HOST};
use http::uri::Scheme;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Copy, Mirrored};
use crate::clock;
use crate::relay::attempt::connect::{connect, is_h2};
use crate::relay::attempt::open::open;
use crate::relay::attempt::protocol::Protocol;
use crate::relay::balance::{Wanted, choose};
use crate::relay::targets::address::Spot;
use crate::relay::targets::target::Chosen;
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

/// What copies are sent on.
#[derive(Debug)]
enum Sender {
    Http1(SendRequest<Full<Bytes>>),
    /// One carries many; each has its own all the same, so that a copy that hangs holds up no other.
    Http2(h2::client::SendRequest<Bytes>, JoinHandle<()>),
}

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
        Some(tls) => {
            let stream = connect(tls, target, chosen.addr(), within, upstream.protocol, &[]).await.ok()?;
            let is_h2 = is_h2(&stream);
            begin(stream, is_h2).await
        }
        None => begin(open(target, chosen.addr(), within, &[]).await.ok()?, upstream.protocol == Protocol::H2).await,
    }
}

async fn begin(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, is_h2: bool) -> Option<Sender> {
    if is_h2 {
        let (sender, connection) = h2::client::handshake(stream).await.ok()?;
        return Some(Sender::Http2(sender, tokio::spawn(async move { drop(connection.await) })));
    }
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with the sender, or when the target closes.
    tokio::spawn(connection);
    Some(Sender::Http1(sender))
}

// === impl Sender ===

impl Sender {
    fn is_closed(&self) -> bool {
        match self {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(_, connection) => connection.is_finished(),
        }
    }
}

/// The status, and whether the answer was read to its end.
async fn exchange(sender: &mut Sender, copy: &Copy) -> Option<(u16, bool)> {
    let mut body = BytesMut::with_capacity(copy.size);
    copy.body.iter().for_each(|piece| body.extend_from_slice(piece));
    let body = body.freeze();
    let sender = match sender {
        Sender::Http1(sender) => sender,
        Sender::Http2(sender, _) => return exchange_h2(sender.clone(), copy, body).await,
    };
    let mut request = Request::new(Full::new(body));
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

async fn exchange_h2(sender: h2::client::SendRequest<Bytes>, copy: &Copy, mut rest: Bytes) -> Option<(u16, bool)> {
    let upstream = &copy.mirror.upstream.pool.upstream;
    let mut request = Request::new(());
    request.method_mut().clone_from(&copy.method);
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().clone_from(&copy.headers);
    // RFC 9113 section 8.3.1: the host goes before the fields.
    let host = request.headers_mut().remove(HOST)?;
    request.headers_mut().remove(CONNECTION);
    let scheme = if upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(copy.uri.path_and_query()?.clone());
    *request.uri_mut() = uri.build().ok()?;
    let (answer, mut sending) = sender.ready().await.ok()?.send_request(request, rest.is_empty()).ok()?;
    // As much at a time as the target takes.
    while !rest.is_empty() {
        sending.reserve_capacity(rest.len());
        let room = poll_fn(|cx| sending.poll_capacity(cx)).await?.ok()?;
        let piece = rest.split_to(room.min(rest.len()));
        sending.send_data(piece, rest.is_empty()).ok()?;
    }
    let (head, mut body) = answer.await.ok()?.into_parts();
    let mut read = 0;
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        read += piece.len();
        let _ = body.flow_control().release_capacity(piece.len());
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
