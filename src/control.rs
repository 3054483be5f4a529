//! The private socket by which `sluice reload` and `sluice upgrade` ask the running process and hear its verdict.
//!
//! Decides where the socket is and who may speak to it (its owner). Does not carry out what is asked: see `server.rs`.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
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
}

/// An order and where its verdict goes.
pub type Asked = (Order, oneshot::Sender<Verdict>);

/// Requests that wait to be carried out; more are told to come back.
const WAITING: usize = 8;

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

/// Where the sockets may be, best first: the service manager's directory, the user's, the system's, a private one in the temporary directory.
fn directories() -> Vec<PathBuf> {
    let mut all = Vec::new();
    if let Some(dir) = std::env::var_os("RUNTIME_DIRECTORY") {
        all.push(PathBuf::from(dir));
    }
    if let Some(dir) = std::env::var_os("XDG_RUNTIME_DIR") {
        all.push(Path::new(&dir).join("sluice"));
    }
    all.push(PathBuf::from("/run/sluice"));
    all.push(std::env::temp_dir().join(format!("sluice-{}", rustix::process::getuid().as_raw())));
    all
}

/// The name of the socket of the process that runs this configuration.
fn file_name(config: &Path) -> String {
    let whole = config.canonicalize().unwrap_or_else(|_| config.to_owned());
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, whole.as_os_str().as_encoded_bytes());
    let hex: String = digest.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}.sock")
}

/// The path that a starting process binds: in the first directory that exists or can be made.
pub fn path_to_bind(config: &Path) -> io::Result<PathBuf> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for dir in directories() {
        let made = match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => owned_by_us(&dir),
            other => other,
        };
        match made {
            Ok(()) => return Ok(dir.join(file_name(config))),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A directory that belongs to somebody else could hold somebody else's socket.
fn owned_by_us(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::symlink_metadata(dir)?;
    if meta.is_dir() && meta.uid() == rustix::process::getuid().as_raw() { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Binds the socket under a name of its own and moves it into place, so that a new process takes over from an old one without a gap.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}

/// Takes orders until the listener is dropped; each waits for its verdict on the same connection.
pub async fn serve(listener: UnixListener, orders: mpsc::Sender<Asked>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let orders = orders.clone();
        tokio::task::spawn_local(async move {
            let (read, mut write) = stream.into_split();
            let mut line = String::new();
            let mut read = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(read, 64));
            let wait = tokio::time::timeout(Duration::from_secs(5), read.read_line(&mut line));
            if !matches!(wait.await, Ok(Ok(_))) {
                return;
            }
            let verdict = match Order::parse(line.trim_end()) {
                None => Verdict { ok: false, text: format!("`{}` is not an order", line.trim_end().escape_debug()) },
                Some(order) => ask_inside(order, &orders).await,
            };
            if let Ok(mut reply) = serde_json::to_vec(&verdict) {
                reply.push(b'\n');
                let _ = write.write_all(&reply).await;
            }
        });
    }
}

async fn ask_inside(order: Order, orders: &mpsc::Sender<Asked>) -> Verdict {
    let (tell, told) = oneshot::channel();
    if orders.try_send((order, tell)).is_err() {
        return Verdict { ok: false, text: "busy with other orders; try again".into() };
    }
    told.await.unwrap_or_else(|_| Verdict { ok: false, text: "the process is stopping".into() })
}

/// A channel for orders, bounded.
pub fn channel() -> (mpsc::Sender<Asked>, mpsc::Receiver<Asked>) {
    mpsc::channel(WAITING)
}

/// Asks the process that runs `config` and waits for its verdict.
///
/// # Errors
/// Where no such process can be reached, with what was tried.
pub fn ask(config: &Path, order: Order) -> Result<Verdict, String> {
    let name = file_name(config);
    let mut tried = Vec::new();
    for path in directories().into_iter().map(|dir| dir.join(&name)) {
        match UnixStream::connect(&path) {
            Ok(stream) => return converse(stream, order).map_err(|e| format!("{}: {e}", path.display())),
            Err(e) => tried.push(format!("  {}: {e}", path.display())),
        }
    }
    Err(format!("no running sluice found for {}:\n{}", config.display(), tried.join("\n")))
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
        let listener = bind(&path).unwrap();
        let (orders, mut asked) = channel();
        let local = tokio::task::LocalSet::new();
        local.spawn_local(serve(listener, orders));
        let client = std::thread::spawn(move || converse(UnixStream::connect(path).unwrap(), Order::Reload).unwrap());
        local
            .run_until(async {
                let (order, tell) = asked.recv().await.unwrap();
                assert_eq!(order, Order::Reload);
                tell.send(Verdict { ok: false, text: "no".into() }).unwrap();
                let verdict = tokio::task::spawn_blocking(|| client.join().unwrap()).await.unwrap();
                assert_eq!(verdict, Verdict { ok: false, text: "no".into() });
            })
            .await;
    }
}
