//! Targets from Kubernetes: the ready endpoints of a service, by a list of its EndpointSlices and a watch from there on.
//!
//! Decides what an endpoint becomes and when it is listed anew. That none is ready is believed: the address of a pod that is gone may be
//! another service's by now.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use super::follow::Follower;
use super::found::Resume;
use super::server::{Server, is_plain_word};
use crate::ask::{Lines, Question, ask, follow_lines};
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::relay::targets::address::Address;
use crate::relay::targets::members::Member;

/// A service of Kubernetes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KubernetesSettings {
    /// Its name.
    pub service: At<String>,
    /// Its namespace.
    pub namespace: At<String>,
    /// The name of its port. Needed where it has several.
    pub port: Option<At<String>>,
    /// Where the API is. Default `https://kubernetes.default.svc`, as pods know it.
    pub address: Option<At<String>>,
    /// A file with the token of an account that may list and watch `endpointslices`; it is read for each question, because it is renewed. Default
    /// `/var/run/secrets/kubernetes.io/serviceaccount/token`.
    pub token_file: Option<At<String>>,
    /// Who may have signed the certificate of the API, in PEM. Default: whom the system trusts; in a pod,
    /// `/var/run/secrets/kubernetes.io/serviceaccount/ca.crt`.
    pub ca: Option<At<String>>,
}

/// A service of Kubernetes, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    service: Arc<str>,
    namespace: Arc<str>,
    port: Option<Arc<str>>,
    server: Server,
    token_file: PathBuf,
}

const IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// For a list, and for the head of a watch.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a watch may take; the API ends it then.
const WATCH: Duration = Duration::from_secs(240);
/// Bytes of a list, or of a line of a watch.
const LARGEST: usize = 16 << 20;
/// Changes that come so close together are one.
const TOGETHER: Duration = Duration::from_millis(100);
/// Watches that end at once are not begun more often.
const APART: Duration = Duration::from_secs(1);
const PAGE: usize = 500;

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Slice>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    more: Option<String>,
}

#[derive(Deserialize)]
struct Meta {
    name: String,
    #[serde(default, rename = "resourceVersion")]
    resource_version: String,
}

/// `discovery.k8s.io/v1 EndpointSlice`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Meta,
    #[serde(default)]
    address_type: String,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    zone: Option<String>,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    name: Option<String>,
    port: Option<u16>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct Event<T> {
    object: T,
}

#[derive(Deserialize)]
struct EventKind {
    r#type: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMeta,
}

/// The slices of the service as they are known, and since when.
#[derive(Debug, Default)]
pub(super) struct Slices {
    slices: BTreeMap<String, Vec<Member>>,
    version: String,
}

/// Why a watch ended.
enum End {
    /// In order: it goes on from the last version.
    Over,
    /// What is known is too old to go on from.
    Gone,
    Failed(String),
}

// === impl Kubernetes ===

impl Kubernetes {
    pub(super) fn compile(settings: &At<KubernetesSettings>, wrong: &mut Vec<Diagnostic>) -> Option<Kubernetes> {
        let KubernetesSettings { service, namespace, port, address, token_file, ca } = &settings.value;
        for word in [Some(service), Some(namespace), port.as_ref()].into_iter().flatten() {
            if !is_plain_word(&word.value) {
                let message = "not a name: expected letters, digits, `-`, `_` and `.`";
                wrong.push(super::mistake(&word.place, message));
            }
        }
        let own_ca = Path::new(IN_POD).join("ca.crt");
        let in_pod = At { value: own_ca.display().to_string(), place: service.place.clone() };
        let ca = ca.as_ref().or_else(|| (address.is_none() && own_ca.exists()).then_some(&in_pod));
        let server = Server::compile(address.as_ref(), "https://kubernetes.default.svc", ca, wrong)?;
        let beside = |file: &At<String>| file.place.source.path.parent().unwrap_or(Path::new("")).join(&file.value);
        Some(Kubernetes {
            service: service.value.as_str().into(),
            namespace: namespace.value.as_str().into(),
            port: port.as_ref().map(|port| port.value.as_str().into()),
            server,
            token_file: token_file.as_ref().map_or_else(|| Path::new(IN_POD).join("token"), beside),
        })
    }

