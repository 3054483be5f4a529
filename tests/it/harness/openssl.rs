//! `openssl s_client`, run in the folder of a gateway's configuration, whose authority is `ca.pem` there.

use std::io::Write;
use std::process::{Command, Stdio};

use super::Gateway;

/// All that it says of one connection to `name`, on which it asks for `path`.
#[track_caller]
pub fn s_client(gateway: &Gateway, name: &str, path: &str, more: &[&str]) -> String {
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &gateway.address().to_string(), "-servername", name, "-CAfile", "ca.pem", "-ign_eof"])
        .args(more)
        .current_dir(gateway.dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            // A request that ends the connection, so that the ticket that comes behind the handshake has been read.
            let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
            let _ = child.stdin.take().expect("it is piped").write_all(request.as_bytes());
            child.wait_with_output()
        })
        .expect("openssl can be run");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}
