//! Has what an upstream recorded read again by a parser that is not ours: Python's h11, which refuses what is not HTTP/1.1.
//!
//! `scripts/setup.sh test` installs it into `target/tools`; `SLUICE_PYTHON` names another interpreter that has it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde::Deserialize;

/// A request as h11 reads it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Parsed {
    pub method: String,
    pub target: String,
    pub version: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// In hexadecimal digits.
    pub body: String,
    /// Whether its end was there.
    pub complete: bool,
    #[serde(default)]
    pub trailers: Vec<(String, String)>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Error { error: String },
    Request(Parsed),
}

/// What h11 makes of one connection: its requests, and why it read no further, if it did not.
pub type Connection = (Vec<Parsed>, Option<String>);

/// Reads connections, one process for all of them.
#[track_caller]
pub fn parse(connections: &[Vec<u8>]) -> Vec<Connection> {
    let python = super::python::interpreter();
    let hex: Vec<String> = connections.iter().map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
    let mut child = Command::new(&python)
        .arg("-c")
        .arg(include_str!("h11.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}; `scripts/setup.sh test` installs it", python.display()));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = serde_json::to_vec(&hex).expect("texts are JSON");
    // Its answer begins only when it has read everything.
    let _ = stdin.write_all(&input);
    drop(stdin);
    let output = child.wait_with_output().expect("the interpreter ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} with h11 failed; `scripts/setup.sh test` installs it: {said}", python.display());
    let read: Vec<Vec<Entry>> = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    read.into_iter()
        .map(|entries| {
            let (mut requests, mut wrong) = (Vec::new(), None);
            for entry in entries {
                match entry {
                    Entry::Request(request) => requests.push(request),
                    Entry::Error { error } => wrong = Some(error),
                }
            }
            (requests, wrong)
        })
        .collect()
}

// === impl Parsed ===

impl Parsed {
    /// The fields as their bytes are in UTF-8; JSON has them one character a byte.
    pub fn utf8_headers(&self) -> Vec<(String, String)> {
        let utf8 = |text: &str| String::from_utf8_lossy(&text.chars().map(|c| c as u8).collect::<Vec<_>>()).into_owned();
        self.headers.iter().map(|(name, value)| (name.clone(), utf8(value))).collect()
    }

    pub fn content(&self) -> Vec<u8> {
        let digits = self.body.as_bytes().chunks(2);
        digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("digits are ASCII"), 16).expect("digits")).collect()
    }
}
