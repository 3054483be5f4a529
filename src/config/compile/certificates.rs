//! Decides whether a route that tells its callers by their certificates is on listeners that ask for them, and whether what stands
//! behind such an authenticator could ever decide.
//!
//! Here and not among the checks of the document, because which certificate a host leads to is written in the certificates.

use std::sync::Arc;

use super::Wrong;
use crate::config::diagnostic::Diagnostic;
use crate::config::document::{Document, RouteSettings};
use crate::config::plan::ListenerPlan;
use crate::config::types::At;
use crate::listen::tls::certificate::Certificate;
use crate::policy::authn::AuthSettings;

pub(super) fn check(document: &Document, listeners: &[ListenerPlan], wrong: &mut Wrong) {
    for (name, route) in &document.routes {
        let AuthSettings::AnyOf(auth) = &route.own.auth.value else { continue };
        let is_by_certificate = |one: &&At<String>| {
            let found = document.authenticators.iter().find(|(known, _)| known.value == one.value);
            found.is_some_and(|(_, settings)| settings.client_certificate.is_some())
        };
        let Some(at) = auth.iter().position(|one| is_by_certificate(&one)) else { continue };
        let mut is_always_there = true;
        for listener in listeners.iter().filter(|listener| is_on(route, listener)) {
            match asked(route, listener) {
                Ok(always) => is_always_there &= always,
                Err(who) => {
                    is_always_there = false;
                    let message = format!("`{}` never decides on `{}`: {who} asks clients for no certificate", auth[at].value, name.value);
                    wrong.add(Diagnostic::at(&auth[at].place, "inert", message).help(
                        "give the listener's `tls`, or that certificate of it, `client_certificates`, or name another authenticator",
                    ));
                }
            }
        }
        if is_always_there && let Some(later) = auth.get(at + 1) {
            let message = format!(
                "`{}` never decides: clients must have a certificate there, and `{}` before it takes it",
                later.value, auth[at].value
            );
            wrong.add(
                Diagnostic::at(&later.place, "auth-never-decides", message)
                    .help("the first whose credential is present decides; write `required: false` in `client_certificates`, or remove it"),
            );
        }
    }
}

fn is_on(route: &RouteSettings, listener: &ListenerPlan) -> bool {
    route.own.listeners.as_ref().is_none_or(|names| names.iter().any(|own| *own.value == *listener.name))
}

/// Whether every client whose request can reach the route must have a certificate; or else which part of the listener asks nobody.
fn asked(route: &RouteSettings, listener: &ListenerPlan) -> Result<bool, String> {
    let here = format!("`{}`", listener.name);
    let Some(tls) = &listener.settings.tls else { return Err(here) };
    let is_required = |one: &Certificate| one.clients().is_some_and(|clients| clients.is_required);
    let hosts = route.own.matches.hosts.iter().flat_map(|hosts| &hosts.value);
    let mut always = true;
    let mut any = false;
    for host in hosts {
        any = true;
        let host = host.value.to_ascii_lowercase();
        if host.contains('*') {
            always &= all_of(tls.choice.all(), is_required);
        } else if let Some(certificate) = tls.choice.for_host(&host) {
            if certificate.clients().is_none() {
                return Err(format!("certificate `{}` of {here}, to which `{host}` leads,", certificate.name));
            }
            always &= is_required(certificate);
        }
    }
    if !any {
        always = all_of(tls.choice.all(), is_required);
    }
    if tls.choice.all().iter().all(|one| one.clients().is_none()) { Err(here) } else { Ok(always) }
}

fn all_of(all: &[Arc<Certificate>], is: impl Fn(&Certificate) -> bool) -> bool {
    all.iter().all(|one| is(one))
}
