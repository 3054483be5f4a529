//! Follows the frames of a connection both ways, for what the frame layer does not tell or does not bound.
//!
//! Decides when a client has reset too many streams or sent too many frames that ask for nothing, since when it owes the rest of a
//! header block, and which streams the frame layer has refused by itself. Does not end the connection: `mod.rs` does. The frame layer's own
//! bounds (streams, header lists, CONTINUATION frames, small DATA frames) come on top.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use std::io::{IoSlice, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::super::head::HEAD_TOO_LARGE;
use super::super::stream::{ClientStream, Socket};
use super::PREFACE;
use super::frames::{ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Head, Moment, RST_STREAM, SETTINGS};
use super::kinds::{FRAMES_TOO_MANY, RESETS_TOO_MANY, STREAM_MALFORMED, STREAMS_TOO_MANY};
use super::settings::Http2;
use crate::config::types::Rate;
use crate::reply::problem::Kind;

/// What is known of the frames of one connection.
#[derive(Debug)]
pub struct Watch(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    read: Frames,
    written: Frames,
    /// So many bytes of the preface are to come.
    preface: usize,
    /// The client's first frame, its settings, has come.
    is_settled: bool,
    /// A header block has begun whose last frame has not.
    is_in_block: bool,
    owed: Option<Instant>,
    resets: Budget,
    frames: Budget,
    /// The highest stream that the client has opened.
    highest: u32,
    /// Those that the frame layer has not handed on.
    unseen: VecDeque<u32>,
    most_unseen: usize,
    refused: Vec<&'static Kind>,
    fault: Option<&'static Kind>,
}

/// So many of something in a time, as a limit counts: a bucket that fills again.
#[derive(Debug)]
struct Budget {
    each: Duration,
    size: Duration,
    /// Until when what was spent has to be earned again.
    until: Option<Instant>,
}

/// A connection whose frames are watched.
pub struct Watched<S: Socket> {
    stream: Box<ClientStream<S>>,
    watch: Arc<Watch>,
}

/// Control frames that go free with each frame of an answer's body: clients open windows and measure round trips.
const EARNED_BY_DATA: u32 = 8;
/// Likewise with a request.
const EARNED_BY_REQUEST: u32 = 4;
/// RFC 9113 section 7: what the frame layer resets streams with that clients have misused.
const BLAMED: [u32; 5] = [1, 3, 5, 6, REFUSED];
const REFUSED: u32 = 7;

// === impl Watch ===

impl Watch {
    pub fn new(settings: &Http2) -> Arc<Self> {
        Arc::new(Watch(Mutex::new(Seen {
            read: Frames::default(),
            written: Frames::default(),
            preface: PREFACE.len(),
            is_settled: false,
            is_in_block: false,
            owed: Some(Instant::now()),
            resets: Budget::new(settings.resets),
            frames: Budget::new(settings.frames),
            highest: 0,
            unseen: VecDeque::new(),
            most_unseen: usize::from(settings.streams) * 4,
            refused: Vec::new(),
            fault: None,
        })))
    }

    /// Why the connection has to end, if it has to.
    pub fn fault(&self) -> Option<&'static Kind> {
        self.0.lock().fault
    }

    /// It has to end for this.
    pub fn blame(&self, kind: &'static Kind) {
        self.0.lock().fault.get_or_insert(kind);
    }

    /// Since when the client has owed the rest of what it has begun.
    pub fn owed(&self) -> Option<Instant> {
        self.0.lock().owed
    }

    /// The frame layer has handed this stream on.
    pub fn saw(&self, stream: u32) {
        let seen = &mut *self.0.lock();
        if let Some(at) = seen.unseen.iter().position(|unseen| *unseen == stream) {
            seen.unseen.remove(at);
        }
    }

    /// The streams that it has refused since this was asked last.
    pub fn refused(&self) -> Vec<&'static Kind> {
        std::mem::take(&mut self.0.lock().refused)
    }

    fn read(&self, bytes: &[u8]) {
        self.0.lock().take_read(bytes);
    }

    fn wrote(&self, bytes: &[u8]) {
        self.0.lock().take_written(bytes);
    }
}

// === impl Seen ===

impl Seen {
    fn take_read(&mut self, mut bytes: &[u8]) {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = &bytes[preface..];
        let mut frames = std::mem::take(&mut self.read);
        frames.feed(bytes, |moment| match moment {
            Moment::Begun(head) => self.begun(head),
            Moment::Ended(head, _) => self.ended(head),
        });
        let is_owed = !self.is_settled || self.is_in_block || frames.is_owed();
        self.read = frames;
        match is_owed {
            true => self.owed = self.owed.or_else(|| Some(Instant::now())),
            false => self.owed = None,
        }
    }

