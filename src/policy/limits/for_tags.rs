//! Decides whether a limit is for a caller: only for those with tags, or for everybody.

use std::collections::BTreeMap;

use crate::config::types::At;
use crate::policy::authz::OneOrMany;
use crate::policy::principal::Identity;

/// Tags and the values of which each must have one; everybody where there are none.
#[derive(Clone, Debug, Default)]
pub struct ForTags(Box<[(Box<str>, Vec<String>)]>);

// === impl ForTags ===

impl ForTags {
    pub fn compile(settings: Option<&At<BTreeMap<String, OneOrMany>>>) -> Self {
        ForTags(settings.iter().flat_map(|tags| &tags.value).map(|(name, values)| (name.as_str().into(), values.0.clone())).collect())
    }

    #[inline]
    pub fn admits(&self, identity: Option<&Identity>) -> bool {
        self.0.is_empty() || self.has_each(identity)
    }

    #[inline(never)]
    fn has_each(&self, identity: Option<&Identity>) -> bool {
        self.0.iter().all(|(name, values)| {
            let tag = identity.and_then(|identity| identity.tag(name));
            tag.is_some_and(|tag| values.iter().any(|value| **value == *tag.value))
        })
    }
}
