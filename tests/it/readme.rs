//! The README is run: its files are written, its console blocks executed, what they print compared. `UPDATE=1` writes it anew.
//!
//! A block that begins with `$` is a console block; each line that begins with `$ ` is a command, and what follows is its output.
//! Before a block, `<!-- file: NAME -->` says that it is a file. Ids, dates, times and lengths are not compared.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::harness::{Client, eventually, free_port};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// What the quickstart listens on, as it is written.
const PORTS: [&str; 4] = ["8080", "9901", "3001", "3002"];

/// A copy of the quickstart on ports of its own, running. Dropping it stops it.
struct Quickstart {
    script: Child,
    dir: tempfile::TempDir,
    /// The written port and the one that it has here.
    ports: Vec<(&'static str, String)>,
    /// What it printed before it was ready for the first request.
    banner: String,
}

impl Quickstart {
    fn start() -> Quickstart {
        let dir = tempfile::tempdir().unwrap();
        let ports = PORTS.map(|port| (port, free_port().to_string())).to_vec();
        for path in ["scripts/quickstart.sh", "conf/quickstart.yaml", "conf/keys/quickstart.json"] {
            let to = dir.path().join(path);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::write(&to, here(&ports, &std::fs::read_to_string(Path::new(ROOT).join(path)).unwrap())).unwrap();
        }
        let mut script = Command::new("bash")
            .arg(dir.path().join("scripts/quickstart.sh"))
            .arg(env!("CARGO_BIN_EXE_sluice"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(script.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        while banner.matches("\ncurl ").count() < 4 {
            let line = lines.next().expect("the quickstart ended before it had said its four lines").unwrap();
            banner.push_str(&(line + "\n"));
        }
        // Whoever writes to a pipe that nobody reads is stopped.
        std::thread::spawn(move || lines.for_each(drop));
        let banner = written(&ports, banner.trim_start());
        Quickstart { script, dir, ports, banner }
    }

    /// Runs a command of the README and returns all that it prints, with the ports as they are written.
    fn run(&self, command: &str, dir: &Path) -> String {
        let binaries = Path::new(env!("CARGO_BIN_EXE_sluice")).parent().unwrap();
        let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .arg("-c")
            .arg(format!("({}) 2>&1", here(&self.ports, command)))
            .current_dir(dir)
            .env("PATH", path)
            .output()
            .unwrap();
        written(&self.ports, &String::from_utf8(output.stdout).unwrap().replace('\r', ""))
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.script.id()).unwrap()).unwrap();
        let _ = kill_process(pid, signal);
    }

    fn is_open(&self, port: &str) -> bool {
        let (_, port) = self.ports.iter().find(|(written, _)| *written == port).unwrap();
        Client::try_connect(format!("127.0.0.1:{port}").parse().unwrap()).is_ok()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        let _ = self.script.wait();
    }
}

fn here(ports: &[(&str, String)], text: &str) -> String {
    ports.iter().fold(text.to_owned(), |text, (written, here)| {
        text.replace(&format!("127.0.0.1:{written}"), &format!("127.0.0.1:{here}"))
            .replace(&format!("await {written}/"), &format!("await {here}/"))
    })
}

fn written(ports: &[(&str, String)], text: &str) -> String {
    ports.iter().fold(text.to_owned(), |text, (written, here)| text.replace(&format!("127.0.0.1:{here}"), &format!("127.0.0.1:{written}")))
}

/// Without what differs from run to run.
fn normal(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let lower = line.to_ascii_lowercase();
        if ["date:", "content-length:"].iter().any(|name| lower.starts_with(name)) {
            out.push_str(line.split(':').next().unwrap());
        } else {
            // Another version of curl calls itself otherwise.
            let (before, after) = line.split_once("curl/").unwrap_or((line, ""));
            let line = before.to_owned() + after.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
            let mut word = String::new();
            for character in line.chars().chain([' ']) {
                if character.is_ascii_alphanumeric() {
                    word.push(character);
                    continue;
                }
                let is_id = matches!(word.len(), 16 | 32) && word.bytes().all(|byte| byte.is_ascii_hexdigit());
                out.push_str(if is_id { "ID" } else { &word });
                out.push(character);
                word.clear();
            }
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    out.trim_end().to_owned()
}

/// A fenced block: its lines in the file (without the fences) and the file that it is, if it is one.
struct Block {
    lines: std::ops::Range<usize>,
    language: String,
    file: Option<String>,
}

fn blocks(text: &[String]) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.iter().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some((begin, language))) => {
                let before = begin.checked_sub(2).map(|at| text[at].as_str()).unwrap_or_default();
                let file = before.strip_prefix("<!-- file: ").and_then(|rest| rest.strip_suffix(" -->")).map(str::to_owned);
                found.push(Block { lines: begin..number, language, file });
            }
            (Some(language), None) => open = Some((number + 1, language.to_owned())),
            (None, was) => open = was,
        }
    }
    assert!(open.is_none(), "a block is not closed");
    found
}

