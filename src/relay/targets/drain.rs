//! Decides which targets the operator has taken out: those that are marked where they are listed, and those that `targets_from.drain` names.
//!
//! Does not decide what that means for a request: see `standing.rs`. A name that nobody has found yet waits for its target, and is told.

use std::sync::Arc;

use super::address::Address;
use super::pool::{Pool, TargetSet};
use crate::clock;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::relay::finding::TargetsFromSettings;

/// Which of the targets that will be found are drained. All mistakes at once.
pub(in crate::relay) fn compile(from: &At<TargetsFromSettings>, wrong: &mut Vec<Diagnostic>) -> Box<[Arc<str>]> {
    let Some(written) = &from.value.drain else { return Box::default() };
    if from.value.file.is_some() {
        let message = "`drain` has no effect: a file says `drain: true` of a target itself";
        wrong.push(Diagnostic::at(&written.place, "inert", message).help("write `- { address: 10.0.0.7:8080, drain: true }` into it"));
    } else if written.value.is_empty() {
        wrong.push(Diagnostic::at(&written.place, "empty-list", "no target: expected at least one, such as `[10.0.0.7:8080]`"));
    }
    let mut drained: Vec<Arc<str>> = Vec::new();
    for address in &written.value {
        match Address::parse(&address.value) {
            Err(why) => wrong.push(Diagnostic::at(&address.place, "bad-target", format!("not a target: {why}"))),
            Ok(parsed) if drained.contains(&parsed.text) => {
                wrong.push(Diagnostic::at(&address.place, "listed-twice", format!("`{}` stands here twice", parsed.text)));
            }
            Ok(parsed) => drained.push(parsed.text),
        }
    }
    drained.into()
}

// === impl Pool ===

impl Pool {
    /// Takes out what is drained, and brings back what is drained no more.
    pub(in crate::relay) fn drain_as_written(&self) {
        self.drain_of(&self.present());
    }

    /// The same in a set before any request sees it.
    pub(in crate::relay) fn drain_of(&self, set: &TargetSet) {
        let unix_ms = clock::now().unix_ms;
        for (target, member) in set.targets.iter().zip(&set.members) {
            let (is_drained, reason) = match self.upstream.drained.contains(&member.address.text) {
                true => (true, "`targets_from.drain` in the configuration"),
                false => (member.drain, "`drain: true` where it is listed"),
            };
            target.drain(is_drained, reason, unix_ms);
        }
        self.tell_unfound(set);
    }

    /// A name may be misspelt: those that fit no target are told, once until they are others. Before anything was found all of them would be.
    fn tell_unfound(&self, set: &TargetSet) {
        if self.upstream.drained.is_empty() || set.members.is_empty() {
            return;
        }
        let is_found = |name: &Arc<str>| set.members.iter().any(|member| member.address.text == *name);
        let unfound: Vec<_> = self.upstream.drained.iter().filter(|name| !is_found(name)).cloned().collect();
        let mut told = self.unfound.lock();
        if *told != unfound {
            if !unfound.is_empty() {
                log::warn!(
                    "upstream {}: `drain` names {}, which is not among the targets that are found",
                    self.upstream.name,
                    unfound.join(", ")
                );
            }
            *told = unfound;
        }
    }
}
