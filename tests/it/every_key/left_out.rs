//! Runs the test that proves a key with the key left out of all that it configures: it must fail then, and only then.
//!
//! Takes minutes, so that `cargo nextest run` leaves it out and `make keys` (a part of `make test`) runs it;
//! `SLUICE_TESTS_KEYS=listeners.` picks the keys that begin so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::left_out::{FOUND, INSTEAD, REFUSED, WITHOUT};

use super::keys;
use super::proof::Proof;

/// As many run at once. Most of them wait most of the time.
const WORKERS: usize = 3;

/// What takes longer than this is at an end; each wait of the harness is far shorter.
const LONGEST: Duration = Duration::from_secs(90);

/// What is run: a test, and the key that it goes without. No key: it must pass.
#[derive(Clone, Copy)]
struct Run {
    test: &'static str,
    key: Option<&'static str>,
    instead: Option<&'static str>,
    /// The code with which the configuration is refused then.
    refused: Option<&'static str>,
}

struct Ended {
    /// `None` where it had to be stopped.
    passed: Option<bool>,
    said: String,
    took: Duration,
}

/// The tests of this binary: how the whole name ends, and the whole.
fn tests() -> BTreeMap<String, String> {
    let listed = Command::new(std::env::current_exe().expect("it runs")).args(["--list", "--format", "terse"]).output().expect("it lists");
    let listed = String::from_utf8(listed.stdout).expect("names are text");
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(|name| (name.rsplit("::").next().unwrap_or(name).to_owned(), name.to_owned())).collect()
}

// === impl Run ===

impl Run {
    fn run(&self, whole: &str) -> Ended {
        let mut said = tempfile::tempfile().expect("a file can be made");
        let output = || Stdio::from(said.try_clone().expect("a file can be shared"));
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args([whole, "--exact", "--nocapture", "--test-threads=1"]).env(WITHOUT, self.key.unwrap_or_default());
        // As the processes that it starts and that outlive it, so that they end with it.
        command.process_group(0).stdin(Stdio::null()).stdout(output()).stderr(output());
        if let Some(instead) = self.instead {
            command.env(INSTEAD, instead);
        }
        let begin = Instant::now();
        let mut child = command.spawn().expect("it can be started");
        let passed = loop {
            match child.try_wait().expect("the child is ours") {
                Some(status) => break Some(status.success()),
                None if begin.elapsed() > LONGEST => break None,
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
        let mut text = Vec::new();
        said.rewind().and_then(|()| said.read_to_end(&mut text)).expect("what was written can be read");
        Ended { passed, said: String::from_utf8_lossy(&text).into_owned(), took: begin.elapsed() }
    }

    /// Why it proves nothing, where that is so.
    fn judge(&self, ended: &Ended) -> Result<(), String> {
        let found: usize = ended.said.lines().filter_map(|line| line.strip_prefix(FOUND)?.trim().parse::<usize>().ok()).sum();
        let test = self.test;
        let last = || {
            let lines: Vec<&str> = ended.said.lines().collect();
            lines[lines.len().saturating_sub(30)..].join("\n    ")
        };
        let Some(passed) = ended.passed else { return Err(format!("`{test}` does not end:\n    {}", last())) };
        if self.key.is_none() {
            return if passed { Ok(()) } else { Err(format!("`{test}` fails though nothing is left out:\n    {}", last())) };
        }
        let refused: Vec<&str> = ended.said.lines().filter_map(|line| line.strip_prefix(REFUSED)).collect();
        match (self.refused, refused.first()) {
            (Some(code), Some(why)) if why.contains(&format!("error[{code}]")) => {}
            (Some(code), why) => return Err(format!("`{test}` is not refused with `{code}`: {why:?}")),
            (None, Some(why)) => {
                return Err(format!(
                    "`{test}` fails because the configuration is refused; write `TestInstead` with one that is not: {why}"
                ));
            }
            // What the harness asks whether it is ready is what this key says.
            (None, None) if self.key == Some("admin.address") => {}
            (None, None) => {
                if let Some(broken) = ["the gateway did not start", "the gateway is not ready"].iter().find(|it| ended.said.contains(**it))
                {
                    return Err(format!("`{test}` fails because {broken}:\n    {}", last()));
                }
            }
        }
        match (found, passed) {
            (0, _) => Err(format!("`{test}` configures no such key through the harness, so that none can be left out")),
            (_, true) => Err(format!("`{test}` passes all the same")),
            (_, false) => Ok(()),
        }
    }
}

#[test]
fn every_test_that_proves_a_key_fails_without_it() {
    let tests = tests();
    let picked = std::env::var("SLUICE_TESTS_KEYS").unwrap_or_default();
    let mut runs = VecDeque::new();
    let mut with = BTreeSet::new();
    for (key, proof) in keys::rows().filter(|(key, _)| key.starts_with(&picked)) {
        let (test, instead, refused) = match proof {
            Proof::Test(test) => (*test, None, None),
            Proof::TestInstead(test, value) => (*test, Some(*value), None),
            Proof::TestRefused(test, value, code) => (*test, *value, Some(*code)),
            Proof::Differs(..) => continue,
        };
        if with.insert(test) {
            runs.push_back(Run { test, key: None, instead: None, refused: None });
        }
        runs.push_back(Run { test, key: Some(key), instead, refused });
    }
    let begin = Instant::now();
    let runs = Mutex::new(runs);
    let told = Mutex::new(Vec::new());
    let next = || runs.lock().expect("nobody panics with it").pop_front();
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(run) = next() {
                    let whole = tests.get(run.test).unwrap_or_else(|| panic!("there is no test `{}` in this binary", run.test));
                    let ended = run.run(whole);
                    println!("{:5.1} s {} without {}", ended.took.as_secs_f32(), run.test, run.key.unwrap_or("nothing"));
                    let wrong = run.judge(&ended).err().map(|why| format!("{}: {why}", run.key.unwrap_or("with all keys")));
                    told.lock().expect("nobody panics with it").extend(wrong);
                }
            });
        }
    });
    let wrong = told.into_inner().expect("nobody panics with it");
    println!("{:.0} s in all", begin.elapsed().as_secs_f32());
    assert!(wrong.is_empty(), "{} keys are not proved:\n\n{}", wrong.len(), wrong.join("\n\n"));
}
