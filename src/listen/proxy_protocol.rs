//! The PROXY protocol, versions 1 and 2, from load balancers: who the other end of a connection speaks for.
//!
//! Decides who may say so, what becomes of those who may not or do not, and which facts are taken from a header. Does not read a
//! header byte by byte: that is the crate `proxy-header`. The bytes are looked at in the socket and taken out only once they are
//! a whole header, so that whatever follows (TLS, a request) finds its first byte where it expects it.

mod wait;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use proxy_header::{Error, ParseConfig, Protocol, ProxyHeader, SslInfo, Tlv};
use schemars::JsonSchema;
use serde::Deserialize;

use super::tls::facts::{ClientCertificate, TlsFacts};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::entry::client_ip::plain_network;
use crate::policy::ip_filter::Network;
use crate::report::metrics::series::Dropped;

pub(super) use self::wait::{Peek, spoken_for};

/// Load balancers that say who their client is with the PROXY protocol, version 1 or 2, before anything else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocolSettings {
    /// Networks of the load balancers. A header from anywhere else closes the connection.
    pub trusted: At<Vec<At<Network>>>,
    /// Whether each connection must begin with a header. With `false`, those that do not are clients of their own, from wherever they come. Default `true`.
    pub required: Option<bool>,
}

/// Who may say who the client is, and whether they must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    trusted: Vec<IpNet>,
    is_required: bool,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Bytes of the header.
    pub length: usize,
    /// The client; `None` where the load balancer speaks for itself, as in health checks, or does not know.
    pub client: Option<SocketAddr>,
    /// The TLS that the load balancer has ended.
    pub tls: Option<TlsFacts>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A beginning of a header, or nothing.
    Incomplete,
    Header(Box<Said>),
    /// Something else.
    NoHeader,
    /// A header by its first bytes, but not one that can be read.
    Invalid,
}

/// Most that a header may have: what load balancers send is below 1 KiB.
pub const MOST_BYTES: usize = 4 << 10;
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

// === impl ProxyProtocol ===

impl ProxyProtocol {
    pub(super) fn compile(settings: Option<&ProxyProtocolSettings>, mistakes: &mut Vec<Diagnostic>) -> Option<Arc<Self>> {
        let ProxyProtocolSettings { trusted, required } = settings?;
        if trusted.is_empty() {
            let message = "`trusted` is empty, so every header would be refused: expected the networks of the load balancers";
            mistakes.push(Diagnostic::at(&trusted.place, "empty-list", message));
        }
        let mut networks: Vec<IpNet> = Vec::new();
        for written in &trusted.value {
            let network = plain_network(written.0);
            if let Some(wider) = networks.iter().find(|known| known.contains(&network)) {
                let message = format!("`{network}` is in `{wider}` already: expected each network once");
                mistakes.push(Diagnostic::at(&written.place, "proxy-repeated", message));
            }
            networks.push(network);
        }
        Some(Arc::new(ProxyProtocol { trusted: networks, is_required: required.unwrap_or(true) }))
    }

    pub(super) fn trusts(&self, peer: SocketAddr) -> bool {
        let address = peer.ip().to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// What becomes of a connection that begins so: `Ok(None)` means that it speaks for itself.
    pub(super) fn judge(&self, peer: SocketAddr, read: Read) -> Result<Option<Said>, Dropped> {
        match (read, self.trusts(peer)) {
            (Read::Header(said), true) => Ok(Some(*said)),
            (Read::Invalid, true) => Err(Dropped::ProxyInvalid),
            (Read::Header(_) | Read::Invalid, false) => Err(Dropped::ProxyUntrusted),
            (Read::NoHeader, _) if !self.is_required => Ok(None),
            (Read::NoHeader, true) => Err(Dropped::ProxyMissing),
            // Where everybody must, and it may not.
            (Read::NoHeader, false) => Err(Dropped::ProxyUntrusted),
            (Read::Incomplete, _) => Err(Dropped::Cut),
        }
    }
}

/// Reads the beginning of a connection. Never changes its mind when more bytes come, but from `Incomplete`.
pub fn read(bytes: &[u8]) -> Read {
    let begins_as = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        (bytes[..common] == signature[..common]).then_some(bytes.len() >= signature.len())
    };
    match (begins_as(V1), begins_as(V2)) {
        (Some(true), _) => version_1(bytes),
        (_, Some(true)) => version_2(bytes),
        (Some(false), _) | (_, Some(false)) => Read::Incomplete,
        (None, None) => Read::NoHeader,
    }
}

