//! Decides whether every consumer can be recognised, and as one consumer only.

use std::collections::HashMap;

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::policy::authn::{AuthSettings, AuthenticatorSettings, ConsumerKeySettings, ConsumerSettings};

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let takes_keys = index.document.routes.iter().any(|(_, route)| match &route.own.auth.value {
        AuthSettings::Public => false,
        AuthSettings::AnyOf(names) => {
            // One that is unknown is told elsewhere, and might have been meant.
            names.iter().any(|name| index.authenticators.get(name.as_str()).is_none_or(|a| a.api_key.is_some()))
        }
    });
    if let Some(from) = index.document.consumers_from.as_ref().filter(|_| !takes_keys && !index.broken.anything()) {
        let message = "`consumers_from` has no effect: no route takes API keys";
        errors.push(Diagnostic::at(&from.place, "inert", message).help("name an authenticator of kind `api_key` in the `auth` of a route"));
    }
    if let Some(revocation) = &index.document.revocation
        && index.document.routes.iter().all(|(_, route)| matches!(route.own.auth.value, AuthSettings::Public))
        && !index.broken.anything()
    {
        let message = "`revocation` has no effect: every route is public";
        errors.push(Diagnostic::at(&revocation.place, "inert", message).help("remove it, or name authenticators in the `auth` of a route"));
    }
    let mut owners: HashMap<String, (&str, Place)> = HashMap::new();
    let mut recognised: HashMap<(&str, &str, &str), &str> = HashMap::new();
    for (name, consumer) in &index.document.consumers {
        let ConsumerSettings { keys, identities, plan: _, scopes, tags: _ } = consumer;
        // A line of a file may give it keys.
        let may_have_keys = !keys.is_empty() || index.document.consumers_from.is_some();
        if !may_have_keys && identities.is_empty() {
            errors.push(
                Diagnostic::at(
                    &name.place,
                    "unrecognisable",
                    format!("`{}` has neither `keys` nor `identities`: nobody could be it", name.value),
                )
                .help("add the hash of a key (`sluice key new` makes both), or a claim of its tokens"),
            );
        }
        for ConsumerKeySettings { sha256, expires: _ } in keys {
            let hash = sha256.to_ascii_lowercase();
            if hash.len() != 64 || !hash.bytes().all(|b| b.is_ascii_hexdigit()) {
                errors.push(
                    Diagnostic::at(
                        &sha256.place,
                        "bad-hash",
                        format!("this is no SHA-256: expected 64 hex digits, found {} characters", sha256.chars().count()),
                    )
                    .help("`sluice key hash` prints the hash of a key"),
                );
            } else if let Some((owner, first)) = owners.get(&hash) {
                let whose = if *owner == name.as_str() { "this consumer".to_owned() } else { format!("`{owner}`") };
                errors.push(
                    Diagnostic::at(&sha256.place, "shared-key", format!("{whose} has the same key already"))
                        .help(format!("the first is at {first:?}")),
                );
            } else {
                owners.insert(hash, (name.as_str(), sha256.place.clone()));
            }
        }
        if let Some(key) = keys.first()
            && !takes_keys
            && !index.broken.anything()
        {
            errors.push(
                Diagnostic::at(&key.sha256.place, "inert", format!("the keys of `{}` have no effect: no route takes API keys", name.value))
                    .help("name an authenticator of kind `api_key` in the `auth` of a route"),
            );
        }
        let is_of =
            |name: &str, wanted: fn(&AuthenticatorSettings) -> bool| index.authenticators.get(name).is_none_or(|found| wanted(found));
        let has_certificates = identities.iter().any(|identity| is_of(&identity.authenticator, |found| found.client_certificate.is_some()));
        if !may_have_keys && !identities.is_empty() && !has_certificates && !scopes.is_empty() {
            errors.push(
                Diagnostic::at(
                    &name.place,
                    "inert",
                    format!(
                        "the `scopes` of `{}` have no effect: it has neither keys nor certificates, and tokens bring their own",
                        name.value
                    ),
                )
                .help("remove `scopes`, or give it keys"),
            );
        }
        for identity in identities {
            if !index.refer("authenticators", &identity.authenticator, errors) {
                continue;
            }
            if !is_of(&identity.authenticator, |found| found.takes_tokens() || found.client_certificate.is_some()) {
                errors.push(Diagnostic::at(
                    &identity.authenticator.place,
                    "wrong-kind",
                    format!(
                        "`{}` checks API keys, which have no claims: expected an authenticator of kind `jwt` or `client_certificate`",
                        identity.authenticator.value
                    ),
                ));
            }
            let claim = (identity.authenticator.as_str(), identity.claim.as_str(), identity.is.as_str());
            if let Some(other) = recognised.insert(claim, name) {
                errors.push(Diagnostic::at(
                    &identity.is.place,
                    "shared-identity",
                    format!("the same claim makes a caller `{other}` already: it would be two consumers"),
                ));
            }
        }
    }
}
