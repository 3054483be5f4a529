//! The JSON Schema that editors use accepts whatever the gateway accepts, as somebody else's validator reads it.

use std::path::Path;

use serde_json::Value;

use crate::harness::python;

#[test]
fn every_good_configuration_is_good_by_the_schema_too() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(root.join("conf")).expect("the folder is there") {
        let path = entry.expect("an entry can be read").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path.display().to_string());
        }
    }
    // What no example has.
    let own = tempfile::tempdir().expect("a folder can be made");
    let words = own.path().join("words.yaml");
    let text = "routes: { r: { match: { path: / }, auth: public, upstream: a } }
upstreams: { a: { targets: [\"127.0.0.1:1\"], protocol: h2 }, b: { targets: [\"127.0.0.1:1\"], protocol: auto, tls: {} } }
listeners: { l: { address: \"127.0.0.1:1\", protocols: [http1, http2] } }";
    std::fs::write(&words, text).expect("a file can be written");
    files.push(words.display().to_string());
    assert!(files.len() > 8, "{files:?}");

    let schema = root.join("docs/sluice.schema.json").display().to_string();
    let mut args = vec![schema.as_str()];
    args.extend(files.iter().map(String::as_str));
    let said = python("validate.py", &args);
    assert_eq!(said["read"], files.len(), "{said:#}");
    assert_eq!(said["wrong"], Value::Array(Vec::new()), "{said:#}");
}
