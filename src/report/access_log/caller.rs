//! What a line says of a caller, whom nothing ever changes: spelt once where the caller is remembered, and else for each line.
//!
//! Decides neither who is remembered nor where in a line it stands.

use super::Fields;
use crate::policy::principal::Identity;

/// The fields of a caller, each with the comma before it.
pub fn spelt(caller: &Identity) -> Box<[u8]> {
    let mut out = Vec::new();
    Fields { out: &mut out }.each_of(caller);
    out.into()
}

// === impl Fields ===

impl Fields<'_> {
    pub(super) fn caller(&mut self, caller: Option<&Identity>) {
        match caller.map(|caller| (caller, &caller.spelt)) {
            Some((_, Some(spelt))) => self.out.extend_from_slice(spelt),
            Some((caller, None)) => self.each_of(caller),
            None => {}
        }
    }

    fn each_of(&mut self, caller: &Identity) {
        self.clean(r#","authenticator":"#, caller.authenticator.as_bytes());
        self.short(r#","consumer":"#, caller.consumer.as_ref().map_or("", |consumer| &consumer.name).as_bytes());
        self.short(r#","plan":"#, caller.plan().map_or("", |(name, _)| name).as_bytes());
        self.short(r#","subject":"#, caller.subject.as_deref().unwrap_or_default().as_bytes());
        self.tags(caller);
    }

    /// Names and values are short words without quotes.
    fn tags(&mut self, of: &Identity) {
        let mut before = r#","tags":{""#;
        for tag in of.tags() {
            for part in [before, &tag.name, r#"":""#, &tag.value, "\""] {
                self.name(part);
            }
            before = ",\"";
        }
        if before.len() == 2 {
            self.name("}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_caller_is_what_would_be_spelt_anew() {
        let of = |caller: &Identity| {
            let mut out = Vec::new();
            Fields { out: &mut out }.caller(Some(caller));
            String::from_utf8(out).unwrap()
        };
        for subject in ["u1".to_owned(), "a\"\n\u{85}".to_owned(), "x".repeat(1000)] {
            let mut caller = Identity { authenticator: "idp".into(), subject: Some(subject), ..Identity::default() };
            caller.claimed_plan = Some(("gold".into(), 0));
            let anew = of(&caller);
            assert!(anew.starts_with(r#","authenticator":"idp","plan":"gold","subject":""#), "{anew}");
            caller.spelt = Some(spelt(&caller));
            assert_eq!(of(&caller), anew);
        }
    }
}
