//! Decides that `redirect_https` redirects something, and that no route stands behind it where nobody could reach it.

use crate::config::diagnostic::Diagnostic;
use crate::config::document::Document;

pub(super) fn check(document: &Document, errors: &mut Vec<Diagnostic>) {
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
