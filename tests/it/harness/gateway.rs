//! The real binary on a configuration that a test writes, with free ports, its log lines and its signals.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Client, eventually, free_port, left_out, patience};

/// A configuration that is not running yet.
///
/// In the text `{port}` stands for a free port (that of `address()`), `{port:NAME}` for another (that of `address_of(NAME)`), `{admin}` for that
/// of the admin listener, `{dir}` for the folder of the configuration, and `{KEY}` for each `var(KEY, ..)`. Other braces stay.
/// Where there is no section `admin`, one is added.
#[derive(Clone, Debug, Default)]
pub struct Config {
    text: String,
    vars: Vec<(String, String)>,
    env: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    args: Vec<String>,
    is_folder: bool,
    has_own_program: bool,
    descriptors: Option<u32>,
    passed: Option<Vec<String>>,
}

/// A gateway that is ready. Dropping it kills it, and whatever took over from it.
pub struct Gateway {
    child: Child,
    dir: tempfile::TempDir,
    config: Config,
    ports: BTreeMap<String, u16>,
    out: Arc<Lines>,
    err: Arc<Lines>,
}

/// A gateway that ended instead of getting ready.
#[derive(Clone, Debug)]
pub struct Failure {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

pub const MAIN: &str = "";
const ADMIN: &str = "/admin";

// === impl Config ===

impl Config {
    /// What `{KEY}` stands for.
    #[must_use]
    pub fn var(mut self, key: &str, value: impl ToString) -> Config {
        self.vars.push((key.to_owned(), value.to_string()));
        self
    }

    /// An environment variable of the process.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Config {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A file beside the configuration, such as `keys/jwks.json`.
    #[must_use]
    pub fn file(mut self, path: &str, content: impl Into<Vec<u8>>) -> Config {
        self.files.push((path.to_owned(), content.into()));
        self
    }

    /// Runs the whole folder as one configuration; this text and every `.yaml` beside it.
    #[must_use]
    pub fn folder(mut self) -> Config {
        self.is_folder = true;
        self
    }

    /// Another argument of `sluice run`.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Config {
        self.args.push(arg.to_owned());
        self
    }

    /// Runs a copy of the binary in the configuration's folder, which a test may replace: `Gateway::program`.
    #[must_use]
    pub fn own_program(mut self) -> Config {
        self.has_own_program = true;
        self
    }

    /// Lets the process open only so many files.
    #[must_use]
    pub fn descriptors(mut self, most: u32) -> Config {
        self.descriptors = Some(most);
        self
    }

    /// Has `systemd-socket-activate` open the ports of these names (`MAIN` is that of `{port}`), and pass them.
    #[must_use]
    pub fn passed(mut self, ports: &[&str]) -> Config {
        self.passed = Some(ports.iter().map(|port| (*port).to_owned()).collect());
        self
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        match self.try_start() {
            Ok(gateway) => gateway,
            Err(failure) => panic!("the gateway did not start: {failure:#?}"),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    #[track_caller]
    pub fn try_start(self) -> Result<Gateway, Failure> {
        let mut tries = 5;
        loop {
            tries -= 1;
            match Gateway::launch(self.clone()) {
                // Somebody else took the port in the meantime.
                Err(failure) if tries > 0 && failure.stderr.to_lowercase().contains("address already in use") => {}
                other => return other,
            }
        }
    }

    fn render(&self, dir: &Path, ports: &mut BTreeMap<String, u16>) -> String {
        let mut text = self.text.clone();
        if !text.lines().any(|line| line.starts_with("admin:")) {
            text.push_str("\nadmin: { address: \"127.0.0.1:{admin}\" }\n");
        }
        for (key, value) in &self.vars {
            text = text.replace(&format!("{{{key}}}"), value);
        }
        text = text.replace("{dir}", &dir.display().to_string());
        text = text.replace("{admin}", &port(ports, ADMIN).to_string());
        text = text.replace("{port}", &port(ports, MAIN).to_string());
        while let Some(begin) = text.find("{port:") {
            let end = begin + text[begin..].find('}').expect("`{port:NAME}` has its brace");
            let number = port(ports, &text[begin + 6..end]);
            text.replace_range(begin..=end, &number.to_string());
        }
        if !left_out::is_on() {
            return text;
        }
        let (without, was_there) = left_out::from(text.clone());
        if was_there && let (Ok(()), Err(why)) = (self.check(dir, &text), self.check(dir, &without)) {
            eprintln!("\n{}{}", left_out::REFUSED, why.lines().next().unwrap_or_default());
        }
        without
    }

    /// What `sluice check` says about a text in this folder.
    fn check(&self, dir: &Path, text: &str) -> Result<(), String> {
        let file = dir.join(".left-out.yaml");
        std::fs::write(&file, text).expect("the file can be written");
        let envs = self.env.iter().map(|(name, value)| (name, value));
        let told =
            Command::new(env!("CARGO_BIN_EXE_sluice")).arg("check").arg(&file).envs(envs).output().expect("the binary can be started");
        let _ = std::fs::remove_file(&file);
        if told.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&told.stderr).into_owned()) }
    }
}