/// Commands of a console block with the output that is written below each.
fn commands(lines: &[String]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push((command.to_owned(), String::new())),
            (None, Some((_, output))) => output.push_str(&format!("{line}\n")),
            (None, None) => panic!("a console block begins with a command: {line}"),
        }
    }
    all
}

fn readme() -> (PathBuf, Vec<String>) {
    let path = Path::new(ROOT).join("README.md");
    let text = std::fs::read_to_string(&path).unwrap();
    (path, text.lines().map(str::to_owned).collect())
}

#[test]
fn every_console_block_of_the_readme_prints_what_is_written() {
    let (path, text) = readme();
    let quickstart = Quickstart::start();
    let dir = tempfile::tempdir().unwrap();
    let mut changes: BTreeMap<usize, (usize, Vec<String>)> = BTreeMap::new();
    let mut ran = 0;
    for block in blocks(&text) {
        let lines = &text[block.lines.clone()];
        if let Some(name) = &block.file {
            std::fs::write(dir.path().join(name), here(&quickstart.ports, &(lines.join("\n") + "\n"))).unwrap();
        }
        if block.language != "console" {
            continue;
        }
        let mut fresh = Vec::new();
        for (command, expected) in commands(lines) {
            let printed = match command.as_str() {
                // Builds first, which cargo tells in its own words, then what the script says.
                "make run" => quickstart.banner.clone(),
                // It is what runs this.
                "make test" => expected.clone(),
                command => quickstart.run(command, dir.path()),
            };
            ran += 1;
            fresh.push(format!("$ {command}"));
            fresh.extend(printed.trim_end().lines().map(str::to_owned));
            if std::env::var_os("UPDATE").is_none() {
                assert_eq!(normal(&printed), normal(&expected), "$ {command}\nis not what the README says; UPDATE=1 writes it anew");
            }
        }
        changes.insert(block.lines.start, (block.lines.end, fresh));
    }
    assert!(ran >= 8, "the README has lost its commands: {ran}");
    if std::env::var_os("UPDATE").is_some() {
        let mut out = Vec::new();
        let mut number = 0;
        while number < text.len() {
            match changes.get(&number) {
                Some((end, fresh)) => {
                    out.extend(fresh.iter().cloned());
                    number = *end;
                }
                None => {
                    out.push(text[number].clone());
                    number += 1;
                }
            }
        }
        std::fs::write(path, out.join("\n") + "\n").unwrap();
    }
}

#[test]
fn the_four_lines_of_the_quickstart_do_what_they_say_and_ctrl_c_stops_all_of_it() {
    let mut quickstart = Quickstart::start();
    let banner: Vec<_> = quickstart.banner.lines().map(str::to_owned).collect();
    let lines: Vec<_> = banner.windows(2).filter(|two| two[1].starts_with("curl ")).map(|two| (two[0].clone(), two[1].clone())).collect();
    let expected = ["HTTP/1.1 200", "HTTP/1.1 401", "HTTP/1.1 403", "200\n200\n200\n200\n200\n429"];
    assert_eq!(lines.len(), 4, "{banner:?}");
    for ((comment, line), expected) in lines.iter().zip(expected) {
        let printed = quickstart.run(&line.replacen("curl ", "curl -sS ", 1), quickstart.dir.path());
        assert!(printed.starts_with(expected), "{comment}\n{line}\n{printed}");
        let status = expected.split(['\n', ' ']).next_back().unwrap();
        assert!(comment.contains(if status == "200" { "passes" } else { status }), "`{comment}` stands before what answers {status}");
    }
    assert!(PORTS.iter().all(|port| quickstart.is_open(port)));
    quickstart.signal(Signal::INT);
    let script = &mut quickstart.script;
    let status = eventually("the end of the quickstart", || script.try_wait().unwrap());
    assert!(status.success(), "{status}");
    for port in PORTS {
        eventually(&format!("{port} to be closed"), || (!quickstart.is_open(port)).then_some(()));
    }
}

