//! Reads how a configuration says that another server is reached: its URL, a proxy in between, the certificates that are believed.
//!
//! Decides what everybody who asks others has in common: no plain http to another machine unless that is written, and nothing without effect.

use super::{Address, Trust, read_roots};
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::interpolate::read_beside;
use crate::config::types::At;

pub fn url(text: &At<String>, wrong: &mut Vec<Diagnostic>) -> Option<Address> {
    Address::parse(text).map_err(|why| wrong.push(Diagnostic::at(&text.place, "ask-url", format!("`{}` {why}", text.value)))).ok()
}

/// Whether it may be asked in plain http. `danger`: what somebody on the way could do.
pub fn plain(address: &Address, at: &Place, is_allowed: bool, danger: &str, wrong: &mut Vec<Diagnostic>) {
    if !address.is_safe() && !is_allowed {
        let message = format!("`{address}` is not https: {danger}");
        wrong.push(Diagnostic::at(at, "ask-plain", message).help("use https; `plain_http: true` says that the way is safe"));
    }
}

/// The same of a permission that nothing needs.
pub fn needless_plain(address: &Address, plain: Option<&At<bool>>, wrong: &mut Vec<Diagnostic>) {
    if let Some(plain) = plain.filter(|plain| plain.value && address.is_safe()) {
        wrong.push(Diagnostic::at(&plain.place, "inert", "`plain_http` has no effect: the URL is https or of this machine"));
    }
}

pub fn proxy(text: Option<&At<String>>, wrong: &mut Vec<Diagnostic>) -> Option<Address> {
    let text = text?;
    let address = url(text, wrong)?;
    if address.is_https || address.target != "/" {
        let message = "a proxy is spoken to in plain HTTP/1.1: expected `http://host:port`";
        wrong.push(Diagnostic::at(&text.place, "ask-url", message));
    }
    Some(address)
}

/// `whose`: whose certificates are meant. `address`: whom they are for, where only that is asked.
pub fn trust(ca: Option<&At<String>>, whose: &str, address: Option<&Address>, wrong: &mut Vec<Diagnostic>) -> Trust {
    let Some(file) = ca else { return Trust::System };
    if address.is_some_and(|address| !address.is_https) {
        wrong.push(Diagnostic::at(&file.place, "inert", "`ca` has no effect: the URL is not https"));
    }
    let read = read_beside(&file.place, file).and_then(|pem| read_roots(&pem));
    read.unwrap_or_else(|why| {
        let told = Diagnostic::at(&file.place, "ask-ca", format!("`{}` {why}", file.value));
        wrong.push(told.help(format!("expected the root certificates of the {whose} in PEM")));
        Trust::System
    })
}
