//! The private socket by which `sluice reload` and `sluice upgrade` ask the running process and hear its verdict.
//!
//! Decides where the socket is and who may speak to it (its owner). Does not carry out what is asked: see `server.rs`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Reload,
    Upgrade,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub ok: bool,
    /// For a person: what was done, or the diagnostics.
    pub text: String,
    /// This process stops and has done nothing; another one may have taken its place, or be about to.
    #[serde(default)]
    pub ask_again: bool,
}

/// An order and the way back to who gave it.
#[derive(Debug)]
pub struct Asked {
    pub order: Order,
    tell: oneshot::Sender<Verdict>,
    /// Ends when the verdict has been written.
    written: oneshot::Receiver<()>,
}

/// A socket that is bound, under a name of its own until it is [published](Socket::publish).
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    fresh: PathBuf,
    place: Place,
}

/// Where the socket is; removed when this is dropped, unless another process has put its own there.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    inode: u64,
}

/// Orders that wait to be carried out; more are told to come back.
const WAITING: usize = 8;
/// How long a process that is about to take over may take to be reachable.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// How long an answer may take to leave.
const LEAVE: Duration = Duration::from_secs(1);

// === impl Order ===

impl Order {
    pub fn as_str(self) -> &'static str {
        match self {
            Order::Reload => "reload",
            Order::Upgrade => "upgrade",
        }
    }

    fn parse(line: &str) -> Option<Order> {
        [Order::Reload, Order::Upgrade].into_iter().find(|order| order.as_str() == line)
    }
}

// === impl Verdict ===

impl Verdict {
    pub fn done(text: impl Into<String>) -> Verdict {
        Verdict { ok: true, text: text.into(), ask_again: false }
    }

    pub fn refused(text: impl Into<String>) -> Verdict {
        Verdict { ok: false, text: text.into(), ask_again: false }
    }

    /// The answer of a process that carries out nothing any more.
    pub fn stopping() -> Verdict {
        Verdict { ok: false, text: "the process is stopping".to_owned(), ask_again: true }
    }
}

// === impl Asked ===

impl Asked {
    /// Returns when the verdict has left, or nobody wants it.
    pub async fn answer(self, verdict: Verdict) {
        if self.tell.send(verdict).is_ok() {
            let _ = tokio::time::timeout(LEAVE, self.written).await;
        }
    }
}

/// Where sockets may be, best first: the service manager's directory, the user's, the system's, a private one in the temporary directory.
/// With each, whether anybody may make things beside it, so that a link is not to be trusted.
fn directories() -> Vec<(PathBuf, bool)> {
    let mut all = Vec::new();
    if let Some(dirs) = std::env::var_os("RUNTIME_DIRECTORY") {
        all.extend(std::env::split_paths(&dirs).next().map(|dir| (dir, false)));
    }
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        all.push((Path::new(&dir).join("sluice"), false));
    }
    all.push((PathBuf::from("/run/sluice"), false));
    all.push((std::env::temp_dir().join(format!("sluice-{}", rustix::process::getuid().as_raw())), true));
    all
}

/// The name of the socket of the process that runs this configuration.
fn file_name(config: &Path) -> String {
    let whole = config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_os_str().as_encoded_bytes());
    let hex: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.sock")
}

/// The path that a starting process uses: in the first directory that exists or can be made.
fn path_to_bind(config: &Path) -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for (dir, is_shared) in directories() {
        let made = match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => owned_by_us(&dir, is_shared),
            other => other,
        };
        match made {
            Ok(()) => return Ok(dir.join(file_name(config))),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A directory that belongs to somebody else could hold somebody else's socket. systemd's own are links where the user is dynamic.
fn owned_by_us(dir: &Path, is_shared: bool) -> io::Result<()> {
    let meta = if is_shared { std::fs::symlink_metadata(dir)? } else { std::fs::metadata(dir)? };
    if meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

// === impl Socket ===

impl Socket {
    /// Binds the socket of the process that runs `config`. Nobody finds it yet: one that runs already keeps its own.
    pub fn bind(config: &Path) -> io::Result<Socket> {
        Socket::bind_at(path_to_bind(config)?)
    }

    fn bind_at(path: PathBuf) -> io::Result<Socket> {
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&fresh);
        let listener = UnixListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
        let inode = std::fs::symlink_metadata(&fresh)?.ino();
        Ok(Socket { listener, fresh, place: Place { path, inode } })
    }

    /// Moves it into place, so that a new process takes over from an old one without a gap.
    pub fn publish(self) -> io::Result<(UnixListener, Place)> {
        std::fs::rename(&self.fresh, &self.place.path)?;
        Ok((self.listener, self.place))
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes orders until the listener is dropped; each waits for its verdict on the same connection.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Asked>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors are left; it gets better when connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let orders = orders.clone();
        tokio::task::spawn_local(async move {
            let (read, mut write_half) = stream.into_split();
            let mut line = String::new();
            let mut read = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(read, 64));
            let wait = tokio::time::timeout(Duration::from_secs(5), read.read_line(&mut line));
            if !matches!(wait.await, Ok(Ok(_))) {
                return;
            }
            let Some(order) = Order::parse(line.trim_end()) else {
                return write(&mut write_half, &Verdict::refused(format!("`{}` is not an order", line.trim_end().escape_debug()))).await;
            };
            let (tell, told) = oneshot::channel();
            let (leaving, written) = oneshot::channel::<()>();
            let verdict = match orders.try_send(Asked { order, tell, written }) {
                Ok(()) => told.await.unwrap_or_else(|_| Verdict::stopping()),
                Err(TrySendError::Full(_)) => Verdict::refused("busy with other orders; try again"),
                Err(TrySendError::Closed(_)) => Verdict::stopping(),
            };
            write(&mut write_half, &verdict).await;
            drop(leaving);
        });
    }
}

