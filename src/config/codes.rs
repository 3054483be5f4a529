//! Every kind of mistake in a configuration: its stable code and what it means. A test holds that no code of the source is missing.

/// (code, one sentence).
pub const CODES: &[(&str, &str)] = &[
    ("address-taken", "Two listeners would be on the same address and port."),
    ("bad-hash", "The hash of an API key is not 64 hex digits."),
    ("bad-name", "A name is not made of small letters, digits, `-` and `_`, or means something already."),
    ("bad-value", "A value is not written as its key expects it."),
    ("choose-one", "Of several keys that exclude each other, none or more than one is written."),
    ("defined-twice", "A name or a section that stands once is defined in two places."),
    ("duplicate-key", "A key is written twice in one mapping."),
    ("duplicate-policy", "Two bundles that are used together have the same policy."),
    ("empty-file", "A file says nothing."),
    ("empty-list", "A list is empty where that could mean nothing."),
    ("env-unset", "An environment variable is not set or empty, and there is no default."),
    ("file-unreadable", "A file that a value refers to cannot be read."),
    ("header-forbidden", "A header that only the gateway writes would be changed."),
    ("header-name", "The name of a header is not one."),
    ("header-twice", "A header is changed in two ways at once."),
    ("inert", "What is written could not have any effect."),
    ("interpolation", "A `${` is not closed, not known or in a key."),
    ("limit-stage", "A limit counts by something that is not known yet where it is judged."),
    ("limit-without-key", "A limit has nothing to count by for some caller whom a route admits."),
    ("listed-twice", "Something stands twice in one list."),
    ("listeners-needed", "There are several listeners and a route does not say on which it is."),
    ("merge-key", "Merge keys (`<<`) are not read."),
    ("missing-key", "A key that is needed is not written."),
    ("missing-section", "A section without which nothing could be answered is not there."),
    ("never-allowed", "No caller could have what a route asks for."),
    ("no-value", "A key is written without a value."),
    ("not-built", "A key is known but not built yet."),
    ("not-read", "A file in the folder would not be read."),
    ("not-utf8", "A file is not UTF-8 text."),
    ("out-of-range", "A number, a time or a size is too small or too large."),
    ("several-documents", "A file holds more than one YAML document."),
    ("shared-identity", "The same claim makes a token two consumers'."),
    ("shared-key", "The same API key belongs to two consumers."),
    ("tag", "YAML tags are not read."),
    ("too-deep", "Mappings and lists are nested too deep."),
    ("too-large", "A file holds too many values, with its aliases written out."),
    ("unknown-key", "A key is not known where it stands."),
    ("unknown-name", "A name leads to no definition."),
    ("unknown-word", "A value is none of the words that its key takes."),
    ("unreadable", "The configuration file or folder cannot be read."),
    ("unrecognisable", "A consumer has nothing by which it could be recognised."),
    ("unused", "A definition is used by nothing."),
    ("wrong-kind", "A name leads to something of another kind than is needed."),
    ("wrong-type", "A value is text, a number, a list or a mapping where another of these is expected."),
    ("yaml-syntax", "The file is not YAML."),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The code in each `Diagnostic::at(place, "code", ..)`, `Diagnostic::nowhere("code", ..)` and `ReadError::new("code", ..)` of a source text.
    fn codes(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (call, skip) in [("Diagnostic::at(", 1), ("Diagnostic::nowhere(", 0), ("ReadError::new(", 0)] {
            for (at, _) in text.match_indices(call) {
                let arguments = arguments(&text[at + call.len()..]);
                // Where a code is chosen between two, both count.
                for word in arguments.get(skip).into_iter().flat_map(|a| a.split('"').skip(1).step_by(2)) {
                    found.push(word.to_owned());
                }
            }
        }
        found
    }

    /// The first arguments of a call, as they are written.
    fn arguments(text: &str) -> Vec<&str> {
        let (mut depth, mut quoted, mut start, mut all) = (0, false, 0, Vec::new());
        let mut before = ' ';
        for (at, c) in text.char_indices() {
            match c {
                '"' if before != '\\' => quoted = !quoted,
                _ if quoted => {}
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' if depth == 0 => {
                    all.push(&text[start..at]);
                    return all;
                }
                ')' | ']' | '}' => depth -= 1,
                ',' if depth == 0 => {
                    all.push(&text[start..at]);
                    start = at + 1;
                }
                _ => {}
            }
            before = c;
        }
        all
    }

    fn sources(folder: &Path, out: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests make up codes as they like.
                out.push_str(text.split("\n#[cfg(test)]").next().unwrap());
            }
        }
    }

    #[test]
    fn every_code_of_the_source_is_in_the_table_and_every_row_is_used() {
        let mut text = String::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
        let used: BTreeSet<String> = codes(&text).into_iter().collect();
        let listed: BTreeSet<String> = CODES.iter().map(|(code, _)| (*code).to_owned()).collect();
        assert!(used.len() > 30, "{used:?}");
        assert_eq!(used.difference(&listed).collect::<Vec<_>>(), [] as [&String; 0], "codes that are missing in CODES");
        assert_eq!(listed.difference(&used).collect::<Vec<_>>(), [] as [&String; 0], "codes in CODES that nothing raises");
    }

    #[test]
    fn the_table_is_sorted_without_repetitions() {
        assert!(CODES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn the_search_for_codes_finds_them() {
        let text = r#"Diagnostic::at(&a.place(1, "x"), "one", format!("{}", 1)) Diagnostic::nowhere("two", "m") ReadError::new(if a { "three" } else { "four" }, m)"#;
        assert_eq!(codes(text), ["one", "two", "three", "four"]);
    }
}
