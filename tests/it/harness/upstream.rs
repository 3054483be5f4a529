//! An upstream that records every byte and answers as a test scripts it: rightly, slowly, wrongly or not at all.
//!
//! Frames requests only as far as needed to find their ends; what it cannot frame it records and hangs up on.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{patience, ports};

/// What an upstream does about a request, one step after the other. Where the body was not read by then, it is read after the last step.
#[derive(Clone, Debug)]
pub enum Step {
    /// Reads the request's body to its end.
    ReadBody,
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Lets time pass.
    Pause(Duration),
    /// Waits until the test opens the gate.
    WaitFor(Gate),
    /// Says nothing more until the other side closes or the upstream is dropped.
    Hang,
    /// Ends the connection with a reset.
    Reset,
    /// Ends the connection.
    Close,
}

/// Held until a test opens it; copies are the same gate.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

/// A request as it arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// Counts the connections from 0.
    pub connection: usize,
    /// Counts the requests of its connection from 0.
    pub index: usize,
    pub method: String,
    pub target: String,
    /// In order and spelling as they came.
    pub headers: Vec<(String, String)>,
    /// Request line and fields with the empty line, byte for byte.
    pub head: Vec<u8>,
    /// As on the wire, with chunk framing. Empty while the script runs, unless it has read the body.
    pub raw_body: Vec<u8>,
    /// The content.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub is_complete: bool,
}

/// An answer in the making: `Answer::ok("text").header("x-a", "1")`.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    is_chunked: bool,
}

type Script = dyn Fn(&Request) -> Vec<Step> + Send + Sync;

/// A listening upstream. Dropping it closes everything.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    /// Every byte of every connection.
    raw: Vec<Vec<u8>>,
    requests: Vec<Request>,
    /// To end their threads.
    streams: Vec<(usize, TcpStream)>,
    open: usize,
}

// === impl Upstream ===

impl Upstream {
    /// Answers everything with 200 and a short text.
    pub fn start() -> Upstream {
        Upstream::script(|_| Answer::ok("hello from upstream").steps())
    }

    /// Answers everything with one answer.
    pub fn answering(answer: Answer) -> Upstream {
        Upstream::script(move |_| answer.clone().steps())
    }

    /// Asks the script as soon as a request's head is there; its first step is most often `ReadBody`.
    pub fn script(script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        Upstream::on("127.0.0.1:0", script)
    }

