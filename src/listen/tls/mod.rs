//! TLS towards clients, ended here by rustls with aws-lc-rs.
//!
//! Decides what a listener's `tls:` means: certificates, versions, client certificates, tickets. Who gets which certificate is in
//! `choice.rs`, how a handshake goes in `handshake.rs` and what follows it in `stream.rs`, what of clients' certificates is believed in `clients.rs`.

pub mod certificate;
pub mod choice;
pub mod clients;
pub mod facts;
pub mod handshake;
pub mod misdirected;
pub mod names;
pub mod stream;
pub mod tickets;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use schemars::JsonSchema;
use serde::Deserialize;

use self::certificate::{Certificate, CertificateSettings};
use self::choice::Choice;
use self::clients::{Clients, ClientsSettings};
use self::tickets::{TicketKeys, Ticketer};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Rate};
use crate::listen::protocols::Protocols;

/// TLS on a listener.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// Certificates under names of your own. Which one a client gets is decided by the host names in them: exact before `*.`.
    pub certificates: BTreeMap<String, CertificateSettings>,
    /// The certificate for clients that ask for a name that is in none, or for no name. Without it, an unknown name is refused, and
    /// no name gets the certificate of a listener that has exactly one.
    pub default: Option<At<String>>,
    /// The oldest version that clients may speak: `1.2` (default) or `1.3`.
    pub minimum: Option<At<Minimum>>,
    /// How many handshakes may begin from one client address (v6 by /64), resumed ones too, at once and then in each period; what is more
    /// is closed at once. Default 200/s. Raise it where a load balancer connects for many without the PROXY protocol.
    pub handshakes_per_address: Option<At<Rate>>,
    /// Certificates of clients, for all certificates that do not say it themselves.
    pub client_certificates: Option<ClientsSettings>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Minimum {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// TLS as it runs on one listener.
#[derive(Debug)]
pub struct Tls {
    pub(crate) choice: Arc<Choice>,
    pub(in crate::listen) handshakes_per_address: Rate,
    /// Whether any client is asked for a certificate.
    asks: bool,
    handshakes: Handshakes,
}

/// What a handshake is done with.
#[derive(Debug)]
pub(in crate::listen) enum Handshakes {
    /// The same for every client.
    Alike(Arc<ServerConfig>),
    /// By the certificate that the client is shown, in their order; the first also for who is shown none.
    ByCertificate(Box<[Arc<ServerConfig>]>),
}

/// Some percent of a core's time; a crowd behind one address seldom connects as fast.
const HANDSHAKES_PER_ADDRESS: Rate = Rate { count: 200, per: Duration::from_secs(1) };

/// The one provider of cryptography.
pub static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    // A stable order: what is as strong as needed and costs the least first.
    provider.cipher_suites.sort_by_key(|suite| match suite.suite().as_str() {
        Some(name) if name.contains("AES_128_GCM") => 0,
        Some(_) | None => 1,
    });
    Arc::new(provider)
});

// === impl Tls ===

impl Tls {
    /// Reads what the settings name; all mistakes at once.
    ///
    /// # Errors
    /// What cannot be read, does not fit, or would be without effect.
    pub fn compile(settings: &TlsSettings, protocols: &Protocols, keys: &Arc<TicketKeys>) -> Result<Tls, Vec<Diagnostic>> {
        let TlsSettings { certificates, default, minimum, handshakes_per_address, client_certificates } = settings;
        let mut wrong = Vec::new();
        let mut read = Vec::new();
        let clients = client_certificates.as_ref().and_then(|settings| match Clients::compile(settings) {
            Ok(clients) => Some(Arc::new(clients)),
            Err(more) => {
                wrong.extend(more);
                None
            }
        });
        if let Some(all) = client_certificates
            && !certificates.is_empty()
            && certificates.values().all(|one| one.client_certificates.is_some())
        {
            let message = "`client_certificates` of the listener has no effect: each of its certificates has its own";
            wrong.push(Diagnostic::at(&all.ca.place, "inert", message));
        }
        for (name, settings) in certificates {
            match Certificate::compile(name, settings, clients.as_ref()) {
                Ok(certificate) => read.push(Arc::new(certificate)),
                Err(more) => wrong.extend(more),
            }
        }
        let is_complete = read.len() == certificates.len();
        let choice = match Choice::compile(read, certificates, default.as_ref(), is_complete) {
            Ok(choice) => Arc::new(choice),
            Err(more) => {
                wrong.extend(more);
                return Err(wrong);
            }
        };
        let versions: &[&SupportedProtocolVersion] = match minimum.as_ref().map(|minimum| minimum.value) {
            None | Some(Minimum::Tls12) => &[&TLS13, &TLS12],
            Some(Minimum::Tls13) => &[&TLS13],
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let set_up = |clients: Option<&Arc<Clients>>| {
            let builder = ServerConfig::builder_with_provider(PROVIDER.clone())
                .with_protocol_versions(versions)
                .map_err(|error| vec![Diagnostic::nowhere("tls-file", format!("TLS cannot be set up: {error}"))])?;
            let builder = match clients {
                Some(clients) => builder.with_client_cert_verifier(clients.verifier()),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(choice.clone());
            let spoken = [(protocols.http2, &b"h2"[..]), (protocols.http1, b"http/1.1")];
            config.alpn_protocols = spoken.iter().filter(|(is_spoken, _)| *is_spoken).map(|(_, name)| name.to_vec()).collect();
            // The server's order: it puts what is fast on this machine first.
            config.ignore_client_order = true;
            // All that is needed to resume is in the ticket, so that any number of clients can.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            // A ticket of one context is nothing in another; that one name's ticket is nothing for another is rustls' to see to.
            let context = clients.map(|clients| clients.digest);
            config.ticketer = Arc::new(Ticketer::new(keys.clone(), context));
            Ok::<_, Vec<Diagnostic>>(Arc::new(config))
        };
        let all = choice.all();
        let digest = |certificate: &Certificate| certificate.clients.as_ref().map(|clients| clients.digest);
        let handshakes = match all.split_first() {
            Some((first, rest)) if rest.iter().any(|other| digest(other) != digest(first)) => {
                Handshakes::ByCertificate(all.iter().map(|one| set_up(one.clients.as_ref())).collect::<Result<_, _>>()?)
            }
            first => Handshakes::Alike(set_up(first.and_then(|(first, _)| first.clients.as_ref()))?),
        };
        let asks = all.iter().any(|one| one.clients.is_some());
        let handshakes_per_address = handshakes_per_address.as_ref().map_or(HANDSHAKES_PER_ADDRESS, |rate| rate.value);
        Ok(Tls { choice, handshakes_per_address, asks, handshakes })
    }

    /// Whose certificates are believed from a client that asked for this name, or for none; none where it was not asked for one.
    pub fn clients(&self, server_name: Option<&str>) -> Option<&Arc<Clients>> {
        if self.asks { self.choice.for_name(server_name)?.clients.as_ref() } else { None }
    }

    /// The certificates, for whoever watches that they do not expire.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        self.choice.all()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tls {}
