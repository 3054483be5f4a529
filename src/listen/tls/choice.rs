//! Decides which certificate a client gets: the one that names the host it asks for, exactly or by `*.`, or else the default.
//!
//! The same choice tells whether a request belongs on a connection: its host must lead to the certificate that the client was shown.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, CertificateSettings};
use crate::config::diagnostic::Diagnostic;
use crate::config::suggest;
use crate::config::types::At;

/// The certificates of one listener.
#[derive(Debug)]
pub struct Choice {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<String, usize>,
    /// By what follows the `*`, with its dot.
    wildcard: HashMap<String, usize>,
    addresses: HashMap<IpAddr, usize>,
    default: Option<usize>,
}

// === impl Choice ===

impl Choice {
    /// `read` are those of `settings` that could be read, in their order.
    pub(super) fn compile(
        read: Vec<Arc<Certificate>>,
        settings: &BTreeMap<String, CertificateSettings>,
        default: Option<&At<String>>,
        is_complete: bool,
    ) -> Result<Choice, Vec<Diagnostic>> {
        let mut wrong = Vec::new();
        let mut choice =
            Choice { all: Vec::new(), exact: HashMap::new(), wildcard: HashMap::new(), addresses: HashMap::new(), default: None };
        for (index, certificate) in read.iter().enumerate() {
            let mut is_reached = false;
            let mut taken = None;
            for name in &certificate.dns {
                let (map, key) = match name.strip_prefix('*') {
                    Some(rest) if rest.starts_with('.') => (&mut choice.wildcard, rest),
                    Some(_) | None => (&mut choice.exact, name.as_str()),
                };
                match map.get(key) {
                    Some(other) if *other != index => taken = Some((name.clone(), *other)),
                    Some(_) => {}
                    None => {
                        map.insert(key.to_owned(), index);
                        is_reached = true;
                    }
                }
            }
            for address in &certificate.addresses {
                is_reached |= choice.addresses.insert(*address, index).is_none();
            }
            let is_default = default.is_some_and(|default| **default == *certificate.name);
            if let (Some((name, other)), false, false, Some(at)) = (&taken, is_reached, is_default, settings.get(&*certificate.name)) {
                let message = format!(
                    "nobody gets certificate `{}`: `{name}` and its other names are in `{}` already",
                    certificate.name, read[*other].name
                );
                wrong.push(Diagnostic::at(&at.chain.place, "certificate-unreachable", message).help("remove one of the two"));
            }
        }
        if let Some(name) = default {
            choice.default = read.iter().position(|certificate| *certificate.name == **name);
            if !settings.contains_key(&**name) {
                let error =
                    Diagnostic::at(&name.place, "unknown-name", format!("there is no certificate `{}` on this listener", name.value));
                wrong.push(match suggest::help(name, settings.keys().map(String::as_str)) {
                    Some(help) => error.help(help),
                    None => error,
                });
            }
        }
        choice.all = read;
        if wrong.is_empty() && is_complete { Ok(choice) } else { Err(wrong) }
    }

    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }

    /// The certificate for a host as it stands in SNI or in a request, without its port, in lower case.
    fn of(&self, host: &str) -> Option<usize> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let found = self.exact.get(host).or_else(|| self.wildcard.get(host.get(host.find('.')?..)?)).copied();
        let found = found.or_else(|| {
            let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
            self.addresses.get(&bare.parse().ok()?).copied()
        });
        found.or(self.default)
    }

    /// The certificate for a request's host: see [`covers`](Self::covers).
    pub fn for_host(&self, host: &str) -> Option<&Arc<Certificate>> {
        self.of(host).map(|index| &self.all[index])
    }

    /// The certificate that a client is shown which asks for this name, or for none.
    pub fn for_name(&self, server_name: Option<&str>) -> Option<&Arc<Certificate>> {
        self.shown(server_name).map(|index| &self.all[index])
    }

    /// Its place among all.
    pub(super) fn shown(&self, server_name: Option<&str>) -> Option<usize> {
        match server_name {
            Some(name) => self.of(name),
            None => self.default.or((self.all.len() == 1).then_some(0)),
        }
    }

    /// Whether a request for this host belongs on a connection that asked for this name (RFC 9110 section 15.5.20).
    pub fn covers(&self, server_name: Option<&str>, host: &str) -> bool {
        // The name itself was found when the connection began; a reload may have taken its certificate away since.
        if server_name == Some(host) {
            return self.of(host).is_some();
        }
        let shown = self.shown(server_name);
        shown.is_some() && shown == self.of(host)
    }

    /// Whether there is a certificate for a client that asks for this name.
    pub fn knows(&self, server_name: Option<&str>) -> bool {
        self.shown(server_name).is_some()
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls gives it in lower case.
        self.shown(hello.server_name()).map(|index| self.all[index].key.clone())
    }
}
