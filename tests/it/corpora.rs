//! Replays the inputs of the fuzz targets, `fuzz/corpus/TARGET/*`, among them all that ever failed.

#[path = "../../fuzz/properties/mod.rs"]
mod properties;

use std::path::{Path, PathBuf};

fn folder(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn what_must_hold_for_any_input_holds_for_all_that_are_kept() {
    let mut failed = Vec::new();
    for (target, hold) in properties::TARGETS {
        let inputs = inputs(target);
        assert!(
            (5..=60).contains(&inputs.len()),
            "{target} has {} inputs: expected some, but not so many that nobody reads them",
            inputs.len()
        );
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            if std::panic::catch_unwind(|| hold(&data)).is_err() {
                failed.push(input);
            }
        }
    }
    assert!(failed.is_empty(), "what went wrong is told above, for each of {failed:#?}");
}

#[test]
fn every_target_is_built_run_and_replayed() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    let built: Vec<&str> = manifest.lines().filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\"")).collect();
    let replayed: Vec<&str> = properties::TARGETS.iter().map(|(target, _)| *target).collect();
    assert_eq!(built, replayed);
}
