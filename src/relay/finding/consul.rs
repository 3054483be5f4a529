//! Targets from Consul: the instances of a service that pass their checks, by blocking queries.
//!
//! Decides what an instance becomes and when it is asked again. That none passes is believed: what was there may serve others by now.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::sleep;

use super::follow::Follower;
use super::found::Resume;
use super::server::{Server, is_plain_word};
use crate::ask::{Question, Reply, ask};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Secret};
use crate::relay::targets::address::Address;
use crate::relay::targets::members::Member;

/// A service in Consul's catalogue.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsulSettings {
    /// Its name.
    pub service: At<String>,
    /// Only instances with this tag.
    pub tag: Option<At<String>>,
    /// Of which datacenter. Default: that of the agent.
    pub datacenter: Option<At<String>>,
    /// Where Consul is asked. Default `http://127.0.0.1:8500`, the agent of this machine; over the network, https only.
    pub address: Option<At<String>>,
    /// A token that may read the service, such as `${file:/run/secrets/consul}`.
    pub token: Option<Secret>,
    /// Who may have signed Consul's certificate, in PEM. Default: whom the system trusts.
    pub ca: Option<At<String>>,
}

/// A service in Consul, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consul {
    service: Arc<str>,
    tag: Option<Arc<str>>,
    datacenter: Option<Arc<str>>,
    server: Server,
    token: Option<Secret>,
}

/// How long Consul may hold a question back when nothing changes. It adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);
/// For everything else.
const PATIENCE: Duration = Duration::from_secs(10);
/// Two answers are not closer: a service that changes all the time is asked once a second.
const APART: Duration = Duration::from_secs(1);
const LARGEST: usize = 16 << 20;

/// The part of an entry of `/v1/health/service` that is of interest.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Node")]
    node: Node,
    #[serde(rename = "Service")]
    service: Instance,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Meta", default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Instance {
    #[serde(rename = "Address", default)]
    address: String,
    #[serde(rename = "Port", default)]
    port: u32,
    #[serde(rename = "Weights", default)]
    weights: Option<Weights>,
    #[serde(rename = "Meta", default)]
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Weights {
    #[serde(rename = "Passing", default)]
    passing: u32,
}

#[derive(Deserialize)]
struct Meta {
    zone: Option<String>,
}

// === impl Consul ===

impl Consul {
    pub(super) fn compile(settings: &At<ConsulSettings>, wrong: &mut Vec<Diagnostic>) -> Option<Consul> {
        let ConsulSettings { service, tag, datacenter, address, token, ca } = &settings.value;
        for word in [Some(service), tag.as_ref(), datacenter.as_ref()].into_iter().flatten() {
            if !is_plain_word(&word.value) {
                let message = "not a name: expected letters, digits, `-`, `_` and `.`";
                wrong.push(super::mistake(&word.place, message));
            }
        }
        let server = Server::compile(address.as_ref(), "http://127.0.0.1:8500", ca.as_ref(), wrong)?;
        let word = |word: &Option<At<String>>| word.as_ref().map(|word| word.value.as_str().into());
        Some(Consul { service: service.value.as_str().into(), tag: word(tag), datacenter: word(datacenter), server, token: token.clone() })
    }

    pub(super) async fn ask_once(&self) -> Result<(Vec<Member>, u64), String> {
        self.ask(0).await
    }

    /// The targets and the index of the answer. With an index, the answer comes when there is a newer one, or after a minute.
    async fn ask(&self, index: u64) -> Result<(Vec<Member>, u64), String> {
        let mut target = format!("/v1/health/service/{}?passing=1", self.service);
        if index > 0 {
            target.push_str(&format!("&index={index}&wait={}s", WAIT.as_secs()));
        }
        for (name, value) in [("tag", &self.tag), ("dc", &self.datacenter)] {
            if let Some(value) = value {
                target.push_str(&format!("&{name}={value}"));
            }
        }
        let address = self.server.at(target);
        let mut headers = Vec::new();
        if let Some(token) = &self.token {
            let value = HeaderValue::from_str(token.reveal()).map_err(|_| "the token is no value of a header".to_owned())?;
            headers.push((HeaderName::from_static("x-consul-token"), value));
        }
        let deadline = if index > 0 { WAIT + WAIT / 16 + PATIENCE } else { PATIENCE };
        let question = Question { method: Method::GET, address: &address, headers, body: Default::default(), deadline, largest: LARGEST };
        let reply = ask(&self.server.way, &question).await?;
        Ok((read(&reply)?, index_of(&reply)))
    }

