//! Where the targets of an upstream are found that its configuration does not list: in a file, in DNS, in Consul, in Kubernetes.
//!
//! Decides how a source is written and that an upstream has one. What an answer means is decided by each source, what becomes of it in
//! `follow.rs`. Does not decide whether a target works (`health`) nor which gets a request (`balance.rs`).

mod consul;
pub mod file;
pub mod follow;
pub mod found;
mod kubernetes;
mod server;
mod srv;

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use self::consul::{Consul, ConsulSettings};
use self::file::TargetsFile;
use self::kubernetes::{Kubernetes, KubernetesSettings};
use self::srv::Srv;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::types::At;
use crate::relay::targets::members::Member;

/// Where targets are found. Exactly one of `file`, `srv`, `consul` and `kubernetes`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetsFromSettings {
    /// A file that lists targets as `targets` does. It is read again whenever it changes, without a reload; a file that cannot be used changes
    /// nothing.
    pub file: Option<At<String>>,
    /// The name of SRV records, such as `_http._tcp.orders.internal`: they tell host, port, weight and priority of each target.
    pub srv: Option<At<String>>,
    /// The instances of a service that pass their checks in Consul's catalogue.
    pub consul: Option<At<ConsulSettings>>,
    /// The ready endpoints of a service of Kubernetes.
    pub kubernetes: Option<At<KubernetesSettings>>,
    /// Targets that are taken out where they are found, such as `10.0.0.7:8080`: they get no new requests, and end those that they have.
    pub drain: Option<At<Vec<At<String>>>>,
}

/// Where targets are found, as it runs. Two that are equal find the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(TargetsFile),
    Srv(Srv),
    Consul(Box<Consul>),
    Kubernetes(Box<Kubernetes>),
}

/// More targets than any upstream has; an answer with more is not used.
pub const MOST: usize = 10_000;

// === impl Source ===

impl Source {
    /// The source, and what was found in it already: a file is read at once. `has_name`: whether targets need none of their own for TLS.
    pub fn compile(settings: &At<TargetsFromSettings>, has_name: bool, wrong: &mut Vec<Diagnostic>) -> Option<(Source, Vec<Member>)> {
        let TargetsFromSettings { file, srv, consul, kubernetes, drain: _ } = &settings.value;
        let written = [file.is_some(), srv.is_some(), consul.is_some(), kubernetes.is_some()];
        if written.iter().filter(|is_written| **is_written).count() != 1 {
            let message = "expected exactly one of `file`, `srv`, `consul` and `kubernetes`";
            wrong.push(mistake(&settings.place, message));
            return None;
        }
        if let Some(file) = file {
            let file_of = TargetsFile::new(file, has_name);
            return match file_of.read() {
                Ok(members) => Some((Source::File(file_of), members)),
                Err(found) => {
                    wrong.extend(found.into_iter().map(|one| if one.place.is_some() { one } else { mistake(&file.place, one.message) }));
                    None
                }
            };
        }
        let source = None
            .or_else(|| srv.as_ref().map(|srv| Srv::compile(srv, wrong).map(Source::Srv)))
            .or_else(|| consul.as_ref().map(|consul| Consul::compile(consul, wrong).map(|consul| Source::Consul(Box::new(consul)))))
            .or_else(|| kubernetes.as_ref().map(|one| Kubernetes::compile(one, wrong).map(|one| Source::Kubernetes(Box::new(one)))));
        source.flatten().map(|source| (source, Vec::new()))
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(file) => file.fmt(f),
            Source::Srv(srv) => srv.fmt(f),
            Source::Consul(consul) => consul.fmt(f),
            Source::Kubernetes(kubernetes) => kubernetes.fmt(f),
        }
    }
}

fn mistake(place: &Place, message: impl Into<String>) -> Diagnostic {
    Diagnostic::at(place, "targets-from", message)
}