async fn write(stream: &mut OwnedWriteHalf, verdict: &Verdict) {
    let Ok(mut reply) = serde_json::to_vec(verdict) else { return };
    reply.push(b'\n');
    // Whoever asked may have gone; the verdict is in the log, too.
    let _ = stream.write_all(&reply).await;
}

/// A channel for orders, bounded.
pub fn channel() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(WAITING)
}

/// Asks the process that runs `config` and waits for its verdict. Where one process is taking over from another, asks the new one.
///
/// # Errors
/// Where no such process can be reached, with what was tried.
#[expect(clippy::disallowed_methods, reason = "a command of its own, which only waits")]
pub fn ask(config: &Path, order: Order) -> Result<Verdict, String> {
    let name = file_name(config);
    let paths: Vec<_> = directories().into_iter().map(|(dir, _)| dir.join(&name)).collect();
    let until = Instant::now() + TAKE_OVER;
    loop {
        let verdict = ask_once(&paths, order)?;
        match verdict {
            Some(verdict) if !verdict.ask_again || Instant::now() > until => return Ok(verdict),
            None if Instant::now() > until => return Err(nobody_at(&paths, "the process that was there has ended")),
            Some(_) | None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `None` where there is a socket and nobody at it: a process has just ended there, or will soon begin.
fn ask_once(paths: &[PathBuf], order: Order) -> Result<Option<Verdict>, String> {
    let mut is_stale = false;
    for path in paths {
        match UnixStream::connect(path) {
            Ok(stream) => return converse(stream, order).map(Some).map_err(|e| format!("{}: {e}", path.display())),
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => is_stale = true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(format!("{}: {e}", path.display())),
        }
    }
    if is_stale { Ok(None) } else { Err(nobody_at(paths, "there is no socket")) }
}

fn nobody_at(paths: &[PathBuf], why: &str) -> String {
    let tried: String = paths.iter().map(|path| format!("\n  {}", path.display())).collect();
    format!("no running sluice was found for this configuration, {why}:{tried}")
}

fn converse(mut stream: UnixStream, order: Order) -> io::Result<Verdict> {
    writeln!(stream, "{}", order.as_str())?;
    let mut reply = String::new();
    BufReader::new(stream).read_line(&mut reply)?;
    serde_json::from_str(&reply).map_err(|_| io::Error::new(io::ErrorKind::UnexpectedEof, "the process ended before it answered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_configuration_has_a_socket_of_its_own() {
        assert_eq!(file_name(Path::new("/nowhere/a.yaml")), file_name(Path::new("/nowhere/a.yaml")));
        assert_ne!(file_name(Path::new("/nowhere/a.yaml")), file_name(Path::new("/nowhere/b.yaml")));
    }

    #[tokio::test]
    async fn an_order_waits_for_its_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (listener, place) = Socket::bind_at(path.clone()).unwrap().publish().unwrap();
        let (orders, mut asked) = channel();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(serve(listener, orders));
        let client = std::thread::spawn(move || converse(UnixStream::connect(path).unwrap(), Order::Reload).unwrap());
        local
            .run_until(async {
                let order = asked.recv().await.unwrap();
                assert_eq!(order.order, Order::Reload);
                order.answer(Verdict::refused("no")).await;
                let verdict = tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap();
                assert_eq!(verdict, Verdict::refused("no"));
            })
            .await;
        drop(place);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[tokio::test]
    async fn a_process_that_stops_sends_whoever_asks_to_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (listener, _place) = Socket::bind_at(path.clone()).unwrap().publish().unwrap();
        let (orders, asked) = channel();
        drop(asked);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(serve(listener, orders));
        let asking = tokio::task::spawn_blocking(move || converse(UnixStream::connect(path).unwrap(), Order::Reload).unwrap());
        let verdict = local.run_until(asking).await.unwrap();
        assert!(verdict.ask_again && !verdict.ok);
    }

    #[tokio::test]
    async fn an_old_process_that_ends_leaves_the_socket_of_the_new_one_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (_old, old_place) = Socket::bind_at(path.clone()).unwrap().publish().unwrap();
        let (_new, new_place) = Socket::bind_at(path.clone()).unwrap().publish().unwrap();
        drop(old_place);
        assert!(UnixStream::connect(&path).is_ok());
        drop(new_place);
        assert!(!path.exists());
    }
}
