//! A real OpenID provider: npm's certified `oidc-provider`, over TLS with a certificate of a root of the test's own.
//!
//! `scripts/setup.sh test` installs it into `target/tools/node`; a global installation of npm's will do too.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use base64::Engine;
use serde_json::Value;

/// It obeys until it is dropped.
pub struct Oidc {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    folder: tempfile::TempDir,
    port: u16,
}

fn entry() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node/node_modules");
    let global = Command::new("npm").args(["root", "-g"]).output().map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    let entries = [own, PathBuf::from(global.unwrap_or_default())].map(|folder| folder.join("oidc-provider/lib/index.js"));
    let found = entries.into_iter().find(|entry| entry.exists());
    found.expect("there is no oidc-provider: `scripts/setup.sh test` installs it")
}

fn openssl(folder: &Path, args: &str) {
    let done =
        Command::new("openssl").args(args.split(' ')).current_dir(folder).output().expect("`scripts/setup.sh test` installs openssl");
    assert!(done.status.success(), "openssl {args}: {}", String::from_utf8_lossy(&done.stderr));
}

// === impl Oidc ===

impl Oidc {
    pub fn start() -> Oidc {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let at = folder.path();
        std::fs::write(at.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .expect("it can be written");
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(
            at,
            &format!("req -x509 {new} -keyout ca.key -out ca.pem -days 2 -subj /CN=root -addext basicConstraints=critical,CA:TRUE"),
        );
        openssl(at, &format!("req {new} -keyout key.pem -out csr.pem -subj /CN=localhost"));
        openssl(at, "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem");
        let mut child = Command::new("node")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/oidc.mjs"))
            .arg(entry())
            .args(["cert.pem", "key.pem"])
            .current_dir(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`scripts/setup.sh test` installs node");
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut oidc = Oidc { child, stdin, stdout, folder, port: 0 };
        let said = oidc.hear();
        oidc.port = said.strip_prefix("ready ").and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("it said `{said}`"));
        oidc
    }

    pub fn issuer(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The root certificate, in PEM.
    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("ca.pem")).expect("it was made")
    }

    /// `rotate`, `retire`, `stop` or `start`; returns when it is done.
    #[track_caller]
    pub fn order(&mut self, what: &str) {
        writeln!(self.stdin, "{what}").expect("the provider listens");
        let said = self.hear();
        assert!(said.starts_with(what), "told to {what}, it said `{said}`");
    }

    /// A token of the client `app`, as the provider issues them: of `urn:jwt`, or an opaque one of another resource.
    #[track_caller]
    pub fn token(&self, resource: &str) -> String {
        let body = format!("grant_type=client_credentials&resource={resource}&scope=orders:read");
        let answer = self.post("/token", "app:app-secret", &body);
        answer["access_token"].as_str().unwrap_or_else(|| panic!("no token: {answer}")).to_owned()
    }

    /// Asks the provider itself, through curl.
    #[track_caller]
    pub fn post(&self, path: &str, client: &str, body: &str) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["--noproxy", "*", "-sS", "--cacert", "ca.pem", "-u", client, "-d", body]).arg(self.issuer() + path);
        let done = curl.current_dir(self.folder.path()).output().expect("`scripts/setup.sh test` installs curl");
        assert!(done.status.success(), "{path}: {}", String::from_utf8_lossy(&done.stderr));
        serde_json::from_slice(&done.stdout).unwrap_or(Value::Null)
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("its output can be read");
        line.trim_end().to_owned()
    }
}

impl Drop for Oidc {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The header of a token.
pub fn kid(token: &str) -> String {
    let head = token.split('.').next().unwrap_or_default();
    let head = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(head).expect("a token's header is base64url");
    serde_json::from_slice::<Value>(&head).expect("it is JSON")["kid"].as_str().expect("it names a key").to_owned()
}