    /// Likewise, on an address such as one that had another upstream before.
    pub fn on(address: &str, script: impl Fn(&Request) -> Vec<Step> + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind(address).expect("the address is free");
        // The standard library queues 128; a burst of more, as six times a hundred streams, would wait for its SYN to be sent again.
        rustix::net::listen(&listener, 4096).expect("a listening socket may be given a longer queue");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared { script: Box::new(script), state: Mutex::default(), changed: Condvar::new() });
        let all = shared.clone();
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let mut state = all.lock();
                if state.is_stopped {
                    return;
                }
                let number = state.raw.len();
                state.raw.push(Vec::new());
                state.open += 1;
                if let Ok(copy) = stream.try_clone() {
                    state.streams.push((number, copy));
                }
                drop(state);
                let shared = all.clone();
                thread::spawn(move || {
                    Connection { stream, number, shared: shared.clone(), buffer: Vec::new(), is_reset: false }.serve();
                    shared.lock().open -= 1;
                    shared.changed.notify_all();
                });
            }
        });
        Upstream { address, shared, accepting: Some(accepting) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far, in the order in which their bodies ended.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// The last request; fails where there is none.
    #[track_caller]
    pub fn last(&self) -> Request {
        self.requests().pop().expect("the upstream got a request")
    }

    /// Every byte that arrived, connection by connection.
    pub fn raw(&self) -> Vec<Vec<u8>> {
        self.shared.lock().raw.clone()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.lock().raw.len()
    }

    /// How many connections are open.
    pub fn open_connections(&self) -> usize {
        self.shared.lock().open
    }

    /// Waits until so many requests are there and returns all.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Request> {
        self.wait(|state| (state.requests.len() >= count).then(|| state.requests.clone()), "requests")
    }

    /// Waits until no connection is open.
    #[track_caller]
    pub fn wait_for_all_closed(&self) {
        self.wait(|state| (state.open == 0).then_some(()), "the end of all connections");
    }

    /// Closes connections that are kept alive, as a server does after a while.
    pub fn close_connections(&self) {
        for (_, stream) in self.shared.lock().streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    #[track_caller]
    fn wait<T>(&self, ready: impl Fn(&State) -> Option<T>, what: &str) -> T {
        let state = self.shared.lock();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, patience(), |state| ready(state).is_none())
            .expect("no thread panics while it holds the lock");
        let found = ready(&state);
        let requests = state.requests.clone();
        // A panic must not poison the lock: dropping the upstream needs it.
        drop(state);
        match found {
            Some(found) => found,
            None => panic!("the upstream waited in vain for {what} ({timeout:?}); it has {requests:#?}"),
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.changed.notify_all();
        self.close_connections();
        // The accepting thread wakes up, sees the mark and drops the listener: whoever comes after this is refused.
        let is_woken = TcpStream::connect(self.address).is_ok();
        if let Some(accepting) = self.accepting.take().filter(|_| is_woken) {
            let _ = accepting.join();
        }
        // Nor does another test's upstream listen there while this test goes on.
        ports::keep(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds the lock")
    }
}

// === one connection ===

struct Connection {
    stream: TcpStream,
    number: usize,
    shared: Arc<Shared>,
    buffer: Vec<u8>,
    is_reset: bool,
}

/// The connection is over.
struct Over;

impl Connection {
    fn serve(mut self) {
        let _ = self.stream.set_nodelay(true);
        let mut index = 0;
        while self.serve_one(index).is_ok() {
            index += 1;
        }
        // An orderly end would come before the reset.
        if !self.is_reset {
            let _ = self.stream.shutdown(Shutdown::Both);
        }
        // The reset is sent when the last descriptor goes.
        self.shared.lock().streams.retain(|(number, _)| *number != self.number);
    }

    fn serve_one(&mut self, index: usize) -> Result<(), Over> {
        let end = loop {
            match self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None => self.more()?,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let mut request = Request {
            connection: self.number,
            index,
            method: words.next().unwrap_or_default().to_owned(),
            target: words.next().unwrap_or_default().to_owned(),
            headers: lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect(),
            head,
            raw_body: Vec::new(),
            body: Vec::new(),
            is_complete: false,
        };
        let mut is_read = false;
        let steps = (self.shared.script)(&request);
        // Whatever becomes of the connection, the request is on record.
        let run = || {
            for step in steps {
                match step {
                    Step::ReadBody if is_read => {}
                    Step::ReadBody => {
                        is_read = true;
                        self.read_body(&mut request)?;
                        self.record(&request);
                    }
                    Step::Send(bytes) => self.stream.write_all(&bytes).map_err(|_| Over)?,
                    Step::Pause(time) => thread::sleep(time),
                    Step::WaitFor(gate) => gate.wait(),
                    Step::Hang => loop {
                        self.more()?;
                    },
                    Step::Reset => {
                        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
                        self.is_reset = true;
                        return Err(Over);
                    }
                    Step::Close => return Err(Over),
                }
            }
            Ok(())
        };
        let mut outcome = run();
        if !is_read {
            if outcome.is_ok() {
                outcome = self.read_body(&mut request);
            }
            self.record(&request);
        } else if !request.is_complete {
            self.record(&request);
        }
        outcome
    }

    fn record(&self, request: &Request) {
        self.shared.lock().requests.push(request.clone());
        self.shared.changed.notify_all();
    }

    fn read_body(&mut self, request: &mut Request) -> Result<(), Over> {
        if request.all("transfer-encoding").iter().any(|coding| coding.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.take_line(request)?;
                let size = String::from_utf8_lossy(&line).split(';').next().unwrap_or_default().trim().to_owned();
                let size = usize::from_str_radix(&size, 16).map_err(|_| Over)?;
                if size == 0 {
                    while !self.take_line(request)?.is_empty() {}
                    break;
                }
                self.take(size, request)?;
                self.take_line(request)?;
            }
        } else if let Some(length) = request.header("content-length") {
            let length = length.parse().map_err(|_| Over)?;
            self.take(length, request)?;
        }
        request.is_complete = true;
        Ok(())
    }

    /// So many bytes of content; what came before an early end is kept too.
    fn take(&mut self, length: usize, request: &mut Request) -> Result<(), Over> {
        let mut left = length;
        while left > 0 {
            if self.buffer.is_empty() {
                self.more()?;
            }
            let n = self.buffer.len().min(left);
            let piece: Vec<u8> = self.buffer.drain(..n).collect();
            request.raw_body.extend_from_slice(&piece);
            request.body.extend_from_slice(&piece);
            left -= n;
        }
        Ok(())
    }

    fn take_line(&mut self, request: &mut Request) -> Result<Vec<u8>, Over> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                request.raw_body.extend_from_slice(&line);
                return Ok(line[..end].to_vec());
            }
            self.more()?;
        }
    }

    fn more(&mut self) -> Result<(), Over> {
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece) {
            Ok(n @ 1..) => {
                self.shared.lock().raw[self.number].extend_from_slice(&piece[..n]);
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Ok(0) | Err(_) => Err(Over),
        }
    }
}

// === impl Request ===

impl Request {
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
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { connection, index, head, raw_body, is_complete, method: _, target: _, headers: _, body: _ } = self;
        let text = format!("{}{}", String::from_utf8_lossy(head), String::from_utf8_lossy(raw_body));
        write!(f, "request {index} of connection {connection}{}: {text:?}", if *is_complete { "" } else { " (incomplete)" })
    }
}

// === impl Answer ===

impl Answer {
    pub fn new(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), is_chunked: false }
    }

    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer::new(200).body(body)
    }

    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    #[must_use]
    pub fn chunked(mut self) -> Answer {
        self.is_chunked = true;
        self
    }

    /// As on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} Scripted\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if self.is_chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in self.body.chunks(1000) {
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            if self.status != 204 && self.status != 304 {
                out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
            }
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&self.body);
        }
        out
    }

    /// Reads the request's body, then answers.
    pub fn steps(&self) -> Vec<Step> {
        vec![Step::ReadBody, Step::Send(self.bytes())]
    }
}

// === impl Gate ===

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    pub fn open(&self) {
        *self.0.0.lock().expect("no thread panics while it holds the lock") = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open; a test that forgot it goes on after `PATIENCE`.
    pub fn wait(&self) {
        let is_open = self.0.0.lock().expect("no thread panics while it holds the lock");
        drop(self.0.1.wait_timeout_while(is_open, patience(), |is_open| !*is_open));
    }
}
