//! Reads the body of a request: what the stream lets through, without the framing of chunks.
//!
//! Decides how long a pause in a body may be, and what of it is kept for a second attempt. Does not decide what is malformed: see `chunks.rs`.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora_core::ErrorType::{ConnectError, ConnectionClosed, ReadError, ReadTimedout};
use pingora_core::{Error, OrErr, Result};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::super::chunks::Chunks;
use super::super::head::Body;
use super::super::stream::{ClientStream, Socket};
use super::Http1;

/// The body of a request, and what has come of it.
pub struct Reading {
    rest: Rest,
    buf: BytesMut,
    /// Bytes that have been read, without framing.
    pub count: usize,
    pub patience: Option<Duration>,
    /// The client will send no more.
    is_ended: bool,
    kept: Kept,
}

/// What is still to come.
enum Rest {
    Nothing,
    Length(u64),
    Chunked(Chunks),
    /// All that comes: both sides have switched protocols.
    Tunnel,
}

/// What has been read, for a second attempt.
enum Kept {
    NotAsked,
    Whole(BytesMut),
    TooLong,
}

/// As much as Pingora keeps, and more than most bodies of requests have.
const KEPT_BYTES: usize = 64 << 10;
/// Most that is read at once.
const PIECE_BYTES: usize = 64 << 10;
/// A piece that is smaller is copied, and does not hold the memory of a large one.
const SMALL_BYTES: usize = 4 << 10;

// === impl Reading ===

impl Reading {
    pub fn new(body: Body, patience: Duration) -> Self {
        let rest = match body {
            Body::None => Rest::Nothing,
            Body::Length(length) => Rest::Length(length),
            Body::Chunked => Rest::Chunked(Chunks::default()),
        };
        Reading { rest, buf: BytesMut::new(), count: 0, patience: Some(patience), is_ended: false, kept: Kept::NotAsked }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    pub fn is_empty(&self) -> bool {
        self.is_done() && self.count == 0
    }

    pub fn open_tunnel(&mut self) {
        self.rest = Rest::Tunnel;
    }

    pub fn close_tunnel(&mut self) {
        self.rest = Rest::Nothing;
    }

    pub fn keep(&mut self) {
        if matches!(self.kept, Kept::NotAsked) {
            self.kept = Kept::Whole(BytesMut::new());
        }
    }

    pub fn is_too_long_to_keep(&self) -> bool {
        matches!(self.kept, Kept::TooLong)
    }

    pub fn kept(&self) -> Option<Bytes> {
        match &self.kept {
            Kept::Whole(kept) if !kept.is_empty() => Some(Bytes::copy_from_slice(kept)),
            Kept::Whole(_) | Kept::NotAsked | Kept::TooLong => None,
        }
    }

    fn note(&mut self, piece: &Bytes) {
        self.count += piece.len();
        if let Kept::Whole(kept) = &mut self.kept {
            match kept.len() + piece.len() <= KEPT_BYTES {
                true => kept.extend_from_slice(piece),
                false => self.kept = Kept::TooLong,
            }
        }
    }

    /// The next piece, `None` at the end of the body.
    fn poll_piece<S: Socket>(&mut self, cx: &mut Context<'_>, stream: &mut ClientStream<S>) -> Poll<Result<Option<Bytes>>> {
        loop {
            let most = match &self.rest {
                Rest::Nothing => return Poll::Ready(Ok(None)),
                Rest::Length(left) => usize::try_from(*left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES),
                Rest::Chunked(_) | Rest::Tunnel => PIECE_BYTES,
            };
            self.buf.reserve(most);
            let read = pin!((&mut *stream).take(most as u64).read_buf(&mut self.buf)).poll(cx);
            if read.is_pending() {
                // Nothing is held while a client takes its time.
                self.buf = BytesMut::new();
            }
            let n = ready!(read).or_err(ReadError, "reading a body")?;
            match &mut self.rest {
                Rest::Nothing => return Poll::Ready(Ok(None)),
                Rest::Tunnel if n == 0 => {
                    self.rest = Rest::Nothing;
                    return Poll::Ready(Ok(None));
                }
                Rest::Length(_) | Rest::Chunked(_) if n == 0 => {
                    self.is_ended = true;
                    return Poll::Ready(Error::e_explain(ConnectionClosed, "in the middle of a body"));
                }
                Rest::Length(left) => {
                    *left = left.saturating_sub(n as u64);
                    if *left == 0 {
                        self.rest = Rest::Nothing;
                    }
                }
                Rest::Chunked(chunks) => {
                    let mut data = Data::default();
                    // The stream has judged them already.
                    chunks.walk(&self.buf, |piece| data.add(piece)).map_err(|kind| Error::explain(ReadError, kind.code))?;
                    if chunks.is_done() {
                        self.rest = Rest::Nothing;
                    }
                    data.cut(&mut self.buf);
                }
                Rest::Tunnel => {}
            }
            if self.buf.is_empty() {
                continue;
            }
            let piece = match self.buf.len() < SMALL_BYTES {
                true => {
                    let piece = Bytes::copy_from_slice(&self.buf);
                    self.buf.clear();
                    piece
                }
                false => self.buf.split().freeze(),
            };
            self.note(&piece);
            return Poll::Ready(Ok(Some(piece)));
        }
    }
}

/// Where in a buffer the data of chunks lies.
#[derive(Default)]
struct Data(smallvec::SmallVec<[(usize, usize); 4]>);

impl Data {
    fn add(&mut self, piece: std::ops::Range<usize>) {
        self.0.push((piece.start, piece.end));
    }

    /// Leaves nothing else in the buffer.
    fn cut(&self, buf: &mut BytesMut) {
        let mut end = 0;
        for &(from, to) in &self.0 {
            buf.copy_within(from..to, end);
            end += to - from;
        }
        buf.truncate(end);
    }
}

impl<S: Socket> Http1<S> {
    /// The next piece of the body, `None` at its end.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>> {
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let Some(stream) = self.stream.as_deref_mut() else { return Poll::Ready(Ok(None)) };
            let piece = self.reading.poll_piece(cx, stream);
            let Some(patience) = self.reading.patience.filter(|_| piece.is_pending()) else { return piece };
            ready!(alarm.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(cx));
            Poll::Ready(Error::e_explain(ReadTimedout, "a pause in a body"))
        })
        .await
    }

    /// The body has been read: waits for the client to go away, while its answer is awaited.
    pub(super) async fn wait_for_end(&mut self) -> Result<Option<Bytes>> {
        if !self.reading.is_ended {
            let mut space = [0; 1];
            let n = poll_fn(|cx| {
                let mut probe = ReadBuf::new(&mut space);
                let Some(stream) = self.stream.as_deref_mut() else { return Poll::Ready(Ok(0)) };
                Pin::new(stream).poll_read(cx, &mut probe).map_ok(|()| probe.filled().len())
            })
            .await
            .or_err(ReadError, "waiting for the end of a connection")?;
            if n > 0 {
                return Error::e_explain(ConnectError, "bytes behind the end of a body");
            }
            self.reading.is_ended = true;
            self.keep = false;
        }
        Error::e_explain(ConnectionClosed, "before the answer was complete")
    }
}