    fn question<'a>(&self, address: &'a crate::ask::Address) -> Result<Question<'a>, String> {
        let token = std::fs::read_to_string(&self.token_file)
            .map_err(|e| format!("the token in `{}` cannot be read: {}", self.token_file.display(), crate::config::interpolate::why(&e)))?;
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).map_err(|_| "the token is no token".to_owned())?;
        value.set_sensitive(true);
        let headers = vec![(AUTHORIZATION, value)];
        Ok(Question { method: Method::GET, address, headers, body: Default::default(), deadline: PATIENCE, largest: LARGEST })
    }

    fn target(&self, more: &str) -> String {
        let Kubernetes { service, namespace, .. } = self;
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}{more}"
        )
    }

    pub(super) async fn list(&self) -> Result<Slices, String> {
        let mut known = Slices::default();
        let mut more = String::new();
        loop {
            let address = self.server.at(self.target(&format!("&limit={PAGE}{more}")));
            let reply = ask(&self.server.way, &self.question(&address)?).await?;
            if reply.status != StatusCode::OK {
                return Err(format!("answered {}", reply.status.as_u16()));
            }
            let List { metadata, items } = parse(&reply.body)?;
            for slice in items {
                let members = self.members(&slice)?;
                known.slices.insert(slice.metadata.name, members);
            }
            known.version = metadata.resource_version;
            match metadata.more.filter(|more| !more.is_empty()) {
                Some(next) if known.slices.len() <= super::MOST => more = format!("&continue={}", escaped(&next)),
                Some(_) => return Err("more slices than there can be targets".to_owned()),
                None => return Ok(known),
            }
        }
    }

    /// The ready endpoints of a slice.
    fn members(&self, slice: &Slice) -> Result<Vec<Member>, String> {
        let endpoints = slice.endpoints.as_deref().unwrap_or_default();
        if endpoints.is_empty() || !matches!(slice.address_type.as_str(), "IPv4" | "IPv6") {
            return Ok(Vec::new());
        }
        let tcp = |port: &&Port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let ports: Vec<_> = slice.ports.iter().flatten().filter(tcp).collect();
        let port = match (&self.port, ports.as_slice()) {
            (None, [one]) => one.port,
            (None, []) => return Ok(Vec::new()),
            (None, _) => return Err(format!("the service has {} ports: expected `port` to name one", ports.len())),
            (Some(name), _) => match ports.iter().find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.port,
                None => return Err(format!("the service has no port `{name}`")),
            },
        };
        let Some(port) = port else { return Err("a port without a number".to_owned()) };
        let ready = endpoints.iter().filter(|endpoint| endpoint.conditions.ready != Some(false));
        let member = |endpoint: &Endpoint| {
            // All of an endpoint's addresses lead to the same pod; the first is the one to use.
            let ip: std::net::IpAddr = endpoint.addresses.first()?.parse().ok()?;
            let address = Address::parse(&std::net::SocketAddr::new(ip, port).to_string()).ok()?;
            Some(Member { address, weight: NonZeroU16::MIN, drain: false, priority: 0, zone: endpoint.zone.as_deref().map(Into::into) })
        };
        Ok(ready.filter_map(member).collect())
    }

    pub(super) async fn keep(&self, follower: &mut Follower) {
        let mut resumed = match follower.found.resume() {
            Some(Resume::Kubernetes(slices)) => Some(slices),
            Some(Resume::Consul(_)) | None => None,
        };
        loop {
            let mut known = match resumed.take() {
                Some(known) => known,
                None => match self.list().await {
                    Ok(known) => {
                        follower.answered(known.members());
                        known
                    }
                    Err(why) => {
                        sleep(follower.failed(why)).await;
                        continue;
                    }
                },
            };
            loop {
                let began = Instant::now();
                match self.watch(&mut known, follower).await {
                    End::Over => tokio::time::sleep_until(began + APART).await,
                    End::Gone => {
                        tokio::time::sleep_until(began + APART).await;
                        break;
                    }
                    End::Failed(why) => sleep(follower.failed(why)).await,
                }
            }
        }
    }

    /// One watch from the version that is known.
    async fn watch(&self, known: &mut Slices, follower: &mut Follower) -> End {
        let seconds = WATCH.as_secs();
        let version = escaped(&known.version);
        let more = format!("&watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
        let address = self.server.at(self.target(&more));
        let question = match self.question(&address) {
            Ok(question) => question,
            Err(why) => return End::Failed(why),
        };
        let mut lines = match follow_lines(&self.server.way, &question).await {
            Ok(lines) => lines,
            Err(why) => return End::Failed(why),
        };
        match lines.status {
            StatusCode::OK => follower.answered(known.members()),
            StatusCode::GONE => return End::Gone,
            status => return End::Failed(format!("answered {}", status.as_u16())),
        }
        loop {
            let mut end = match self.take(&mut lines, known, WATCH + PATIENCE).await {
                Ok(end) => end,
                Err(why) => Some(End::Failed(why)),
            };
            // A rollout changes many endpoints one after the other.
            let until = Instant::now() + TOGETHER;
            while end.is_none() {
                match timeout_at(until, self.take(&mut lines, known, WATCH)).await {
                    Err(_) => break,
                    Ok(Ok(next)) => end = next,
                    Ok(Err(why)) => end = Some(End::Failed(why)),
                }
            }
            match end {
                None | Some(End::Over) => follower.answered(known.members()),
                Some(End::Gone | End::Failed(_)) => {}
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// The next event.
    async fn take(&self, lines: &mut Lines, known: &mut Slices, within: Duration) -> Result<Option<End>, String> {
        let Some(line) = lines.next(within).await? else { return Ok(Some(End::Over)) };
        let EventKind { r#type } = parse(&line)?;
        match r#type.as_str() {
            "ADDED" | "MODIFIED" => {
                let Event::<Slice> { object } = parse(&line)?;
                let members = self.members(&object)?;
                known.version = object.metadata.resource_version;
                known.slices.insert(object.metadata.name, members);
            }
            "DELETED" => {
                let Event::<Slice> { object } = parse(&line)?;
                known.version = object.metadata.resource_version;
                known.slices.remove(&object.metadata.name);
            }
            "BOOKMARK" => {
                let Event::<Bookmark> { object } = parse(&line)?;
                known.version = object.metadata.resource_version;
            }
            "ERROR" => {
                let Event::<Status> { object } = parse(&line)?;
                // 410: the version is too old, which happens to whoever has slept.
                if object.code == 410 {
                    return Ok(Some(End::Gone));
                }
                return Err(format!("the watch ended with {}: {}", object.code, object.message.escape_debug()));
            }
            other => return Err(format!("an event `{}` that is not known", other.escape_debug())),
        }
        Ok(None)
    }
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kubernetes {}/{} at {}", self.namespace, self.service, self.server.address.endpoint())
    }
}

// === impl Slices ===

impl Slices {
    /// Each address once: while an endpoint moves, it is in two slices.
    pub(super) fn members(&self) -> Vec<Member> {
        let all: HashMap<_, _> = self.slices.values().flatten().map(|member| (member.address.text.clone(), member)).collect();
        all.into_values().cloned().collect()
    }
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    serde_json::from_slice(json).map_err(|e| format!("not an answer of Kubernetes: {e}"))
}

/// For a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(port: Option<&str>) -> Kubernetes {
        let server = Server::compile(None, "https://kubernetes.default.svc", None, &mut Vec::new()).unwrap();
        Kubernetes { service: "orders".into(), namespace: "shop".into(), port: port.map(Into::into), server, token_file: "token".into() }
    }

    fn slice(ports: &str) -> Slice {
        serde_json::from_str(&format!(
            r#"{{"metadata": {{"name": "orders-abc", "resourceVersion": "7"}}, "addressType": "IPv4", "ports": {ports}, "endpoints": [
                {{"addresses": ["10.0.0.1"], "conditions": {{"ready": true}}, "zone": "a"}},
                {{"addresses": ["10.0.0.2"], "conditions": {{"ready": false, "serving": true, "terminating": true}}}},
                {{"addresses": ["10.0.0.3"]}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn an_endpoint_that_is_ready_is_a_target_in_its_zone() {
        let found = service(None).members(&slice(r#"[{"name": "", "port": 80}]"#)).unwrap();
        let told: Vec<_> = found.iter().map(|one| (&*one.address.text, one.zone.as_deref())).collect();
        assert_eq!(told, [("10.0.0.1:80", Some("a")), ("10.0.0.3:80", None)]);
    }

    #[test]
    fn a_port_is_named_where_there_are_several() {
        let two = slice(
            r#"[{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "admin", "port": 81}, {"name": "dns", "port": 53, "protocol": "UDP"}]"#,
        );
        assert!(service(None).members(&two).unwrap_err().contains("2 ports"));
        assert_eq!(&*service(Some("admin")).members(&two).unwrap()[0].address.text, "10.0.0.1:81");
        assert!(service(Some("dns")).members(&two).is_err());
    }
}
