//! Decides that `redirect_https` redirects something, that no route stands behind it where nobody could reach it, and that `https` of a
//! route stops some requests and not all.

use super::Index;
use crate::config::diagnostic::Diagnostic;
use crate::config::document::{Document, RouteSettings};
use crate::config::effective::{Effective, Giver};
use crate::config::types::At;
use crate::listen::ListenerSettings;

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    of_listeners(index.document, errors);
    if index.broken.anything() {
        return;
    }
    for ((name, route), effective) in index.document.routes.iter().zip(&index.effective) {
        of_route(index.document, name, route, effective, errors);
    }
}

/// What a request can have come as.
fn of_route(document: &Document, name: &At<String>, route: &RouteSettings, effective: &Effective<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(https) = effective.given(|all| &all.https) else { return };
    if document.clients.is_some() {
        // A trusted proxy may say of any request how it came to it.
        return;
    }
    let is_on = |listener: &At<String>| {
        let named = route.own.listeners.as_ref();
        named.is_none_or(|names| names.iter().any(|own| own.value == listener.value))
    };
    let on: Vec<&ListenerSettings> =
        document.listeners.iter().filter(|(listener, _)| is_on(listener)).map(|(_, settings)| settings).collect();
    let place = &https.settings.place;
    // What bundles and defaults say need not concern every route.
    if https.by == Giver::Route && on.iter().all(|listener| listener.tls.is_some() || listener.redirect_https.is_some()) {
        let message = format!("`https` has no effect on `{}`: nothing that comes to it is plain", name.value);
        errors.push(Diagnostic::at(place, "inert", message).help("remove it"));
    } else if on.iter().all(|listener| listener.tls.is_none() && listener.proxy_protocol.is_none()) && !on.is_empty() {
        let message = format!("whatever comes to `{}` is plain, so nobody can pass `https`", name.value);
        let help = "put the route on a listener with `tls` too, or say in `clients.trusted_proxies` who ends TLS before it";
        errors.push(Diagnostic::at(if https.by == Giver::Route { place } else { &route.place }, "never-allowed", message).help(help));
    }
}

fn of_listeners(document: &Document, errors: &mut Vec<Diagnostic>) {
    for (name, listener) in &document.listeners {
        let Some(port) = &listener.redirect_https else { continue };
        if port.value == 0 {
            errors.push(Diagnostic::at(&port.place, "out-of-range", "`0` is not a port: expected 1 to 65535, such as `443`"));
        }
        if listener.tls.is_some() {
            let message = format!("nothing on `{}` is redirected: it has `tls`, so no request comes plain", name.value);
            errors.push(Diagnostic::at(&port.place, "inert", message).help("the listener that clients reach with `http://` redirects"));
            continue;
        }
        if document.clients.is_some() {
            // A trusted proxy may say that a request came to it by `https://`.
            continue;
        }
        for (route, settings) in &document.routes {
            let own = settings.own.listeners.iter().flat_map(|listeners| listeners.iter()).find(|own| own.value == name.value);
            let place = match (own, &settings.own.listeners) {
                (Some(own), _) => &own.place,
                (None, None) if document.listeners.len() == 1 => &settings.place,
                (None, _) => continue,
            };
            let message = format!("nobody reaches `{}` on `{}`, which redirects every plain request", route.value, name.value);
            errors.push(Diagnostic::at(place, "inert", message).help("put the route on a listener with `tls` only"));
        }
    }
}
