//! HAProxy, from a package, as a load balancer that others wrote.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{eventually, nobody};

/// A running HAProxy that passes connections on. Dropping it ends it.
pub struct Haproxy {
    child: Child,
    addresses: Vec<SocketAddr>,
    _dir: tempfile::TempDir,
}

/// A certificate for `shop.example`, signed by itself, with its key, in one file.
fn certificate(dir: &Path) {
    let made = Command::new("openssl")
        .args(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=shop.example -keyout key -out cert"
                .split(' '),
        )
        .current_dir(dir)
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()), "openssl is installed: scripts/setup.sh test");
    let all = ["cert", "key"].map(|part| std::fs::read(dir.join(part)).expect("it was made")).concat();
    std::fs::write(dir.join("both.pem"), all).expect("a file can be written");
}

// === impl Haproxy ===

impl Haproxy {
    /// For each of `ways` a port; `bind` may say `ssl crt both.pem`, `server` is what stands behind the address of the server.
    #[track_caller]
    pub fn start(server: SocketAddr, ways: &[(&str, &str)]) -> Haproxy {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        certificate(dir.path());
        let mut text = "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n".to_owned();
        let mut addresses = Vec::new();
        for (index, (bind, options)) in ways.iter().enumerate() {
            let address = nobody();
            text.push_str(&format!("listen l{index}\n bind {address} {bind}\n server s {server} {options}\n"));
            addresses.push(address);
        }
        std::fs::write(dir.path().join("haproxy.cfg"), text).expect("a file can be written");
        let child = Command::new("haproxy")
            .args(["-db", "-f", "haproxy.cfg"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .spawn()
            .expect("haproxy is installed: scripts/setup.sh test");
        for address in &addresses {
            eventually("haproxy to listen", || TcpStream::connect(address).ok());
        }
        Haproxy { child, addresses, _dir: dir }
    }

    /// Where the way of this index begins.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.addresses[index]
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
