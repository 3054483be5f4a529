//! An HTTP/2 upstream that others wrote: Python's h2, told by each request's path what to do. See `peers/h2_upstream.py`.
//!
//! `scripts/setup.sh test` installs it into `target/tools`; `SLUICE_PYTHON` names another interpreter that has it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use super::python::interpreter;
use super::{eventually, ports};

/// A running upstream; dropping it ends it.
pub struct H2Upstream {
    child: Child,
    /// `host:port`, or the path of the socket.
    pub address: String,
    said: Arc<Mutex<Vec<Value>>>,
}

// === impl H2Upstream ===

impl H2Upstream {
    /// With arguments such as `["--streams", "2"]`.
    #[track_caller]
    pub fn start(args: &[&str]) -> H2Upstream {
        let python = interpreter();
        let mut child = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/h2_upstream.py"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; `scripts/setup.sh test` installs it", python.display()));
        let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let first = lines.next().and_then(Result::ok).expect("the upstream says where it listens; `scripts/setup.sh test` installs h2");
        let first: Value = serde_json::from_str(&first).expect("it speaks JSON");
        let address = first["address"].as_str().expect("it says its address").to_owned();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = said.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line).expect("it speaks JSON");
                if line["event"] == "error" {
                    eprintln!("the upstream: {line}");
                }
                heard.lock().expect("nobody panics with it").push(line);
            }
        });
        H2Upstream { child, address, said }
    }

    /// Everything of one kind that was told so far: `connection`, `head`, `request`, `reset`, `closed`. It tells things in their order, but a
    /// moment after they happen: what is expected is waited for.
    pub fn events(&self, kind: &str) -> Vec<Value> {
        self.said.lock().expect("nobody panics with it").iter().filter(|said| said["event"] == kind).cloned().collect()
    }

    /// Requests with this path, once there are so many.
    #[track_caller]
    pub fn requests(&self, path: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} requests of {path}"), || {
            let all: Vec<_> = self.events("request").into_iter().filter(|request| request["path"] == path).collect();
            (all.len() >= count).then_some(all)
        })
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.address.parse().is_ok_and(ports::keep);
    }
}

/// The value of a field of a request.
pub fn field<'a>(request: &'a Value, name: &str) -> Vec<&'a str> {
    let fields = request["headers"].as_array().expect("a request has fields");
    fields.iter().filter(|field| field[0] == name).filter_map(|field| field[1].as_str()).collect()
}
