//! What must hold for any input at all, one file per fuzz target. Each has `hold`, which panics where it does not.
//!
//! The fuzz targets call them with inputs that they make up, `tests/it/corpora.rs` with those that are kept in `fuzz/corpus`.

pub mod canonical;
pub mod chunks;
pub mod client_address;
pub mod config;
pub mod head;
pub mod proxy_protocol;
pub mod request;
pub mod route;
pub mod token;
pub mod values;

use std::sync::LazyLock;

use http::{HeaderMap, HeaderName, HeaderValue};
use sluice::config::compile;
use sluice::config::diagnostic::render;
use sluice::config::plan::Gateway;
use sluice::state::State;

/// A property, and the name of its target and of its folder of inputs.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 10] = [
    ("canonical", canonical::hold),
    ("chunks", chunks::hold),
    ("client_address", client_address::hold),
    ("config", config::hold),
    ("head", head::hold),
    ("proxy_protocol", proxy_protocol::hold),
    ("request", request::hold),
    ("route", route::hold),
    ("token", token::hold),
    ("values", values::hold),
];

/// What the targets ask that need a configuration.
static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| load(include_str!("gateway.yaml")));

/// A configuration of ours, compiled.
fn load(text: &str) -> Gateway {
    let compiled = compile::load_text("gateway.yaml", text, &|_| None, &State::default());
    compiled.unwrap_or_else(|wrong| panic!("{}", render(&wrong, false)))
}

/// Lines of `name: value`; those that are no header are passed over.
fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// Where an input is cut in two: everywhere if it is short, else at 128 places.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..=length).step_by(length / 128 + 1)
}
