//! Decides what the entries of a section may be called.

use super::diagnostic::Diagnostic;
use super::yaml::Key;

/// Names are short words, so that they can be metric labels and parts of log lines; those of tests are sentences.
pub fn bad_name(section: &'static str, name: &Key) -> Option<Diagnostic> {
    let text = name.text.as_str();
    if section == "tests" {
        return text.trim().is_empty().then(|| Diagnostic::at(&name.place, "bad-name", "a test without a name").help("say what it shows"));
    }
    let reserved = match (section, text) {
        ("authenticators", "public") => Some("`auth: public` means that anybody may call"),
        ("routes", "none") => Some("in tests, `route: none` means that no route is taken"),
        _ => None,
    };
    if let Some(why) = reserved {
        return Some(Diagnostic::at(&name.place, "bad-name", format!("`{text}` cannot be a name here: {why}")).help("choose another name"));
    }
    let good = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
    if good {
        return None;
    }
    let diagnostic = Diagnostic::at(
        &name.place,
        "bad-name",
        format!("`{text}` is not a name: expected small letters, digits, `-` and `_`, beginning with a letter or digit"),
    );
    let lower: String = text.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    Some(if lower.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        diagnostic.help(format!("did you mean `{lower}`?"))
    } else {
        diagnostic
    })
}
