//! A new binary in place: the old process starts the new one, hands it the listening sockets and the counters, and hears that it is ready.
//!
//! Decides what is said between the two and when the attempt has failed. Does not decide what the old process does next:
//! see `server.rs`. If the new process fails at any point the old one has lost nothing, for it only lent copies.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde::{Deserialize, Serialize};

/// Tells the new process where the old one waits for it.
const VARIABLE: &str = "SLUICE_UPGRADE";
/// More sockets than this are not handed over in one message (the kernel takes 253).
const MOST_SOCKETS: usize = 200;
/// How long the new process may take to be ready.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long each look at what the new process does takes; so late a death or a cancellation is noticed.
const TURN: Duration = Duration::from_millis(20);

/// When an attempt is given up.
#[derive(Debug)]
pub struct Limits {
    pub deadline: Instant,
    /// Set by whoever does not want the new process any more.
    pub is_cancelled: Arc<AtomicBool>,
}

/// The first message, with the sockets attached in the same order.
#[derive(Serialize, Deserialize)]
struct Greeting {
    version: u32,
    addresses: Vec<String>,
}

const VERSION: u32 = 1;

/// What the new process says, a JSON line each.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    /// Everything is built; the counters, please.
    Built,
    /// Connections are being accepted.
    Ready,
    /// The configuration or its tests were refused; the old process prints why.
    Failed(String),
}

// === the old process ===

/// Starts `program` with `args` and brings it to the point where it accepts connections.
///
/// `state` is called once, as late as possible: what is counted after that is not handed over.
/// Returns the process id of the new process.
///
/// # Errors
/// What went wrong, for a person. The new process is then gone.
pub fn hand_over(
    program: &Path,
    args: &[OsString],
    sockets: &[(String, BorrowedFd<'_>)],
    state: impl FnOnce() -> Vec<u8>,
    limits: &Limits,
) -> Result<u32, String> {
    if std::process::id() == 1 {
        return Err("process 1 of a container cannot hand over: the container ends with it. Start a new container instead.".into());
    }
    let meeting = Meeting::new().map_err(|e| format!("cannot prepare the hand-over: {e}"))?;
    let mut child = Command::new(program)
        .args(args)
        .env(VARIABLE, &meeting.path)
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    match converse(&meeting, &mut child, sockets, state, limits) {
        Ok(()) => Ok(child.id()),
        Err(why) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(why)
        }
    }
}

/// A socket in a private directory, removed when it is no longer needed.
struct Meeting {
    listener: UnixListener,
    path: PathBuf,
}

impl Meeting {
    fn new() -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|e| io::Error::other(e.to_string()))?;
        let dir = std::env::temp_dir().join(format!("sluice-upgrade-{:016x}", u64::from_ne_bytes(random)));
        std::fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let path = dir.join("socket");
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Meeting { listener, path })
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        if let Some(dir) = self.path.parent() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}

fn converse(
    meeting: &Meeting,
    child: &mut Child,
    sockets: &[(String, BorrowedFd<'_>)],
    state: impl FnOnce() -> Vec<u8>,
    limits: &Limits,
) -> Result<(), String> {
    let stream = meet(meeting, child, limits)?;
    let mut lines = Lines { stream: &stream, bytes: Vec::new() };
    lend(&stream, sockets).map_err(|e| format!("cannot hand the sockets over: {e}"))?;
    lines.expect(child, limits, |said| matches!(said, Said::Built))?;
    let state = state();
    // The new process may be stuck and never read it.
    stream.set_write_timeout(Some(limits.left()?)).map_err(|e| e.to_string())?;
    let mut writer = &stream;
    writer
        .write_all(&(state.len() as u64).to_le_bytes())
        .and_then(|()| writer.write_all(&state))
        .map_err(|e| format!("cannot hand the counters over: {e}"))?;
    lines.expect(child, limits, |said| matches!(said, Said::Ready))
}

// === impl Limits ===

impl Limits {
    pub fn new(patience: Duration) -> Limits {
        Limits { deadline: Instant::now() + patience, is_cancelled: Arc::default() }
    }

    /// The time that is left, or why none is.
    fn left(&self) -> Result<Duration, String> {
        if self.is_cancelled.load(Ordering::Relaxed) {
            return Err("the upgrade was given up, because this process is to stop".into());
        }
        match self.deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err("the new process was not ready in time; it was stopped".into()),
        }
    }

    /// Waits until something can be read, but for one turn only.
    fn wait(&self, fd: impl AsFd) -> Result<bool, String> {
        // In short turns, because neither a child that dies nor a cancellation wakes this up.
        let turn = rustix::event::Timespec::try_from(self.left()?.min(TURN)).map_err(|e| e.to_string())?;
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&turn)).is_ok_and(|ready| ready > 0))
    }
}