#[test]
fn the_yaml_of_the_readme_is_twelve_lines_and_accepted() {
    let (_, text) = readme();
    let block =
        blocks(&text).into_iter().find(|block| block.file.as_deref() == Some("gateway.yaml")).expect("the README shows gateway.yaml");
    assert_eq!(block.lines.len(), 12, "twelve lines of YAML");
}

fn page(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// All Rust files below a folder, as one text.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all.push_str(&sources(&entry));
        } else if entry.extension().is_some_and(|end| end == "rs") {
            all.push_str(&std::fs::read_to_string(entry).unwrap());
        }
    }
    all
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_tests_that_hold_the_promises_exist() {
    let page = page("ARCHITECTURE.md");
    let promises = page.split("\n## ").find(|part| part.starts_with("The promises")).unwrap();
    let source = sources(&Path::new(ROOT).join("src")) + &sources(&Path::new(ROOT).join("tests"));
    for promise in promises.split("\n**").skip(1) {
        let lists = promise.lines().filter(|line| line.starts_with("- "));
        let names: Vec<_> = lists.flat_map(quoted).collect();
        assert!(names.len() >= 3, "who holds this? {promise}");
        for name in names {
            assert!(source.contains(&format!("fn {name}(")), "there is no test `{name}`");
        }
    }
    assert_eq!(promises.split("\n**").skip(1).count(), 6);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = page("Cargo.toml");
    let section = manifest.split("[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let mut used: Vec<_> = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.to_owned()).collect();
    let page = page("ARCHITECTURE.md");
    let table = page.split("\n## ").find(|part| part.starts_with("Dependencies")).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut told: Vec<_> = rows.flat_map(|row| quoted_names(row.split(" | ").next().unwrap())).collect();
    used.sort();
    told.sort();
    assert_eq!(used, told);
    let source = sources(&Path::new(ROOT).join("src"));
    for name in used {
        let name = name.replace('-', "_");
        let is_used = source.contains(&format!("{name}::")) || source.contains(&format!("use {name} as _;"));
        assert!(is_used, "`{name}` is not used in src/");
    }
}

fn quoted_names(cell: &str) -> Vec<String> {
    cell.split("`, `").map(|name| name.trim_matches('`').to_owned()).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let in_docs = std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let in_docs: Vec<String> = in_docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    let at_top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(str::to_owned);
    let readme = page("README.md");
    for name in &in_docs {
        assert!(readme.contains(&format!("]({name})")), "README.md leads nobody to {name}");
    }
    for name in at_top.iter().chain(&in_docs) {
        let folder = Path::new(ROOT).join(name).parent().unwrap().to_owned();
        for link in page(name).split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(link.contains("://") || folder.join(file).exists(), "{name} leads to {link}");
        }
    }
}

#[test]
fn a_policy_is_known_to_its_file_to_the_list_and_to_the_settings() {
    let mut knowing: Vec<String> = Vec::new();
    let mut folders = vec![Path::new(ROOT).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut code = text.split("\n#[cfg(test)]").next().unwrap().lines().filter(|line| {
                // A network is a type that others use too.
                !line.trim_start().starts_with("//") && !line.contains("ip_filter::Network")
            });
            if !path.ends_with("tests.rs") && code.any(|line| line.to_lowercase().replace('_', "").contains("ipfilter")) {
                knowing.push(path.strip_prefix(ROOT).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    knowing.sort();
    // What CONTRIBUTING says of a new one. If one comes to know more, repair the house.
    assert_eq!(knowing, ["src/config/document.rs", "src/policy/ip_filter.rs", "src/policy/mod.rs"]);
    let page = page("CONTRIBUTING.md");
    assert!(knowing.iter().all(|file| page.contains(&file.replace("ip_filter", "required_headers"))));
    let list = std::fs::read_to_string(Path::new(ROOT).join("src/policy/mod.rs")).unwrap();
    for part in ["written(\"", "wrong.compile(given.given(|all| &all.", "self.run(Shadow::", "Policies::compile", "KINDS"] {
        let known = if part == "Policies::compile" { "impl Policies" } else { part };
        assert!(page.contains(part) && list.contains(known), "{part}");
    }
}
