//! A client of HTTP/2 that sends any frames, sound or not, and reads what comes back.
//!
//! Shares no code with the gateway: frames are written here, header blocks are literals without compression, those of the answers are
//! read by a decoder of others.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use fluke_hpack::Decoder;

use super::patience;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// RFC 9113 section 7.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A connection.
pub struct Http2 {
    socket: TcpStream,
    decoder: Decoder<'static>,
    read: Vec<u8>,
    answers: BTreeMap<u32, Answer2>,
    /// The reason and the last stream of each GOAWAY.
    pub goaways: Vec<(u32, u32)>,
    /// Values of the settings that the server has sent.
    pub settings: BTreeMap<u16, u32>,
    pub pongs: usize,
    /// Gives no room for DATA beyond the first windows.
    pub is_stingy: bool,
    is_over: bool,
}

/// What has come of one answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer2 {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    pub informational: Vec<u16>,
    /// The reason of a RST_STREAM.
    pub reset: Option<u32>,
    pub is_ended: bool,
    /// END_STREAM stood on the header block.
    pub is_bare: bool,
}

// === impl Frame ===

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Frame {
        Frame { kind, flags, stream, payload: payload.as_ref().to_vec() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (u32::try_from(self.payload.len()).unwrap() << 8).to_be_bytes()[..3].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// A header block of literals that are not indexed, names and values as they are (RFC 7541 section 6.2.2).
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_bytes(), value.as_bytes()] {
            integer(&mut block, text.len());
            block.extend(text);
        }
    }
    block
}

/// With a prefix of seven bits.
fn integer(block: &mut Vec<u8>, mut n: usize) {
    if n < 127 {
        return block.push(n as u8);
    }
    block.push(127);
    n -= 127;
    while n >= 128 {
        block.push((n % 128) as u8 | 128);
        n /= 128;
    }
    block.push(n as u8);
}

/// The fields of a GET, with more behind them.
pub fn get_fields<'a>(path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    fields("GET", path, more)
}

pub fn fields<'a>(method: &'a str, path: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![(":method", method), (":scheme", "http"), (":authority", "a.example"), (":path", path)];
    all.extend(more);
    all
}

// === impl Http2 ===

