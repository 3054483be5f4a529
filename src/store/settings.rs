//! What is written of a store, and what of it makes no sense.
//!
//! Decides that a store is in exactly one of three ways: one server, the master that Sentinels name, or a cluster. Connects to nobody.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::ask::{Trust, read_roots};
use crate::config::check::not_empty;
use crate::config::diagnostic::Diagnostic;
use crate::config::interpolate::read_beside;
use crate::config::types::{At, Secret};

/// A Redis or Valkey over which gateways share limits: `redis`, `sentinel` or `cluster`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// The host and port of one server, such as `10.0.0.5:6379`.
    pub redis: Option<At<String>>,
    /// Sentinels, which know the server that is the master.
    pub sentinel: Option<At<SentinelSettings>>,
    /// Hosts and ports of some nodes of a cluster; the others are learnt from them.
    pub cluster: Option<At<Vec<At<String>>>>,
    /// Its user, where it has more than one.
    pub username: Option<At<String>>,
    /// The user's password, such as `${file:/run/secrets/redis}`.
    pub password: Option<Secret>,
    /// Speak TLS with it, and with its Sentinels. `{}`: with the authorities that the system trusts.
    pub tls: Option<At<StoreTlsSettings>>,
    /// What its keys begin with; gateways with another one share nothing with these. Default `sluice`.
    pub prefix: Option<At<String>>,
}

/// The Sentinels of one master.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentinelSettings {
    /// What they call the master.
    pub master: At<String>,
    /// Their hosts and ports.
    pub at: At<Vec<At<String>>>,
    /// A user of the Sentinels themselves.
    pub username: Option<At<String>>,
    /// The password for the Sentinels themselves.
    pub password: Option<Secret>,
}

/// How a store is believed to be the one that is meant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreTlsSettings {
    /// A PEM file with the authorities that are believed, instead of the system's.
    pub ca: Option<At<String>>,
    /// The name that the certificate must have. Default: the host.
    pub server_name: Option<At<String>>,
}

/// The compiled form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub place: Place,
    pub login: Login,
    pub tls: Option<Tls>,
    pub prefix: String,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    One(Host),
    Sentinel { master: String, at: Vec<Host>, login: Login },
    Cluster(Vec<Host>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Without brackets.
    pub name: String,
    pub port: u16,
}

/// As whom it is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    pub username: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    pub trust: Trust,
    /// The authorities as they are written, for who reads them so.
    pub pem: Option<String>,
    pub server_name: Option<String>,
}

// === impl StoreSettings ===

/// What is wrong with the settings by themselves.
pub fn check(settings: &At<StoreSettings>, errors: &mut Vec<Diagnostic>) {
    let StoreSettings { redis, sentinel, cluster, username, password, tls, prefix: _ } = &settings.value;
    let written = [redis.as_ref().map(|at| &at.place), sentinel.as_ref().map(|at| &at.place), cluster.as_ref().map(|at| &at.place)];
    let mut written = written.into_iter().flatten();
    match (written.next(), written.next()) {
        (Some(_), None) => {}
        (None, _) => {
            let message = "nobody is named: expected `redis`, `sentinel` or `cluster`";
            errors.push(Diagnostic::at(&settings.place, "store-place", message));
        }
        (Some(_), Some(other)) => {
            let message = "a store is one server, the master that Sentinels name, or a cluster: expected one of them";
            errors.push(Diagnostic::at(other, "store-place", message));
        }
    }
    let mut login = |username: &Option<At<String>>, has_password: bool| {
        if let Some(username) = username.as_ref().filter(|_| !has_password) {
            let message = "`username` has no effect without a `password`";
            errors.push(Diagnostic::at(&username.place, "inert", message).help("add `password`"));
        }
    };
    login(username, password.is_some());
    if let Some(sentinel) = sentinel {
        login(&sentinel.value.username, sentinel.value.password.is_some());
        not_empty(&sentinel.value.at, &sentinel.value.at.place, "hosts and ports of Sentinels", errors);
    }
    if let Some(cluster) = cluster {
        not_empty(cluster, &cluster.place, "hosts and ports of nodes", errors);
    }
    let of_sentinels = sentinel.iter().flat_map(|sentinel| &sentinel.value.at.value);
    for host in redis.iter().chain(of_sentinels).chain(cluster.iter().flat_map(|cluster| &cluster.value)) {
        if Host::parse(&host.value).is_none() {
            let message = format!("`{}` is not a host and a port, such as `10.0.0.5:6379`", host.value);
            let mistake = Diagnostic::at(&host.place, "bad-target", message);
            errors.push(if host.value.contains("://") {
                mistake.help("write `host:port`, and `tls: {}` for `rediss://`")
            } else {
                mistake
            });
        }
    }
    if let Some(name) = tls.as_ref().and_then(|tls| tls.value.server_name.as_ref()) {
        if rustls::pki_types::ServerName::try_from(name.value.as_str()).is_err() {
            let message = format!("`{}` is not a name that a certificate could have", name.value);
            errors.push(Diagnostic::at(&name.place, "bad-host", message));
        } else if cluster.is_some() {
            let message = "`server_name` has no effect: nodes of a cluster must have the names that the cluster tells of them";
            errors.push(Diagnostic::at(&name.place, "inert", message).help("remove it"));
        }
    }
}