    pub(super) async fn keep(&self, follower: &mut Follower) {
        let mut index = match follower.found.resume() {
            Some(Resume::Consul(index)) => index,
            Some(Resume::Kubernetes(_)) | None => 0,
        };
        loop {
            let pause = match self.ask(index).await {
                Ok((members, new)) => {
                    follower.answered(members);
                    // An index that goes back is another history.
                    index = if new < index { 0 } else { new };
                    APART
                }
                Err(why) => {
                    index = 0;
                    follower.failed(why)
                }
            };
            sleep(pause).await;
        }
    }
}

impl fmt::Display for Consul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "consul {} at {}", self.service, self.server.address.endpoint())
    }
}

fn index_of(reply: &Reply) -> u64 {
    let index = reply.headers.get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
    index.unwrap_or(0)
}

/// One instance that cannot be used hides none of the others.
fn read(reply: &Reply) -> Result<Vec<Member>, String> {
    if reply.status != http::StatusCode::OK {
        return Err(format!("answered {}", reply.status.as_u16()));
    }
    let entries: Vec<Entry> = serde_json::from_slice(&reply.body).map_err(|e| format!("not the answer of Consul: {e}"))?;
    let mut members = Vec::with_capacity(entries.len());
    for Entry { node, service } in entries {
        let host = if service.address.is_empty() { &node.address } else { &service.address };
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.clone() };
        let Ok(address) = Address::parse(&format!("{host}:{}", service.port)) else {
            log::warn!("consul: an instance at `{}` has no address and port that could be used", host.escape_debug());
            continue;
        };
        let weight = service.weights.and_then(|weights| NonZeroU16::new(weights.passing.min(u32::from(u16::MAX)) as u16));
        let zone = service.meta.and_then(|meta| meta.zone).or(node.meta.and_then(|meta| meta.zone));
        members.push(Member { address, weight: weight.unwrap_or(NonZeroU16::MIN), drain: false, priority: 0, zone: zone.map(Into::into) });
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply { status: http::StatusCode::from_u16(status).unwrap(), headers: Default::default(), body: body.to_owned().into() }
    }

    #[test]
    fn an_instance_is_a_target_with_its_weight_and_zone() {
        let body = r#"[
            {"Node": {"Node": "n1", "Address": "10.0.0.1", "Meta": {"zone": "a", "x": "y"}}, "Service": {"ID": "1", "Address": "", "Port": 80, "Weights": {"Passing": 10, "Warning": 1}}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"Address": "orders-2.internal", "Port": 81, "Meta": {"zone": "b"}}},
            {"Node": {"Address": "10.0.0.3"}, "Service": {"Address": "::1", "Port": 82, "Weights": {"Passing": 0}}},
            {"Node": {"Address": "10.0.0.4"}, "Service": {"Port": 0}}
        ]"#;
        let found = read(&reply(200, body)).unwrap();
        let told: Vec<_> = found.iter().map(|one| (&*one.address.text, one.weight.get(), one.zone.as_deref())).collect();
        assert_eq!(told, [("10.0.0.1:80", 10, Some("a")), ("orders-2.internal:81", 1, Some("b")), ("[::1]:82", 1, None)]);
        assert_eq!(read(&reply(200, "[]")).unwrap(), []);
        assert_eq!(read(&reply(403, "ACL not found")).unwrap_err(), "answered 403");
        assert!(read(&reply(200, "{}")).unwrap_err().starts_with("not the answer of Consul"));
    }
}