impl Http2 {
    /// Connects and sends the preface with empty settings.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Http2 {
        let mut client = Http2::raw(address);
        client.send_bytes(PREFACE).send(SETTINGS, 0, 0, []);
        client
    }

    /// Connects and sends nothing.
    #[track_caller]
    pub fn raw(address: SocketAddr) -> Http2 {
        let connect = || {
            let socket = TcpStream::connect_timeout(&address, patience())?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(patience()))?;
            socket.set_write_timeout(Some(patience()))?;
            Ok::<_, io::Error>(socket)
        };
        Http2 {
            socket: connect().unwrap_or_else(|error| panic!("connect to {address}: {error}")),
            decoder: Decoder::new(),
            read: Vec::new(),
            answers: BTreeMap::new(),
            goaways: Vec::new(),
            settings: BTreeMap::new(),
            pongs: 0,
            is_stingy: false,
            is_over: false,
        }
    }

    /// Errors are left to what is read next.
    pub fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.socket.write_all(bytes.as_ref());
        self
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> &mut Self {
        self.send_bytes(Frame::new(kind, flags, stream, payload).bytes())
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> &mut Self {
        let _ = self.socket.shutdown(Shutdown::Write);
        self
    }

    /// A whole request without a body.
    pub fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, block(fields))
    }

    /// The head of a request whose body is to follow.
    pub fn begin(&mut self, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        self.send(HEADERS, END_HEADERS, stream, block(fields))
    }

    pub fn reset(&mut self, stream: u32, reason: u32) -> &mut Self {
        self.send(RST_STREAM, 0, stream, reason.to_be_bytes())
    }

    pub fn window(&mut self, stream: u32, more: u32) -> &mut Self {
        self.send(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
    }

    /// A GET and its answer.
    #[track_caller]
    pub fn get(&mut self, stream: u32, path: &str) -> Answer2 {
        self.ask(stream, &get_fields(path, &[]));
        self.answer(stream)
    }

    /// The answer of a stream, once it has ended or was reset, or the connection has ended.
    #[track_caller]
    pub fn answer(&mut self, stream: u32) -> Answer2 {
        loop {
            if let Some(answer) = self.answers.get(&stream)
                && (answer.is_ended || answer.reset.is_some())
            {
                return self.answers.remove(&stream).unwrap();
            }
            if self.step().is_none() {
                return self.answers.remove(&stream).unwrap_or_default();
            }
        }
    }

    /// What has come of a stream so far.
    pub fn peek(&self, stream: u32) -> Option<&Answer2> {
        self.answers.get(&stream)
    }

    /// Reads until the server has closed.
    #[track_caller]
    pub fn until_closed(&mut self) -> &mut Self {
        while self.step().is_some() {}
        self
    }

    /// Waits until the server has answered a PING, so that all that was sent before has been read.
    #[track_caller]
    pub fn settle(&mut self) -> &mut Self {
        let before = self.pongs;
        self.send(PING, 0, 0, [7; 8]);
        while self.pongs == before && self.step().is_some() {}
        self
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Reads one frame and does what it asks for. `None`: the connection has ended.
    #[track_caller]
    pub fn step(&mut self) -> Option<Frame> {
        let frame = self.frame()?;
        let Frame { kind, flags, stream, payload } = &frame;
        match *kind {
            SETTINGS if flags & ACK == 0 => {
                for pair in payload.chunks_exact(6) {
                    let value = u32::from_be_bytes(pair[2..].try_into().unwrap());
                    self.settings.insert(u16::from_be_bytes([pair[0], pair[1]]), value);
                }
                self.send(SETTINGS, ACK, 0, []);
            }
            PING if flags & ACK == 0 => {
                self.send(PING, ACK, 0, payload);
            }
            PING => self.pongs += 1,
            GOAWAY => {
                let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                self.goaways.push((word(4), word(0)));
            }
            RST_STREAM => {
                let reason = u32::from_be_bytes(payload[..].try_into().unwrap());
                self.answers.entry(*stream).or_default().reset = Some(reason);
            }
            HEADERS => {
                assert_eq!(flags & END_HEADERS, END_HEADERS, "answers have small heads");
                let fields = self.decoder.decode(payload).expect("a sound header block");
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let mut fields: VecDeque<_> = fields.into_iter().map(|(name, value)| (text(name), text(value))).collect();
                let answer = self.answers.entry(*stream).or_default();
                answer.is_ended |= flags & END_STREAM != 0;
                if fields.front().is_none_or(|(name, _)| name != ":status") {
                    answer.trailers = fields.into();
                } else {
                    let (_, status) = fields.pop_front().unwrap();
                    let status: u16 = status.parse().unwrap();
                    if status < 200 {
                        answer.informational.push(status);
                    } else {
                        assert_eq!(answer.status, 0, "one head");
                        answer.is_bare = answer.is_ended;
                        (answer.status, answer.fields) = (status, fields.into());
                    }
                }
            }
            DATA => {
                let answer = self.answers.entry(*stream).or_default();
                answer.body.extend(payload);
                answer.is_ended |= flags & END_STREAM != 0;
                let (more, is_ended) = (u32::try_from(payload.len()).unwrap(), answer.is_ended);
                if more > 0 && !self.is_stingy {
                    self.window(0, more);
                    if !is_ended {
                        self.window(*stream, more);
                    }
                }
            }
            _ => {}
        }
        Some(frame)
    }

    #[track_caller]
    fn frame(&mut self) -> Option<Frame> {
        let head: [u8; 9] = self.take(9)?.try_into().unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(length <= 16_384, "a frame larger than was allowed");
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload: self.take(length)? })
    }

    #[track_caller]
    fn take(&mut self, n: usize) -> Option<Vec<u8>> {
        while self.read.len() < n {
            let mut space = [0; 16 << 10];
            match self.socket.read(&mut space) {
                Ok(0) => self.is_over = true,
                Ok(read) => self.read.extend(&space[..read]),
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => self.is_over = true,
                Err(error) => panic!("waited in vain for {n} bytes: {error}; goaways {:?}, answers {:?}", self.goaways, self.answers),
            }
            if self.is_over {
                return None;
            }
        }
        let rest = self.read.split_off(n);
        Some(std::mem::replace(&mut self.read, rest))
    }
}

// === impl Answer2 ===

impl Answer2 {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The code of a problem document.
    pub fn code(&self) -> String {
        let document: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        document["code"].as_str().unwrap_or_default().to_owned()
    }
}