// === impl Store ===

impl Store {
    /// # Errors
    /// What is only found by reading its files.
    pub fn compile(settings: &At<StoreSettings>) -> Result<Store, Vec<Diagnostic>> {
        let StoreSettings { redis, sentinel, cluster, username, password, tls, prefix } = &settings.value;
        let login = |username: &Option<At<String>>, password: &Option<Secret>| Login {
            username: username.as_ref().map(|at| at.value.clone()),
            password: password.clone(),
        };
        let hosts = |all: &[At<String>]| all.iter().filter_map(|host| Host::parse(&host.value)).collect::<Vec<_>>();
        let place = match (redis, sentinel, cluster) {
            (Some(host), None, None) => Host::parse(&host.value).map(Place::One),
            (None, Some(At { value: SentinelSettings { master, at, username, password }, .. }), None) => {
                Some(Place::Sentinel { master: master.value.clone(), at: hosts(&at.value), login: login(username, password) })
            }
            (None, None, Some(nodes)) => Some(Place::Cluster(hosts(&nodes.value))),
            (Some(_) | None, Some(_) | None, Some(_) | None) => None,
        };
        let tls = tls.as_ref().map(|tls| {
            let StoreTlsSettings { ca, server_name } = &tls.value;
            let server_name = server_name.as_ref().map(|name| name.value.clone());
            let Some(file) = ca else { return Ok(Tls { trust: Trust::System, pem: None, server_name }) };
            let read = read_beside(&file.place, file).and_then(|pem| Ok((read_roots(&pem)?, pem)));
            read.map(|(trust, pem)| Tls { trust, pem: Some(pem), server_name }).map_err(|why| {
                let help = "expected the certificates of the authorities in PEM";
                vec![Diagnostic::at(&file.place, "tls-file", format!("`{}` {why}", file.value)).help(help)]
            })
        });
        // Told by the check.
        let Some(place) = place else { return Err(Vec::new()) };
        Ok(Store {
            place,
            login: login(username, password),
            tls: tls.transpose()?,
            prefix: prefix.as_ref().map_or_else(|| "sluice".to_owned(), |prefix| prefix.value.clone()),
        })
    }
}

/// Where it is, for people.
impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |hosts: &[Host]| hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(", ");
        match &self.place {
            Place::One(host) => write!(f, "{host}"),
            Place::Sentinel { master, at, login: _ } => write!(f, "{master} of {}", all(at)),
            Place::Cluster(nodes) => write!(f, "the cluster of {}", all(nodes)),
        }
    }
}

// === impl Host ===

impl Host {
    pub fn parse(text: &str) -> Option<Host> {
        let (name, port) = text.rsplit_once(':')?;
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if bare.is_none() && name.contains([':', '/', '@', ' ']) {
            return None;
        }
        let name = bare.unwrap_or(name);
        Some(Host { name: name.to_owned(), port: port.parse().ok()? }).filter(|host| !host.name.is_empty())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') { write!(f, "[{}]:{}", self.name, self.port) } else { write!(f, "{}:{}", self.name, self.port) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_port_and_nothing_else() {
        for (text, shown) in [("a.example:1", Some("a.example:1")), ("[::1]:6379", Some("[::1]:6379"))] {
            assert_eq!(Host::parse(text).map(|host| host.to_string()).as_deref(), shown);
        }
        for text in ["", ":1", "a", "a:", "a:x", "::1:6379", "redis://a:1", "user@a:1", "[]:1"] {
            assert_eq!(Host::parse(text), None, "{text}");
        }
    }
}
