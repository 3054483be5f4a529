//! A real Redis on a free port, which stays the same when it ends and starts again. It ends with the test.

use std::process::{Child, Command, Stdio};

use super::{eventually, free_port};

pub struct Redis {
    child: Child,
    pub port: u16,
    args: Vec<String>,
    folder: tempfile::TempDir,
}

impl Redis {
    /// With options as `redis-server` takes them.
    pub fn start(args: &[&str]) -> Redis {
        Redis::start_on(free_port(), args)
    }

    pub fn start_on(port: u16, args: &[&str]) -> Redis {
        Redis::start_in(tempfile::tempdir().unwrap(), port, args)
    }

    /// A Sentinel with this configuration.
    pub fn sentinel(config: &str) -> Redis {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sentinel.conf"), config).unwrap();
        Redis::start_in(folder, free_port(), &["--sentinel"])
    }

    fn start_in(folder: tempfile::TempDir, port: u16, args: &[&str]) -> Redis {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mut redis = Redis { child: run(port, &args, folder.path()), port, args, folder };
        redis.answers();
        redis
    }

    /// Until it answers; a Sentinel and a node of a cluster do, too.
    fn answers(&mut self) {
        eventually("the store answers", || self.cli(&["PING"]).contains("PONG").then_some(()));
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What `redis-cli` says.
    #[track_caller]
    pub fn cli(&self, args: &[&str]) -> String {
        let port = self.port.to_string();
        let tls = self.args.iter().position(|arg| arg == "--tls-ca-cert-file").map(|at| self.args[at + 1].clone());
        let secure: Vec<&str> = tls.iter().flat_map(|ca| ["--tls", "--cacert", ca]).collect();
        let told = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(secure).args(args).output();
        let told = told.expect("`scripts/setup.sh test` installs redis-cli with redis-server");
        String::from_utf8_lossy(&told.stdout).trim().to_owned()
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// On the same port, with nothing in it.
    pub fn again(&mut self) {
        self.kill();
        self.child = run(self.port, &self.args, self.folder.path());
        self.answers();
    }
}

fn run(port: u16, args: &[String], folder: &std::path::Path) -> Child {
    let mut command = Command::new("redis-server");
    let sentinel = args.iter().position(|arg| arg == "--sentinel");
    match sentinel {
        // Its file stands first.
        Some(_) => command.arg(folder.join("sentinel.conf")).arg("--sentinel"),
        None => command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]),
    };
    let port = port.to_string();
    match args.iter().any(|arg| arg == "--tls-ca-cert-file") {
        true => command.args(["--port", "0", "--tls-port", &port]),
        false => command.args(["--port", &port]),
    };
    command.args(args.iter().filter(|arg| *arg != "--sentinel").cloned());
    command.current_dir(folder).stdout(Stdio::null()).spawn().expect("`scripts/setup.sh test` installs redis-server")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
