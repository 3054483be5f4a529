//! The table of RFC 8725 in docs/identity.md: every threat and every practice has tests that exist.

use std::path::Path;

fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => all += &sources(&entry),
            false if entry.extension().is_some_and(|end| end == "rs") => all += &std::fs::read_to_string(&entry).unwrap(),
            false => {}
        }
    }
    all
}

#[test]
fn every_section_of_rfc_8725_has_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/identity.md")).unwrap();
    let table = page.split("\n## ").find(|part| part.starts_with("RFC 8725")).unwrap();
    let source = sources(&root.join("src")) + &sources(&root.join("tests"));
    let wanted = (1..=9).map(|n| format!("2.{n}")).chain((1..=12).map(|n| format!("3.{n}")));
    for section in wanted {
        let row = table.lines().find(|line| line.starts_with(&format!("| {section} "))).unwrap_or_else(|| panic!("no row for {section}"));
        let tests: Vec<&str> = row.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "nothing shows {section}");
        for name in tests {
            assert!(source.contains(&format!("fn {name}(")), "{section}: there is no test `{name}`");
        }
    }
}
