//! A new binary in place: the old process starts the new one, hands it the listening sockets and the counters, and hears that it is ready.
//!
//! Decides what is said between the two and when the attempt has failed. Does not decide what the old process does next:
//! see `server.rs`. If the new process fails at any point the old one has lost nothing, for it only lent copies.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
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
    patience: Duration,
) -> Result<u32, String> {
    if std::process::id() == 1 {
        return Err("process 1 of a container cannot hand over: the container ends with it. Start a new container instead.".into());
    }
    let deadline = Instant::now() + patience;
    let meeting = Meeting::new().map_err(|e| format!("cannot prepare the hand-over: {e}"))?;
    let mut child = Command::new(program)
        .args(args)
        .env(VARIABLE, &meeting.path)
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    match converse(&meeting, &mut child, sockets, state, deadline) {
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
    deadline: Instant,
) -> Result<(), String> {
    let stream = meet(meeting, child, deadline)?;
    let mut lines = BufReader::new(&stream);
    lend(&stream, sockets).map_err(|e| format!("cannot hand the sockets over: {e}"))?;
    expect(&mut lines, &stream, child, deadline, |said| matches!(said, Said::Built))?;
    let state = state();
    let mut writer = &stream;
    writer
        .write_all(&(state.len() as u64).to_le_bytes())
        .and_then(|()| writer.write_all(&state))
        .map_err(|e| format!("cannot hand the counters over: {e}"))?;
    expect(&mut lines, &stream, child, deadline, |said| matches!(said, Said::Ready))
}

/// Waits for the new process, and for nobody else, to come to the meeting.
fn meet(meeting: &Meeting, child: &mut Child, deadline: Instant) -> Result<UnixStream, String> {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the new process ended before it was ready: {status}"));
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Err("the new process was not ready in time; it was stopped".into());
        };
        // In short turns, because a child that dies does not wake this up.
        let turn = rustix::event::Timespec::try_from(left.min(Duration::from_millis(50))).map_err(|e| e.to_string())?;
        let mut fds = [PollFd::new(&meeting.listener, PollFlags::IN)];
        let _ = poll(&mut fds, Some(&turn));
        if let Ok((stream, _)) = meeting.listener.accept() {
            let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(|e| e.to_string())?;
            if peer.pid.as_raw_nonzero().get() as u32 == child.id() {
                stream.set_nonblocking(false).map_err(|e| e.to_string())?;
                return Ok(stream);
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

fn expect(
    lines: &mut BufReader<&UnixStream>,
    stream: &UnixStream,
    child: &mut Child,
    deadline: Instant,
    wanted: impl Fn(&Said) -> bool,
) -> Result<(), String> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).map_err(|e| e.to_string())?;
    let mut line = String::new();
    match lines.read_line(&mut line) {
        Ok(0) => {
            let status = child.wait().map(|status| status.to_string()).unwrap_or_default();
            Err(format!("the new process ended before it was ready: {status}"))
        }
        Ok(_) => match serde_json::from_str::<Said>(&line) {
            Ok(Said::Failed(why)) => Err(why),
            Ok(said) if wanted(&said) => Ok(()),
            Ok(_) | Err(_) => Err("the new process speaks another version of the hand-over".into()),
        },
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err("the new process was not ready in time; it was stopped".into())
        }
        Err(e) => Err(format!("the hand-over broke: {e}")),
    }
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
