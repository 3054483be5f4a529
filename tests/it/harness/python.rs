//! Peers that others wrote, in Python: scripts in `tests/it/peers/`, run by an interpreter that has their libraries.
//!
//! `scripts/setup.sh test` installs it into `target/tools`; `SLUICE_PYTHON` names another interpreter that has them.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{eventually, ports};

/// A server in Python. It prints its port when it listens, and ends when this is dropped.
pub struct PythonServer {
    child: Child,
    address: SocketAddr,
}

/// A script that runs until it has something to say.
pub struct PythonClient {
    child: Option<Child>,
    name: String,
}

pub fn interpreter() -> PathBuf {
    match std::env::var_os("SLUICE_PYTHON") {
        Some(python) => python.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/python"),
    }
}

fn command(script: &str, args: &[&str]) -> Command {
    let mut command = Command::new(interpreter());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers").join(script);
    command.arg(path).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    // Nothing is asked for but 127.0.0.1.
    for proxy in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    command
}

fn spawn(script: &str, args: &[&str]) -> Child {
    command(script, args).spawn().unwrap_or_else(|e| panic!("{}: {e}; `scripts/setup.sh test` installs it", interpreter().display()))
}

// === impl PythonServer ===

impl PythonServer {
    #[track_caller]
    pub fn start(script: &str, args: &[&str]) -> PythonServer {
        let mut child = spawn(script, args);
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        let _ = BufReader::new(stdout).read_line(&mut line);
        let port: u16 = line.trim().parse().unwrap_or_else(|_| panic!("{script} printed no port: {line:?}"));
        PythonServer { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for PythonServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        ports::keep(self.address);
    }
}

// === impl PythonClient ===

impl PythonClient {
    #[track_caller]
    pub fn start(script: &str, args: &[&str]) -> PythonClient {
        PythonClient { child: Some(spawn(script, args)), name: format!("{script} {}", args.join(" ")) }
    }

    /// Says that there is nothing more to do; what it prints then.
    #[track_caller]
    pub fn said_after_input(mut self) -> Value {
        if let Some(child) = &mut self.child {
            drop(child.stdin.take());
        }
        self.said()
    }

    /// What it prints at its end.
    #[track_caller]
    pub fn said(mut self) -> Value {
        let mut child = self.child.take().expect("it is asked once");
        let mut stdout = child.stdout.take().expect("stdout is piped");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        self.child = Some(child);
        let child = self.child.as_mut().expect("it was put back");
        let status = eventually(&format!("the end of {}", self.name), || child.try_wait().expect("the child is ours"));
        let text = reader.join().expect("the reader ends with the child");
        assert!(status.success(), "{}: {status}: {text}", self.name);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{} printed no JSON: {e}: {text:?}", self.name))
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs a script to its end.
#[track_caller]
pub fn python(script: &str, args: &[&str]) -> Value {
    PythonClient::start(script, args).said()
}
