//! What asking Consul and asking Kubernetes have in common: where the server is and how it is believed.
//!
//! Decides that nothing is asked over the network in plain text: who can change an answer decides where requests go.

use crate::ask::{Address, Trust, Way, read_roots};
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_beside;
use crate::config::types::At;

/// A server that knows targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: Address,
    pub way: Way,
}

// === impl Server ===

impl Server {
    /// `address` may be a default; then it has no place.
    pub fn compile(written: Option<&At<String>>, default: &str, ca: Option<&At<String>>, wrong: &mut Vec<Diagnostic>) -> Option<Server> {
        let text = written.map_or(default, |written| &written.value);
        let address = match Address::parse(text) {
            Ok(address) if address.target == "/" => address,
            Ok(_) | Err(_) if written.is_none() => return None,
            Ok(_) => {
                wrong
                    .extend(written.map(|at| super::mistake(&at.place, format!("{text} has a path: expected scheme, host and port only"))));
                return None;
            }
            Err(why) => {
                wrong.extend(written.map(|at| super::mistake(&at.place, format!("`{text}` {why}"))));
                return None;
            }
        };
        if let (false, Some(at)) = (address.is_safe(), written) {
            let message = format!("{address} would be asked in plain text: whoever can change the answer decides where requests go");
            wrong.push(super::mistake(&at.place, message).help("use https, or a server on this machine"));
        }
        let trust = match ca {
            None => Trust::System,
            Some(file) => match read_beside(&file.place, file).and_then(|pem| read_roots(&pem)) {
                Ok(trust) => trust,
                Err(why) => {
                    wrong.push(super::mistake(&file.place, format!("`{}` {why}", file.value)));
                    return None;
                }
            },
        };
        if let (Some(ca), false) = (ca, address.is_https) {
            wrong.push(super::mistake(&ca.place, format!("`ca` has no effect here: {address} is not asked over TLS")));
        }
        Some(Server { address, way: Way { proxy: None, trust } })
    }

    /// The same server, asked for something else.
    pub fn at(&self, target: String) -> Address {
        Address { target, ..self.address.clone() }
    }
}

/// What may stand in a path or query as it is.
pub fn is_plain_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 253 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