const CONFIG: ParseConfig = ParseConfig { include_tlvs: true, allow_v1: true, allow_v2: true };

fn version_1(bytes: &[u8]) -> Read {
    // As long as it may be: more would make a longer one look complete, depending on how it comes.
    let bytes = &bytes[..bytes.len().min(107)];
    match ProxyHeader::parse(bytes, CONFIG) {
        // Numbers with a sign are taken by the crate; no load balancer writes them, and one reading of a header is enough.
        Ok((_, length)) if bytes[..length].contains(&b'+') => Read::Invalid,
        Ok((header, length)) => {
            Read::Header(Box::new(Said { length, client: header.proxied_address().map(|address| address.source), tls: None }))
        }
        Err(Error::BufferTooShort) => Read::Incomplete,
        Err(_) => Read::Invalid,
    }
}

fn version_2(bytes: &[u8]) -> Read {
    let Some(length) = bytes.get(14..16) else { return Read::Incomplete };
    let whole = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if whole > MOST_BYTES {
        return Read::Invalid;
    }
    let Some(bytes) = bytes.get(..whole) else { return Read::Incomplete };
    // All of it is here: where the crate asks for more, the header is shorter than its addresses.
    let Ok((header, length)) = ProxyHeader::parse(bytes, CONFIG) else { return Read::Invalid };
    let client = match header.proxied_address() {
        Some(address) if address.protocol == Protocol::Stream => Some(address.source),
        Some(_) => return Read::Invalid,
        None => None,
    };
    let Ok(tlvs) = header.tlvs().collect::<Result<Vec<_>, _>>() else { return Read::Invalid };
    let (mut ssl, mut authority) = (None, None);
    for tlv in &tlvs {
        match tlv {
            Tlv::Ssl(info) => ssl = Some(info),
            Tlv::Authority(name) => authority = Some(name),
            // The type is open; what is not used is passed over.
            _ => {}
        }
    }
    // `LOCAL` means the load balancer itself, whatever else is said.
    let is_local = bytes[12] & 0x0f == 0;
    let tls = match ssl.filter(|info| info.client_ssl() && !is_local) {
        Some(info) => match facts(info, authority) {
            Some(facts) => Some(facts),
            None => return Read::Invalid,
        },
        None => None,
    };
    Read::Header(Box::new(Said { length, client, tls }))
}

/// `None` where what is said cannot be read, or could not stand in a header or a log line.
fn facts(info: &SslInfo<'_>, authority: Option<&Cow<'_, str>>) -> Option<TlsFacts> {
    let (mut version, mut cipher, mut common_name) = ("", "", None);
    let tlvs = info.tlvs().collect::<Result<Vec<_>, _>>().ok()?;
    for tlv in &tlvs {
        match tlv {
            Tlv::SslVersion(text) => version = text.strip_prefix("TLSv").unwrap_or(text),
            Tlv::SslCipher(text) => cipher = text,
            Tlv::SslCn(text) => common_name = Some(&**text),
            _ => {}
        }
    }
    let texts = [version, cipher, common_name.unwrap_or_default(), authority.map_or("", |name| name)];
    if texts.iter().any(|text| text.chars().any(char::is_control)) {
        return None;
    }
    let is_verified = (info.client_cert_conn() || info.client_cert_sess()) && info.verify() == 0;
    let client = common_name.filter(|_| is_verified).map(|name| {
        Arc::new(ClientCertificate {
            subject: format!("CN={}", escape(name)),
            common_name: Some(name.to_owned()),
            is_told: true,
            ..ClientCertificate::default()
        })
    });
    Some(TlsFacts {
        version: Cow::Owned(version.to_owned()),
        cipher: Cow::Owned(cipher.to_owned()),
        server_name: authority.map(|name| name.to_ascii_lowercase().into()),
        is_resumed: false,
        client,
    })
}

/// RFC 4514 section 2.4.
fn escape(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (at, c) in value.chars().enumerate() {
        if matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') || (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests;
