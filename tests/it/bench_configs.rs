//! The configurations that Sluice is compared with its peers at: what is measured must be what can be run.

use std::path::Path;

use sluice::config::{check, load};

/// As `benches/compare/peers.py` renders it.
fn render(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/compare/sluice").join(name)).unwrap();
    let mut out = String::new();
    let mut repeated: Option<String> = None;
    for line in text.lines() {
        match (line, &mut repeated) {
            ("<<each-route>>", _) => repeated = Some(String::new()),
            ("<<end>>", Some(block)) => {
                for route in ["service-0000", "service-0001", "service-0999"] {
                    out.push_str(&block.replace("<<route>>", route));
                }
                repeated = None;
            }
            (line, Some(block)) => block.extend([line, "\n"]),
            (line, None) => out.extend([line, "\n"]),
        }
    }
    for (key, value) in [
        ("port", "8080"),
        ("admin", "9901"),
        ("upstream", "3001"),
        ("limit", "1000000"),
        ("log", "/tmp/access.log"),
        ("jwks", "/tmp/jwks.json"),
        ("store", ""),
        ("shared", ""),
    ] {
        out = out.replace(&format!("<<{key}>>"), value);
    }
    assert!(!out.contains("<<"), "a placeholder was left in {name}:\n{out}");
    out
}

#[test]
fn the_configurations_of_the_comparison_are_accepted() {
    for name in ["plain.yaml", "full.yaml", "caller.yaml"] {
        let text = render(name);
        let mistakes = match load::load_text(name, &text, &|_| None) {
            Ok(document) => check::check(&document),
            Err(partial) => partial.mistakes,
        };
        assert!(mistakes.is_empty(), "{name}: {mistakes:#?}\n{text}");
    }
}
