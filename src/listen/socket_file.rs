//! The file of a Unix socket: whose it is, who may connect, and when it goes.
//!
//! Decides that only a socket which nobody listens on is replaced, that nobody can connect before mode and owner are right, and that
//! the file goes with its last listener. Does not accept: see `accept.rs`.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use socket2::{Domain, SockAddr, Socket, Type};

use super::accept::BACKLOG;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;

/// Who may connect: everybody who may write to the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// A name or a number; `None`: that of the process.
    pub owner: Option<String>,
    pub group: Option<String>,
}

/// The file of a socket that is listened on; removed when this is dropped, unless it is kept or another's by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
    is_kept: bool,
}

// === impl Access ===

impl Default for Access {
    fn default() -> Self {
        Access { mode: 0o660, owner: None, group: None }
    }
}

impl Access {
    pub(super) fn compile(
        is_unix: bool,
        mode: Option<&At<String>>,
        owner: Option<&At<String>>,
        group: Option<&At<String>>,
        mistakes: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut access = Access::default();
        for (key, written) in [("mode", mode), ("owner", owner), ("group", group)] {
            if let Some(written) = written.filter(|_| !is_unix) {
                let message = format!("`{key}` has no effect: only Unix sockets are files, such as `unix:/run/sluice/public.sock`");
                mistakes.push(Diagnostic::at(&written.place, "inert", message));
            }
        }
        if let Some(mode) = mode {
            match u32::from_str_radix(mode, 8).ok().filter(|bits| mode.len() == 4 && *bits <= 0o777 && bits & 0o222 != 0) {
                Some(bits) => access.mode = bits,
                None => {
                    let message = format!(
                        "`{}` is not the mode of a socket: expected four octal digits by which somebody may write, such as `\"0660\"`",
                        mode.value
                    );
                    mistakes.push(Diagnostic::at(&mode.place, "bad-value", message));
                }
            }
        }
        access.owner = owner.map(|owner| owner.value.clone());
        access.group = group.map(|group| group.value.clone());
        access
    }

    /// Gives the file to whom it shall belong, then lets in who may connect.
    pub fn apply(&self, path: &Path) -> Result<(), String> {
        let unknown = |what: &str, name: &str| format!("there is no {what} `{name}`");
        let (mut user, mut group) = (None, None);
        if let Some(name) = &self.owner {
            let found = User::from_name(name).ok().flatten().map(|user| user.uid.as_raw());
            user = Some(found.or_else(|| name.parse().ok()).ok_or_else(|| unknown("user", name))?);
        }
        if let Some(name) = &self.group {
            let found = Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw());
            group = Some(found.or_else(|| name.parse().ok()).ok_or_else(|| unknown("group", name))?);
        }
        if user.is_some() || group.is_some() {
            chown(path, user, group).map_err(|e| format!("its owner cannot be changed: {e}"))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode)).map_err(|e| format!("its mode cannot be changed: {e}"))
    }
}

// === impl SocketFile ===

impl SocketFile {
    /// That of a socket which another process, or another listener, has made.
    pub fn found(path: &Path) -> Option<SocketFile> {
        let found = fs::symlink_metadata(path).ok().filter(|found| found.file_type().is_socket())?;
        Some(SocketFile { path: path.to_owned(), inode: (found.dev(), found.ino()), is_kept: false })
    }

    /// Leaves the file where it is: another listens on it.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = || fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if !self.is_kept && is_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on a path. The type of the socket is that of a TCP one, because that is what is kept and handed over; the kernel knows better.
pub fn bind(path: &Path, access: &Access) -> Result<(TcpListener, Option<SocketFile>), String> {
    make_room(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(|e| e.to_string())?;
    let address = SockAddr::unix(path).map_err(|e| e.to_string())?;
    // The file is made with these bits: until it is given away nobody may connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::empty()).map_err(|e| e.to_string())?;
    socket.bind(&address).map_err(|e| e.to_string())?;
    let file = SocketFile::found(path);
    access.apply(path)?;
    socket.set_nonblocking(true).and_then(|()| socket.listen(BACKLOG)).map_err(|e| e.to_string())?;
    Ok((TcpListener::from(OwnedFd::from(socket)), file))
}

/// Removes what a process has left that ended without doing so.
fn make_room(path: &Path) -> Result<(), String> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.to_string()),
        Ok(found) if !found.file_type().is_socket() => Err("there is a file that is no socket".to_owned()),
        Ok(_) => match UnixStream::connect(path).map_err(|e| e.kind()) {
            Err(ErrorKind::ConnectionRefused) => fs::remove_file(path).map_err(|e| e.to_string()),
            Ok(_) | Err(_) => Err(io::Error::from(ErrorKind::AddrInUse).to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (socket, file) = bind(&path, &Access::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o660);
        assert!(bind(&path, &Access::default()).unwrap_err().to_lowercase().contains("in use"));
        assert!(UnixStream::connect(&path).is_ok());
        let mut file = file.unwrap();
        file.keep();
        drop((socket, file));
        assert!(path.exists(), "as a process that was killed leaves it");
        let access = Access { mode: 0o600, owner: Some(rustix::process::getuid().as_raw().to_string()), group: None };
        let (_socket, file) = bind(&path, &access).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Another's file in its place stays.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert!(bind(&path, &Access::default()).unwrap_err().contains("no socket"));
        let nobody = Access { owner: Some("nobody-of-this-name".to_owned()), ..Access::default() };
        assert!(bind(&dir.path().join("t"), &nobody).unwrap_err().contains("nobody-of-this-name"));
        assert!(!dir.path().join("t").exists(), "what failed leaves nothing");
    }
}
