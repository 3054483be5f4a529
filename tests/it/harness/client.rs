//! A client that sends any bytes and reads HTTP/1.1 answers strictly: every deviation is an error with its reason.
//!
//! Shares no code with the gateway's own parsing.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::patience;

/// A connection.
pub struct Client {
    stream: TcpStream,
    /// Read and not used yet.
    buffer: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub reason: String,
    /// In order and spelling as they came.
    pub headers: Vec<(String, String)>,
    /// The content, without framing.
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// Status line and fields with the empty line, byte for byte.
    pub head: Vec<u8>,
    /// Informational answers (1xx) that came before.
    pub informational: Vec<u16>,
    pub is_chunked: bool,
    /// The body ended with the connection.
    pub is_until_close: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ReadError {
    /// The connection ended before the first byte.
    Closed,
    /// It ended, or was reset, in the middle: what there was.
    Cut(Vec<u8>, io::ErrorKind),
    /// Nothing more for `PATIENCE`: what there was.
    Silent(Vec<u8>),
    /// It is not HTTP/1.1.
    Malformed(String),
}

/// A request over a connection of its own, closed after the answer.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    let mut client = Client::connect(address);
    client.request(method, target, headers, body)
}

#[track_caller]
pub fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Response {
    request(address, "GET", target, headers, b"")
}

#[track_caller]
pub fn post(address: SocketAddr, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    request(address, "POST", target, headers, body)
}

// === impl Client ===