/// The port of a name; the same every time.
fn port(ports: &mut BTreeMap<String, u16>, name: &str) -> u16 {
    *ports.entry(name.to_owned()).or_insert_with(free_port)
}

// === impl Gateway ===

impl Gateway {
    pub fn config(text: &str) -> Config {
        Config { text: text.to_owned(), ..Config::default() }
    }

    /// Starts a configuration without variables or files.
    #[track_caller]
    pub fn start(text: &str) -> Gateway {
        Gateway::config(text).start()
    }

    #[track_caller]
    fn launch(config: Config) -> Result<Gateway, Failure> {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut ports = BTreeMap::new();
        for (path, content) in &config.files {
            write(&dir.path().join(path), content);
        }
        let file = dir.path().join("sluice.yaml");
        write(&file, config.render(dir.path(), &mut ports).as_bytes());
        let program = match config.has_own_program {
            true => put_program(&dir.path().join("program")),
            false => PathBuf::from(env!("CARGO_BIN_EXE_sluice")),
        };
        let mut command = match (&config.passed, config.descriptors) {
            (Some(names), _) => {
                let mut command = Command::new("systemd-socket-activate");
                for name in names {
                    command.arg("-l").arg(format!("127.0.0.1:{}", port(&mut ports, name)));
                }
                command.arg(program);
                command
            }
            (None, None) => Command::new(program),
            (None, Some(most)) => {
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={most}:{most}")).arg(program);
                command
            }
        };
        let mut child = command
            .arg("run")
            .arg(if config.is_folder { dir.path() } else { &file })
            .args(&config.args)
            .envs(config.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let out = Lines::collect(child.stdout.take().expect("stdout is piped"));
        let err = Lines::collect(child.stderr.take().expect("stderr is piped"));
        let mut gateway = Gateway { child, dir, config, ports, out, err };
        let begin = Instant::now();
        loop {
            if let Some(status) = gateway.child.try_wait().expect("the child is ours") {
                gateway.out.wait_for_end();
                gateway.err.wait_for_end();
                return Err(Failure { code: status.code(), stdout: gateway.out.text(), stderr: gateway.err.text() });
            }
            if gateway.config.passed.is_some() {
                // Whoever comes first starts it.
                let _ = Client::try_connect(gateway.address());
            }
            if gateway.is_ready() {
                return Ok(gateway);
            }
            assert!(begin.elapsed() < patience(), "the gateway is not ready; it said: {}", gateway.stderr());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether `/readyz` answers 200.
    pub fn is_ready(&self) -> bool {
        Client::try_connect(self.admin())
            .is_ok_and(|mut client| client.try_request("GET", "/readyz", &[("connection", "close")], b"").is_ok_and(|r| r.status == 200))
    }

    /// Where `{port}` is.
    pub fn address(&self) -> SocketAddr {
        self.address_of(MAIN)
    }

    /// Where `{port:NAME}` is.
    #[track_caller]
    pub fn address_of(&self, name: &str) -> SocketAddr {
        let port = self.ports.get(name).unwrap_or_else(|| panic!("the configuration has no `{{port:{name}}}`"));
        SocketAddr::from(([127, 0, 0, 1], *port))
    }

    pub fn admin(&self) -> SocketAddr {
        self.address_of(ADMIN)
    }

    /// A connection to `{port}`.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// A GET over a connection of its own.
    #[track_caller]
    pub fn get(&self, target: &str, headers: &[(&str, &str)]) -> super::Response {
        super::get(self.address(), target, headers)
    }

    /// The text of `/metrics`, as soon as nothing is in flight: what a request counts is counted just after its client has the answer.
    #[track_caller]
    pub fn metrics(&self) -> String {
        eventually("nothing in flight, or else `metrics_now`", || {
            let text = self.metrics_now();
            let is_at_rest = text.lines().all(|line| !line.starts_with("sluice_requests_in_flight{") || line.ends_with(" 0"));
            is_at_rest.then_some(text)
        })
    }

    /// The text of `/metrics` while requests are held, or to be waited for.
    #[track_caller]
    pub fn metrics_now(&self) -> String {
        super::get(self.admin(), "/metrics", &[]).text().to_owned()
    }

    /// The value of one series as `/metrics` writes it, such as `name{a="b"}`; 0 where it is not there.
    #[track_caller]
    pub fn metric(&self, series: &str) -> f64 {
        value_in(&self.metrics(), series)
    }

    /// The same while requests are held, or to be waited for.
    #[track_caller]
    pub fn metric_now(&self, series: &str) -> f64 {
        value_in(&self.metrics_now(), series)
    }

    /// `/status`, as soon as no target has a request.
    #[track_caller]
    pub fn status(&self) -> Value {
        const OF_TARGET: &str = "\"requests_in_flight\":";
        eventually("no target with a request, or else `status_now`", || {
            let text = super::get(self.admin(), "/status", &[]).text().to_owned();
            let is_at_rest = text.match_indices(OF_TARGET).all(|(at, name)| text[at + name.len()..].trim_start().starts_with('0'));
            is_at_rest.then(|| serde_json::from_str(&text).expect("a status is JSON"))
        })
    }

    /// `/status` while requests are held, or to be waited for.
    #[track_caller]
    pub fn status_now(&self) -> Value {
        super::get(self.admin(), "/status", &[]).json()
    }

    /// The process that was started first; another may serve since an upgrade.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process that serves, by its own word.
    #[track_caller]
    pub fn serving_pid(&self) -> u32 {
        u32::try_from(self.status_now()["pid"].as_u64().expect("a status has a process id")).expect("a process id fits")
    }

    /// Puts the good binary where the next upgrade finds it.
    pub fn put_good_program(&self) {
        put_program(&self.dir.path().join("program"));
    }

    /// Puts a shell script where the next upgrade finds a binary.
    pub fn put_script_as_program(&self, script: &str) {
        let (new, place) = (self.dir.path().join("program.new"), self.dir.path().join("program"));
        // Never written through: it may be a link to the binary under test.
        let _ = std::fs::remove_file(&new);
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n")).expect("the script can be written");
        std::fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("it can be made executable");
        std::fs::rename(&new, place).expect("it can be put in place");
    }

    /// Waits for the end of the process that was started first, though others may hold its output open.
    #[track_caller]
    pub fn wait_for_first_process(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the end of the first process", || child.try_wait().expect("the child is ours"))
    }

    /// Every process that runs this configuration, the one that was started first included. Drops those that have ended.
    pub fn processes(&self) -> Vec<u32> {
        let folder = self.dir.path().as_os_str().as_encoded_bytes();
        let Ok(all) = std::fs::read_dir("/proc") else { return Vec::new() };
        let numbers = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let is_ours = |process: &u32| {
            // Empty for those that have ended and that nobody has waited for.
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.windows(folder.len()).any(|part| part == folder) && line.windows(4).any(|part| part == b"run\0")
        };
        numbers.filter(is_ours).collect()
    }

    /// The folder of the configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration's file.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("sluice.yaml")
    }

    /// Writes another configuration, with the same ports and variables, without telling the gateway.
    pub fn rewrite(&mut self, text: &str) {
        text.clone_into(&mut self.config.text);
        let text = self.config.render(self.dir.path(), &mut self.ports);
        write(&self.file(), text.as_bytes());
    }

    /// Writes another configuration and sends SIGHUP. Does not wait for the verdict.
    pub fn reload(&mut self, text: &str) {
        self.rewrite(text);
        self.signal(Signal::HUP);
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has a process id");
        kill_process(pid, signal).expect("the gateway still runs");
    }

    /// Runs another subcommand of the binary in the configuration's folder.
    pub fn sluice(&self, args: &[&str]) -> std::process::Output {
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(args).current_dir(self.dir.path()).output().expect("the binary can be started")
    }

    /// SIGTERM; waits for the end.
    #[track_caller]
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait_for_exit()
    }

    #[track_caller]
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = eventually("the end of the gateway", || child.try_wait().expect("the child is ours"));
        self.out.wait_for_end();
        self.err.wait_for_end();
        status
    }