/// Waits for the new process, and for nobody else, to come to the meeting.
fn meet(meeting: &Meeting, child: &mut Child, limits: &Limits) -> Result<UnixStream, String> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(died(status));
        }
        if !limits.wait(&meeting.listener)? {
            continue;
        }
        if let Ok((stream, _)) = meeting.listener.accept() {
            let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| e.to_string())?;
            if peer.pid.as_raw_nonzero().get() as u32 == child.id() {
                stream.set_nonblocking(false).map_err(|e| e.to_string())?;
                return Ok(stream);
            }
        }
    }
}

fn died(status: ExitStatus) -> String {
    format!("the new process ended before it was ready: {status}")
}

/// What the new process says, line by line.
struct Lines<'a> {
    stream: &'a UnixStream,
    /// Read, and not a line yet.
    bytes: Vec<u8>,
}

impl Lines<'_> {
    fn expect(&mut self, child: &mut Child, limits: &Limits, wanted: impl Fn(&Said) -> bool) -> Result<(), String> {
        let line = loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                break self.bytes.drain(..=end).collect::<Vec<u8>>();
            }
            if !limits.wait(self.stream)? {
                continue;
            }
            let mut piece = [0; 4096];
            match { self.stream }.read(&mut piece) {
                Ok(0) => return Err(self.gone(child, limits)),
                Ok(count) => self.bytes.extend_from_slice(&piece[..count]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("the hand-over broke: {e}")),
            }
        };
        match serde_json::from_slice::<Said>(&line) {
            Ok(Said::Failed(why)) => Err(why),
            Ok(said) if wanted(&said) => Ok(()),
            Ok(_) | Err(_) => Err("the new process speaks another version of the hand-over".into()),
        }
    }

    /// It has closed its end: most likely it is ending, too.
    fn gone(&self, child: &mut Child, limits: &Limits) -> String {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return died(status),
                Ok(None) if limits.left().is_ok() => pause(),
                Ok(None) | Err(_) => return "the new process broke off the hand-over".to_owned(),
            }
        }
    }
}

fn lend(stream: &UnixStream, sockets: &[(String, BorrowedFd<'_>)]) -> io::Result<()> {
    if sockets.len() > MOST_SOCKETS {
        return Err(io::Error::other(format!("{} sockets are more than the {MOST_SOCKETS} that fit one message", sockets.len())));
    }
    let greeting = Greeting { version: VERSION, addresses: sockets.iter().map(|(address, _)| address.clone()).collect() };
    let mut line = serde_json::to_vec(&greeting)?;
    line.push(b'\n');
    let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, fd)| *fd).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("the sockets do not fit one message"));
    }
    // The sockets travel with the first byte; the rest of the line is ordinary data.
    let sent = rustix::net::sendmsg(stream, &[IoSlice::new(&line)], &mut control, SendFlags::empty())?;
    (&*stream).write_all(&line[sent..])
}

#[expect(clippy::disallowed_methods, reason = "the hand-over has a thread of its own")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

// === the new process ===

/// What a new process got from the one that started it.
pub struct Inherited {
    stream: UnixStream,
    sockets: HashMap<String, OwnedFd>,
}

/// Meets the old process, if this process was started by one.
///
/// # Errors
/// Where the meeting failed: this process must then end, for the old one goes on.
pub fn inherit() -> io::Result<Option<Inherited>> {
    let Some(path) = std::env::var_os(VARIABLE) else { return Ok(None) };
    let stream = UnixStream::connect(path)?;
    let mut line = Vec::new();
    let mut fds = Vec::new();
    while line.last() != Some(&b'\n') {
        let mut bytes = [0; 4096];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if got.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.extend_from_slice(&bytes[..got.bytes]);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
    }
    let greeting: Greeting = serde_json::from_slice(&line)?;
    if greeting.version != VERSION || greeting.addresses.len() != fds.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the old process speaks another version of the hand-over"));
    }
    Ok(Some(Inherited { stream, sockets: greeting.addresses.into_iter().zip(fds).collect() }))
}

impl Inherited {
    /// The listening socket of an address, if the old process had one.
    pub fn take(&mut self, address: &str) -> Option<TcpListener> {
        self.sockets.remove(address).map(TcpListener::from)
    }

    /// Says that everything is built, and gets the counters.
    pub fn state(&mut self) -> io::Result<Vec<u8>> {
        self.say(&Said::Built)?;
        let mut length = [0; 8];
        self.stream.read_exact(&mut length)?;
        let mut state = Vec::new();
        let length = u64::from_le_bytes(length);
        (&mut self.stream).take(length).read_to_end(&mut state)?;
        if state.len() as u64 == length { Ok(state) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Says that connections are being accepted. The old process then stops.
    pub fn ready(mut self) -> io::Result<()> {
        self.say(&Said::Ready)
    }

    /// Says why this process ends instead.
    pub fn failed(mut self, why: &str) {
        let _ = self.say(&Said::Failed(why.to_owned()));
    }

    fn say(&mut self, said: &Said) -> io::Result<()> {
        let mut line = serde_json::to_vec(said)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }
}
