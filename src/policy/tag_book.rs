//! Makes tags of names and values, each with the counter of its requests.
//!
//! Decides which values have a counter of their own: those that a configuration names. All others of a name share one, and names
//! that no configuration has share one too, so that neither callers nor files can make series without end.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::principal::Tag;
use crate::report::metrics::Metrics;
use crate::report::metrics::tags::{OTHER, TagSeries};

/// The tags that a configuration names.
#[derive(Debug, Default)]
pub struct TagBook {
    names: BTreeMap<Box<str>, Values>,
    other: Arc<TagSeries>,
}

#[derive(Debug, Default)]
struct Values {
    known: BTreeMap<Box<str>, Arc<TagSeries>>,
    other: Arc<TagSeries>,
}

// === impl TagBook ===

impl TagBook {
    /// `named`: names, and with each perhaps a value.
    pub fn new<'a>(named: impl IntoIterator<Item = (&'a str, Option<&'a str>)>, metrics: &Metrics) -> Self {
        let mut names: BTreeMap<Box<str>, Values> = BTreeMap::new();
        for (name, value) in named {
            let values = names.entry(name.into()).or_insert_with(|| Values { known: BTreeMap::new(), other: metrics.tag(name, OTHER) });
            if let Some(value) = value {
                values.known.entry(value.into()).or_insert_with(|| metrics.tag(name, value));
            }
        }
        TagBook { names, other: metrics.tag(OTHER, OTHER) }
    }

    /// Whether the configuration names a tag like this.
    pub fn knows(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    pub fn tag(&self, name: &str, value: &str) -> Tag {
        let series = match self.names.get(name) {
            Some(values) => values.known.get(value).unwrap_or(&values.other),
            None => &self.other,
        };
        Tag { name: name.into(), value: value.into(), series: series.clone() }
    }

    /// Equal where tags are made alike.
    pub fn is_like(&self, other: &TagBook) -> bool {
        let all = |book: &TagBook| -> Vec<(Box<str>, Vec<Box<str>>)> {
            book.names.iter().map(|(name, values)| (name.clone(), values.known.keys().cloned().collect())).collect()
        };
        all(self) == all(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_configuration_names_is_counted_together() {
        let metrics = Metrics::default();
        let book = TagBook::new([("version", Some("v1")), ("version", Some("v2")), ("tenant", None)], &metrics);
        for (name, value) in
            [("version", "v1"), ("version", "v3"), ("tenant", "acme"), ("tenant", "beta"), ("made-up", "x"), ("other", "y")]
        {
            book.tag(name, value).series.done(name == "made-up");
        }
        let text = metrics.render();
        let told: Vec<_> = text.lines().filter(|line| line.starts_with("sluice_tagged_requests_total") && !line.ends_with(" 0")).collect();
        assert_eq!(
            told,
            [
                r#"sluice_tagged_requests_total{tag="other",value="other",result="passed"} 1"#,
                r#"sluice_tagged_requests_total{tag="other",value="other",result="refused"} 1"#,
                r#"sluice_tagged_requests_total{tag="tenant",value="other",result="passed"} 2"#,
                r#"sluice_tagged_requests_total{tag="version",value="other",result="passed"} 1"#,
                r#"sluice_tagged_requests_total{tag="version",value="v1",result="passed"} 1"#,
            ]
        );
        assert!(book.knows("tenant") && !book.knows("other"));
    }
}