    /// Whether the process has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_none())
    }

    /// The access-log lines so far; fails where a line of stdout is not JSON.
    #[track_caller]
    pub fn log(&self) -> Vec<Value> {
        self.out.all().iter().map(|line| parse(line)).collect()
    }

    /// Waits for the first access-log line of which this is true.
    #[track_caller]
    pub fn log_line_where(&self, is_it: impl Fn(&Value) -> bool) -> Value {
        parse(&self.out.wait_where(|line| is_it(&parse(line))))
    }

    /// Waits until there are so many access-log lines and returns them.
    #[track_caller]
    pub fn log_lines(&self, count: usize) -> Vec<Value> {
        eventually("access-log lines", || Some(self.log()).filter(|lines| lines.len() >= count))
    }

    /// What was written to stderr so far.
    pub fn stderr(&self) -> String {
        self.err.text()
    }

    /// Waits for a line of stderr with this text in it.
    #[track_caller]
    pub fn stderr_line(&self, text: &str) -> String {
        self.err.wait_where(|line| line.contains(text))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if self.config.has_own_program {
            for process in self.processes() {
                let _ = i32::try_from(process).ok().and_then(Pid::from_raw).map(|process| kill_process(process, Signal::KILL));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the gateway said:\n{}{}", self.err.text(), self.out.text());
        }
    }
}