impl Client {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Client {
        match Client::try_connect(address) {
            Ok(client) => client,
            Err(error) => panic!("connect to {address}: {error}"),
        }
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, patience())?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience()))?;
        stream.set_write_timeout(Some(patience()))?;
        Ok(Client { stream, buffer: Vec::new() })
    }

    /// A connection that comes from another address of this machine, such as 127.0.0.2.
    #[track_caller]
    pub fn connect_from(source: std::net::IpAddr, address: SocketAddr) -> Client {
        let connect = || {
            let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(source, 0).into())?;
            socket.connect(&address.into())?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience()))?;
            stream.set_write_timeout(Some(patience()))?;
            Ok::<_, io::Error>(Client { stream, buffer: Vec::new() })
        };
        match connect() {
            Ok(client) => client,
            Err(error) => panic!("connect from {source} to {address}: {error}"),
        }
    }

    /// The address that the other side sees.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a connected socket has an address")
    }

    /// Sends bytes as they are. Errors are left to what is read next: the other side may have answered and closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) -> &mut Self {
        let _ = self.stream.shutdown(Shutdown::Write);
        self
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        let socket = socket2::Socket::from(self.stream);
        let _ = socket.set_linger(Some(std::time::Duration::ZERO));
    }

    /// Sends a request, with `Host: test` unless headers say otherwise and `Content-Length` where there is a body, and reads the answer.
    #[track_caller]
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        match self.try_request(method, target, headers, body) {
            Ok(response) => response,
            Err(error) => panic!("{method} {target}: {error}"),
        }
    }

    pub fn try_request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, ReadError> {
        let has = |name: &str| headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name));
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        if !has("host") {
            bytes.extend_from_slice(b"Host: test\r\n");
        }
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let is_framed = has("content-length") || has("transfer-encoding");
        if !is_framed && (!body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH")) {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes);
        self.read_answer_to(method)
    }

    #[track_caller]
    pub fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.request("GET", target, headers, b"")
    }

    #[track_caller]
    pub fn post(&mut self, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.request("POST", target, headers, body)
    }

    /// The next answer, to a request other than HEAD and CONNECT.
    #[track_caller]
    pub fn read(&mut self) -> Response {
        match self.try_read() {
            Ok(response) => response,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    pub fn try_read(&mut self) -> Result<Response, ReadError> {
        self.read_answer_to("GET")
    }

    /// The next answer, to a request with this method: one to HEAD has no body (RFC 9112 section 6.3).
    pub fn read_answer_to(&mut self, method: &str) -> Result<Response, ReadError> {
        let mut informational = Vec::new();
        loop {
            let mut response = self.read_head()?;
            match response.status {
                101 => {}
                100..=199 => {
                    informational.push(response.status);
                    continue;
                }
                _ => self.read_body(&mut response, method)?,
            }
            response.informational = informational;
            return Ok(response);
        }
    }

    /// Exactly so many bytes, such as frames of a tunnel.
    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        match self.fill(length) {
            Ok(()) => self.buffer.drain(..length).collect(),
            Err(error) => panic!("{length} bytes were expected: {error}"),
        }
    }

    /// So many bytes, or fewer where the connection ends before.
    #[track_caller]
    pub fn read_up_to(&mut self, length: usize) -> Vec<u8> {
        match self.fill(length) {
            Err(ReadError::Silent(seen)) => panic!("{length} bytes were expected: silence after {}", seen.len()),
            Ok(()) | Err(_) => self.buffer.drain(..length.min(self.buffer.len())).collect(),
        }
    }

    /// Everything until the other side closes; a reset ends it too.
    #[track_caller]
    pub fn read_to_end(&mut self) -> Vec<u8> {
        loop {
            match self.more() {
                Ok(()) => {}
                Err(ReadError::Silent(seen)) => panic!("not closed; so far: {:?}", String::from_utf8_lossy(&seen)),
                Err(_) => return std::mem::take(&mut self.buffer),
            }
        }
    }

    /// Waits until the other side closes and fails where it sends anything before.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.read_to_end();
        assert!(rest.is_empty(), "bytes before the close: {:?}", String::from_utf8_lossy(&rest));
    }

    fn read_head(&mut self) -> Result<Response, ReadError> {
        let mut end = None;
        while end.is_none() {
            end = self.buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
            if end.is_none() {
                self.more().map_err(|error| match error {
                    ReadError::Cut(seen, io::ErrorKind::UnexpectedEof) if seen.is_empty() => ReadError::Closed,
                    other => other,
                })?;
            }
        }
        let head: Vec<u8> = self.buffer.drain(..end.unwrap_or_default()).collect();
        let text = std::str::from_utf8(&head).map_err(|_| malformed("the head is not ASCII", &head))?;
        let mut lines = text[..text.len() - 4].split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let rest =
            status_line.strip_prefix("HTTP/1.1 ").ok_or_else(|| malformed("the status line does not begin with `HTTP/1.1 `", &head))?;
        let (code, reason) = rest.split_once(' ').ok_or_else(|| malformed("there is no space after the status", &head))?;
        let status = match code.parse::<u16>() {
            Ok(status) if code.len() == 3 && (100..600).contains(&status) => status,
            _ => return Err(malformed("the status is not three digits", &head)),
        };
        Ok(Response {
            status,
            reason: reason.to_owned(),
            headers: lines.map(|line| field(line).ok_or_else(|| malformed("a line is not a field", &head))).collect::<Result<_, _>>()?,
            body: Vec::new(),
            trailers: Vec::new(),
            informational: Vec::new(),
            is_chunked: false,
            is_until_close: false,
            head,
        })
    }

    fn read_body(&mut self, response: &mut Response, method: &str) -> Result<(), ReadError> {
        let lengths = response.all("content-length");
        let codings = response.all("transfer-encoding");
        let is_empty = method == "HEAD" || response.status == 204 || response.status == 304;
        match (lengths.as_slice(), codings.as_slice()) {
            ([], [coding]) if *coding == "chunked" && response.status != 204 => {
                response.is_chunked = true;
                if !is_empty {
                    self.read_chunks(response)?;
                }
            }
            (_, [_, ..]) => return Err(malformed("Transfer-Encoding is not alone, not `chunked`, or not allowed", &response.head)),
            ([_], []) if response.status == 204 => return Err(malformed("a 204 has a Content-Length", &response.head)),
            ([length], []) => {
                let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
                let length: usize = match length.parse() {
                    Ok(length) if is_number => length,
                    _ => return Err(malformed("Content-Length is not a number", &response.head)),
                };
                if !is_empty {
                    self.fill(length)?;
                    response.body = self.buffer.drain(..length).collect();
                }
            }
            ([], []) if is_empty => {}
            ([], []) => {
                response.is_until_close = true;
                loop {
                    match self.more() {
                        Ok(()) => {}
                        Err(ReadError::Cut(all, io::ErrorKind::UnexpectedEof)) => {
                            self.buffer.clear();
                            response.body = all;
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            ([_, _, ..], []) => return Err(malformed("there is more than one Content-Length", &response.head)),
        }
        Ok(())
    }

    fn read_chunks(&mut self, response: &mut Response) -> Result<(), ReadError> {
        loop {
            let line = self.read_line()?;
            let size = line.split(';').next().unwrap_or_default();
            let length = match usize::from_str_radix(size, 16) {
                Ok(length) if size.bytes().all(|byte| byte.is_ascii_hexdigit()) => length,
                _ => return Err(malformed("the size of a chunk is not hexadecimal", line.as_bytes())),
            };
            if length == 0 {
                break;
            }
            self.fill(length + 2)?;
            response.body.extend(self.buffer.drain(..length));
            let end: Vec<u8> = self.buffer.drain(..2).collect();
            if end != b"\r\n" {
                return Err(malformed("a chunk does not end where it said", &end));
            }
        }
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(());
            }
            response.trailers.push(field(&line).ok_or_else(|| malformed("a line of the trailers is not a field", line.as_bytes()))?);
        }
    }

    fn read_line(&mut self) -> Result<String, ReadError> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).map_err(|_| malformed("a line is not ASCII", &line));
            }
            self.more()?;
        }
    }

    fn fill(&mut self, length: usize) -> Result<(), ReadError> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Ok(())
    }

    fn more(&mut self) -> Result<(), ReadError> {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(0) => Err(ReadError::Cut(self.buffer.clone(), io::ErrorKind::UnexpectedEof)),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(ReadError::Silent(self.buffer.clone()))
            }
            Err(error) => Err(ReadError::Cut(self.buffer.clone(), error.kind())),
        }
    }
}

fn malformed(why: &str, bytes: &[u8]) -> ReadError {
    ReadError::Malformed(format!("{why}: {:?}", String::from_utf8_lossy(bytes)))
}

/// A field line (RFC 9112 section 5): a token, a colon with nothing before it, a value without controls.
fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let is_token = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let is_value = value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    (is_token && is_value).then(|| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
}

// === impl Response ===

impl Response {
    /// The value of a field that may be there once at most.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "`{name}` is there {} times: {all:?}", all.len());
        all.first().copied()
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("the body is not JSON: {error}: {:?}", String::from_utf8_lossy(&self.body)),
        }
    }

    /// The `code` of a problem document (RFC 9457), checked for its media type.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{}: {:?}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()["code"].as_str().expect("a problem has a code").to_owned()
    }

    /// Whether the connection stays open after it.
    pub fn is_keep_alive(&self) -> bool {
        let says_close =
            self.all("connection").iter().flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case("close"));
        !says_close && !self.is_until_close
    }
}

// === impl ReadError ===

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Closed => f.write_str("closed without an answer"),
            ReadError::Cut(seen, kind) => write!(f, "cut ({kind}) after {:?}", String::from_utf8_lossy(seen)),
            ReadError::Silent(seen) => write!(f, "silence after {:?}", String::from_utf8_lossy(seen)),
            ReadError::Malformed(why) => f.write_str(why),
        }
    }
}
