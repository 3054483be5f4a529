//! Decides whether every part of a configuration keeps to what is laid down for all of it, whoever wrote the part.
//!
//! Changes nothing by itself: what does not keep to it is a mistake at its own place, with the place of the standard.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::{At, Period};
use crate::listen::tls::Minimum;
use crate::policy::Shadow;
use crate::policy::api_key::{ApiKeySettings, KeyFormatSettings};
use crate::policy::authn::AuthSettings;
use crate::policy::jwt::{JwtAlgorithm, JwtSettings};

/// What every part of the configuration must keep to, whichever file it stands in; `check`, a start and a reload refuse what does not.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StandardsSettings {
    /// No listener with `tls` may accept an older version; those without `minimum` accept 1.2.
    pub tls_minimum: Option<At<Minimum>>,
    /// Every `jwt` must have a `max_lifetime` of at most this.
    pub token_lifetime: Option<At<Period>>,
    /// No `jwt` may accept another.
    pub token_algorithms: Option<At<Vec<JwtAlgorithm>>>,
    /// Every `api_key` must have a `format` with this prefix, and of at least this length.
    pub key_format: Option<At<KeyFormatSettings>>,
    /// Paths, such as `/api/**`: no route that may take one of them may be public or shadow its `auth`.
    pub auth_required: Option<At<Vec<At<String>>>>,
}

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(standards) = &index.document.standards else { return };
    let StandardsSettings { tls_minimum, token_lifetime, token_algorithms, key_format, auth_required } = &standards.value;
    if tls_minimum.is_none() && token_lifetime.is_none() && token_algorithms.is_none() && key_format.is_none() && auth_required.is_none() {
        errors.push(Diagnostic::at(&standards.place, "inert", "this lays nothing down: expected at least one standard"));
    }
    let mut broken = |place: &Place, standard: &Place, message: String| {
        errors.push(Diagnostic::at(place, "standard", message).help(format!("the standard is at {standard:?}")));
    };
    if let Some(minimum) = tls_minimum {
        for (name, listener) in &index.document.listeners {
            let Some(tls) = &listener.tls else { continue };
            let own = tls.minimum.as_ref().map_or(Minimum::Tls12, |own| own.value);
            if own == Minimum::Tls12 && minimum.value == Minimum::Tls13 {
                let place = tls.minimum.as_ref().map_or(&name.place, |own| &own.place);
                broken(place, &minimum.place, format!("`{}` accepts TLS 1.2, older than `tls_minimum`", name.value));
            }
        }
    }
    for (name, authenticator) in &index.document.authenticators {
        if let Some(jwt) = &authenticator.jwt {
            tokens(name, jwt, token_lifetime.as_ref(), token_algorithms.as_ref(), &mut broken);
        }
        if let (Some(keys), Some(format)) = (&authenticator.api_key, key_format) {
            keys_of(name, keys, format, &mut broken);
        }
    }
    for pattern in auth_required.iter().flat_map(|list| &list.value) {
        if !pattern.starts_with('/') {
            let message = format!("`{}` is not a path: expected one such as `/api/**`", pattern.value);
            errors.push(Diagnostic::at(&pattern.place, "bad-path", message));
            continue;
        }
        for ((name, route), effective) in index.document.routes.iter().zip(&index.effective) {
            let is_public = matches!(route.own.auth.value, AuthSettings::Public);
            if (is_public || effective.shadows(Shadow::Auth)) && meet(pattern, &route.own.matches.path) {
                let how = if is_public { "is public" } else { "shadows `auth`" };
                let message = format!("`{}` {how}, and may take paths of `{}`, which need a credential", name.value, pattern.value);
                let told = Diagnostic::at(&route.own.auth.place, "standard", message);
                errors.push(told.help(format!("the standard is at {:?}", pattern.place)));
            }
        }
    }
}

type Broken<'b> = dyn FnMut(&Place, &Place, String) + 'b;

fn tokens(
    name: &At<String>,
    jwt: &JwtSettings,
    lifetime: Option<&At<Period>>,
    algorithms: Option<&At<Vec<JwtAlgorithm>>>,
    broken: &mut Broken<'_>,
) {
    if let Some(longest) = lifetime {
        match jwt.max_lifetime {
            None => {
                broken(&name.place, &longest.place, format!("`{}` has no `max_lifetime`: expected at most {}", name.value, longest.value))
            }
            Some(own) if own > longest.value => {
                broken(
                    &name.place,
                    &longest.place,
                    format!("`max_lifetime` of `{}` is {own}: expected at most {}", name.value, longest.value),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(allowed) = algorithms {
        for algorithm in jwt.algorithms.iter().filter(|algorithm| !allowed.contains(&algorithm.value)) {
            let message = format!("`{}` accepts `{}`, which `token_algorithms` has not", name.value, algorithm.value.as_str());
            broken(&algorithm.place, &allowed.place, message);
        }
    }
}

fn keys_of(name: &At<String>, keys: &ApiKeySettings, standard: &At<KeyFormatSettings>, broken: &mut Broken<'_>) {
    let KeyFormatSettings { prefix, length } = &standard.value;
    let own = keys.format.as_ref();
    if let Some(prefix) = prefix
        && own.and_then(|own| own.prefix.as_ref()) != Some(prefix)
    {
        broken(&name.place, &standard.place, format!("keys of `{}` need not begin with `{prefix}`", name.value));
    }
    if let Some(least) = length
        && own.and_then(|own| own.length.as_ref()).is_none_or(|own| own.value < least.value)
    {
        broken(&name.place, &standard.place, format!("keys of `{}` may be shorter than {} characters", name.value, least.value));
    }
}

/// Whether a path could be of both patterns.
fn meet(one: &str, other: &str) -> bool {
    let is_rest = |step: &str| step == "**";
    let is_any = |step: &str| step == "*" || step.contains('{');
    let (mut one, mut other) = (one.split('/').skip(1), other.split('/').skip(1));
    loop {
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(step), _) | (_, Some(step)) if is_rest(step) => return true,
            (Some(a), Some(b)) if is_rest(a) || is_rest(b) => return true,
            (Some(a), Some(b)) if a == b || is_any(a) || is_any(b) => {}
            (Some(_), Some(_)) | (None, Some(_)) | (Some(_), None) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_where_a_path_could_be_of_both() {
        for (one, other) in [
            ("/api/**", "/api/x"),
            ("/api/**", "/api"),
            ("/api/**", "/**"),
            ("/api/**", "/{any}/x"),
            ("/api/orders", "/api/{name}"),
            ("/api/v1/**", "/api/**"),
            ("/", "/"),
        ] {
            assert!(meet(one, other) && meet(other, one), "{one} {other}");
        }
        for (one, other) in [("/api/**", "/app/x"), ("/api/orders", "/api/{name}/x"), ("/api/**", "/"), ("/a", "/a/b")] {
            assert!(!meet(one, other) && !meet(other, one), "{one} {other}");
        }
    }
}
