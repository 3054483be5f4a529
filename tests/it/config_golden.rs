//! Configurations that are refused, read, checked and compiled, each with exactly what is said about it: `tests/config/bad/*.yaml` hold the input, a line
//! `---- expected`, and the output. `UPDATE=1 cargo nextest run config_golden` writes the outputs anew; read what changed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sluice::config::diagnostic::{CODES, Diagnostic, render};
use sluice::config::{compile, load};
use sluice::state::State;

use crate::harness::left_out;

const MARK: &str = "---- expected\n";

/// Codes that no golden file can show, because they are about files rather than about text, or would need a very long one.
const NOT_SHOWN: &[&str] = &["conditions-too-many", "defined-twice", "not-read", "not-utf8", "too-large", "unreadable"];

fn env(name: &str) -> Option<String> {
    match name {
        "SECRET" => Some("hunter2-hunter2-hunter2-hunter2-hunter2".to_owned()),
        "EMPTY" => Some(String::new()),
        "WORD" => Some("hunter2".to_owned()),
        _ => None,
    }
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

/// Everything that is wrong with what is at `path`.
fn judge(path: &Path, state: &State) -> Vec<Diagnostic> {
    compile::load(path, &env, state, None).err().unwrap_or_default()
}

/// A folder in which `bad.yaml` can be written, with the files that the inputs refer to; and what outlives a configuration, of which most is
/// memory that takes longer to get than a configuration to read.
struct Desk(tempfile::TempDir, State);

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/keys/jwks.json"), keys.join("jwks.json")).unwrap();
        for name in ["one", "two"] {
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            std::fs::write(keys.join(format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(keys.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        }
        Desk(folder, State::default())
    }

    /// What is said about a text, with the file shown as `bad.yaml`.
    fn told(&self, text: &str) -> (usize, String) {
        let path = self.0.path().join("bad.yaml");
        let (text, _) = left_out::from(text.to_owned());
        std::fs::write(&path, text).unwrap();
        let errors = judge(&path, &self.1);
        let folder = format!("{}/", self.0.path().display());
        (errors.len(), render(&errors, false).replace(&folder, ""))
    }
}

#[test]
fn every_bad_configuration_is_refused_in_exactly_these_words() {
    let update = std::env::var_os("UPDATE").is_some();
    let files = files("bad");
    assert!(files.len() >= 60, "{} files", files.len());
    let mut wrong = Vec::new();
    let desk = Desk::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (input, expected) = text.split_once(MARK).unwrap_or((&text, ""));
        let (errors, told) = desk.told(input);
        assert!(!told.contains("hunter2"), "{}: a secret is shown:\n{told}", file.display());
        assert!(errors > 0, "{} is accepted", file.display());
        if told != expected {
            wrong.push(format!("=== {}\n--- expected\n{expected}--- told\n{told}", file.display()));
            if update {
                std::fs::write(&file, format!("{input}{MARK}{told}")).unwrap();
            }
        }
    }
    assert!(update || wrong.is_empty(), "{}\n`UPDATE=1 cargo nextest run config_golden` writes these outputs anew", wrong.join("\n"));
}

#[test]
fn every_part_keeps_to_the_standards_or_is_refused() {
    // Each standard makes the difference between a configuration that is accepted and one that is refused.
    let parts = "listeners: { a: { address: 127.0.0.1:8443, tls: { certificates: { a: { chain: keys/one.pem, key: keys/one.key } } } } }
authenticators:
  idp: { jwt: { issuer: i, audiences: [a], algorithms: [ES256], keys: { file: keys/jwks.json } } }
  keys: { api_key: { header: x-a } }
routes:
  r: { match: { path: /api/x }, auth: [idp, keys], respond: { status: 204 } }
  open: { match: { path: /open }, auth: public, respond: { status: 204 } }
";
    let desk = Desk::new();
    assert_eq!(desk.told(parts).0, 0);
    for (kept, broken) in [
        ("tls_minimum: \"1.2\"", "tls_minimum: \"1.3\""),
        ("token_algorithms: [ES256, RS256]", "token_algorithms: [RS256]"),
        ("token_algorithms: [ES256]", "token_lifetime: 1h"),
        ("token_algorithms: [ES256]", "key_format: { prefix: sk_ }"),
        ("token_algorithms: [ES256]", "key_format: { length: 40 }"),
        ("auth_required: [/api/**]", "auth_required: [/open]"),
    ] {
        assert_eq!(desk.told(&format!("{parts}standards: {{ {kept} }}\n")).0, 0, "{kept}");
        let (errors, told) = desk.told(&format!("{parts}standards: {{ {broken} }}\n"));
        assert!(errors == 1 && told.contains("error[standard]"), "{broken}: {told}");
    }
}

#[test]
fn every_kind_of_mistake_is_shown_by_a_bad_configuration() {
    let all: String = files("bad").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let expected: Vec<&str> = all.split(MARK).collect();
    let shown =
        |code: &str| expected.iter().any(|text| text.contains(&format!(": error[{code}]: ")) || text.contains(&format!("error[{code}]: ")));
    let missing: BTreeSet<&str> = CODES
        .iter()
        .map(|(code, _)| *code)
        .filter(|code| !shown(code) && !NOT_SHOWN.contains(code) && !compile::TOLD_BEFORE.contains(code))
        .collect();
    assert!(missing.is_empty(), "codes that no file in tests/config/bad shows: {missing:?}");
    let needless: Vec<&&str> = NOT_SHOWN.iter().filter(|code| shown(code)).collect();
    assert!(needless.is_empty(), "codes that are shown after all: {needless:?}");
}

#[test]
fn every_good_configuration_is_accepted() {
    let mut all = files("ok");
    all.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml"));
    for file in all {
        let errors = judge(&file, &State::default());
        assert!(errors.is_empty(), "{}", render(&errors, false));
    }
}

#[test]
fn the_reference_configuration_holds_every_section() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml")).unwrap();
    for section in load::SECTIONS {
        assert!(text.lines().any(|line| line.starts_with(&format!("{section}:"))), "{section}");
    }
}

#[test]
fn no_text_makes_the_loader_panic_or_show_a_secret() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.yaml");
    let texts: Vec<String> = files("bad").into_iter().chain([reference]).map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let desk = Desk::new();
    let judged = |text: &str| desk.told(text).1;
    // A fixed sequence of "random" numbers: the same texts every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    for text in texts {
        let input: Vec<char> = text.split(MARK).next().unwrap().chars().collect();
        for _ in 0..6 {
            let cut: String = input[..random(input.len())].iter().collect();
            judged(&cut);
            let mut changed = input.clone();
            let at = random(changed.len());
            changed[at] =
                *[':', '{', '}', '[', ']', '"', '\'', '\n', '\t', '&', '*', '-', '#', '|', '!', 'é', '\u{0}', '$'].get(random(18)).unwrap();
            let told = judged(&changed.iter().collect::<String>());
            // A `#` or a line break may cut the secret's own text in two; what is whole is not shown.
            assert!(!told.contains("hunter2-hunter2"), "{told}");
        }
    }
}