    fn begun(&mut self, head: Head) {
        match head.kind {
            DATA if head.length > 0 => self.frames.earn(1),
            // Ends a body and is asked for.
            DATA if head.flags & END_STREAM != 0 => {}
            HEADERS => {
                self.is_in_block = true;
                if head.stream > self.highest {
                    self.highest = head.stream;
                    self.frames.earn(EARNED_BY_REQUEST);
                    // More than can be waiting: the oldest have been dropped without a word, as after a GOAWAY.
                    if self.unseen.len() >= self.most_unseen {
                        self.unseen.pop_front();
                    }
                    self.unseen.push_back(head.stream);
                }
            }
            RST_STREAM => self.spend_reset(),
            _ => {
                if !self.frames.spend() {
                    self.fault.get_or_insert(&FRAMES_TOO_MANY);
                }
            }
        }
    }

    fn ended(&mut self, head: Head) {
        self.is_settled |= head.kind == SETTINGS && head.flags & ACK == 0;
        if matches!(head.kind, HEADERS | CONTINUATION) && head.flags & END_HEADERS != 0 {
            self.is_in_block = false;
        }
        if !self.is_in_block && self.is_settled {
            self.owed = None;
        }
    }

    fn take_written(&mut self, bytes: &[u8]) {
        let mut frames = std::mem::take(&mut self.written);
        frames.feed(bytes, |moment| {
            let Moment::Ended(head, word) = moment else { return };
            match head.kind {
                DATA if head.length > 0 => self.frames.earn(EARNED_BY_DATA),
                // An answer that nobody here has made.
                HEADERS => self.refuse(head.stream, &HEAD_TOO_LARGE),
                RST_STREAM => {
                    let reason = u32::from_be_bytes(word);
                    self.refuse(head.stream, if reason == REFUSED { &STREAMS_TOO_MANY } else { &STREAM_MALFORMED });
                    // What clients make the gateway reset costs as much as what they reset themselves.
                    if BLAMED.contains(&reason) {
                        self.spend_reset();
                    }
                }
                _ => {}
            }
        });
        self.written = frames;
    }

    /// The frame layer has answered a stream; if that was its own idea, it has refused it.
    fn refuse(&mut self, stream: u32, kind: &'static Kind) {
        if self.unseen.is_empty() {
            return;
        }
        if let Some(at) = self.unseen.iter().position(|unseen| *unseen == stream) {
            self.unseen.remove(at);
            self.refused.push(kind);
        }
    }

    fn spend_reset(&mut self) {
        if !self.resets.spend() {
            self.fault.get_or_insert(&RESETS_TOO_MANY);
        }
    }
}

// === impl Budget ===

impl Budget {
    fn new(rate: Rate) -> Self {
        Budget { each: rate.per / rate.count.max(1), size: rate.per, until: None }
    }

    /// False: there is nothing left.
    fn spend(&mut self) -> bool {
        let now = Instant::now();
        let until = self.until.map_or(now, |until| until.max(now)) + self.each;
        self.until = Some(until);
        until - now <= self.size
    }

    fn earn(&mut self, count: u32) {
        if let Some(until) = self.until {
            self.until = until.checked_sub(self.each * count);
        }
    }
}

// === impl Watched ===

impl<S: Socket> Watched<S> {
    pub fn new(stream: Box<ClientStream<S>>, watch: Arc<Watch>) -> Self {
        Watched { stream, watch }
    }
}

impl<S: Socket> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.watch.fault().is_some() {
            // Nobody is interested any more; the connection is ended by whoever polls this.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, buf);
        self.watch.read(&buf.filled()[before..]);
        polled
    }
}

impl<S: Socket> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = &polled {
            self.watch.wrote(&buf[..*n]);
        }
        polled
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs);
        if let Poll::Ready(Ok(n)) = &polled {
            let mut left = *n;
            for buf in bufs {
                let taken = left.min(buf.len());
                self.watch.wrote(&buf[..taken]);
                left -= taken;
            }
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

impl<S: Socket> Drop for Watched<S> {
    /// A client that is told to go shall read that, whatever it was sending.
    fn drop(&mut self) {
        if self.watch.fault().is_some() {
            self.stream.break_frames();
        }
    }
}