/// A link to the binary under test, or a copy, put in place at once.
fn put_program(place: &Path) -> PathBuf {
    let new = place.with_extension("new");
    let _ = std::fs::remove_file(&new);
    if std::fs::hard_link(env!("CARGO_BIN_EXE_sluice"), &new).is_err() {
        std::fs::copy(env!("CARGO_BIN_EXE_sluice"), &new).expect("the binary can be copied");
    }
    std::fs::rename(&new, place).expect("the binary can be put in place");
    // Two links to one file are not exchanged.
    let _ = std::fs::remove_file(&new);
    place.to_owned()
}

fn value_in(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.trim().parse().expect("a series has a number"))
}

fn parse(line: &str) -> Value {
    match serde_json::from_str(line) {
        Ok(value) => value,
        Err(error) => panic!("not JSON ({error}): {line}"),
    }
}

fn write(path: &Path, content: &[u8]) {
    let folder = path.parent().expect("a file is in a folder");
    std::fs::create_dir_all(folder).expect("the folder can be made");
    // Whoever watches the file must not see half of it.
    let half = folder.join(".half");
    std::fs::write(&half, content).expect("the file can be written");
    std::fs::rename(&half, path).expect("the file can be put in place");
}

// === impl Lines ===

impl Lines {
    fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let into = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                into.lock().0.push(String::from_utf8_lossy(&line).into_owned());
                into.more.notify_all();
            }
            into.lock().1 = true;
            into.more.notify_all();
        });
        lines
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Vec<String>, bool)> {
        self.lines.lock().expect("no thread panics while it holds the lock")
    }

    fn all(&self) -> Vec<String> {
        self.lock().0.clone()
    }

    fn text(&self) -> String {
        self.lock().0.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn wait_for_end(&self) {
        drop(self.more.wait_timeout_while(self.lock(), patience(), |(_, is_over)| !*is_over));
    }

    #[track_caller]
    fn wait_where(&self, is_it: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        let mut seen = 0;
        let mut guard = self.lock();
        loop {
            // Judged without the lock: a panic in a test's closure must not hide the lines.
            let fresh: Vec<String> = guard.0[seen..].to_vec();
            seen = guard.0.len();
            drop(guard);
            if let Some(line) = fresh.into_iter().find(|line| is_it(line)) {
                return line;
            }
            guard = self.lock();
            if guard.0.len() == seen {
                assert!(!guard.1 && begin.elapsed() < patience(), "waited in vain for a line; there are:\n{}", guard.0.join("\n"));
                guard = self.more.wait_timeout(guard, Duration::from_millis(100)).expect("no thread panics while it holds the lock").0;
            }
        }
    }
}
