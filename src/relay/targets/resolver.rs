//! Asks name servers: the system's, or those that a configuration names.
//!
//! Decides whom to ask and how long an answer holds: as its TTL says, between a floor and a ceiling. Does not decide what a failure means
//! nor when to ask again: see `discovery.rs` and `finding/`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::diagnostic::Diagnostic;
use crate::config::types::{At, Period};
use crate::relay::upstream::in_range;

/// How names of targets are looked up.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolverSettings {
    /// The name servers to ask, such as `[10.0.0.2, \"10.0.0.3:5353\"]`. Default: those of `/etc/resolv.conf`, after `/etc/hosts`.
    pub servers: Option<At<Vec<At<String>>>>,
    /// An answer is used for so long at least, whatever its TTL says. Default 1s.
    pub ttl_floor: Option<At<Period>>,
    /// An answer is used for so long at most, whatever its TTL says. Default 60s.
    pub ttl_ceiling: Option<At<Period>>,
}

/// How names are looked up, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookUps {
    /// Empty: the system's.
    servers: Vec<SocketAddr>,
    floor: Duration,
    ceiling: Duration,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    asker: Result<Arc<TokioResolver>, Arc<str>>,
    pub look_ups: LookUps,
}

/// What an SRV record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    pub host: String,
}

/// A name server listens there.
const DNS_PORT: u16 = 53;
/// How long a name server may take before it is asked once more.
const PATIENCE: Duration = Duration::from_secs(2);
const IN_ALL: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(1);

// === impl LookUps ===

impl LookUps {
    pub fn compile(settings: Option<&ResolverSettings>) -> Result<LookUps, Vec<Diagnostic>> {
        let absent = ResolverSettings::default();
        let ResolverSettings { servers, ttl_floor, ttl_ceiling } = settings.unwrap_or(&absent);
        let mut wrong = Vec::new();
        let mut asked = Vec::new();
        if let Some(servers) = servers {
            if servers.value.is_empty() {
                wrong.push(Diagnostic::at(&servers.place, "empty-list", "an empty list: expected name servers, such as `[10.0.0.2]`"));
            }
            for server in &servers.value {
                let parsed = server.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(server.parse().ok()?, DNS_PORT)));
                match parsed {
                    Some(address) if asked.contains(&address) => {
                        wrong.push(Diagnostic::at(&server.place, "listed-twice", format!("`{}` stands here twice", server.value)));
                    }
                    Some(address) => asked.push(address),
                    None => {
                        let message = "not the address of a name server: expected one such as `10.0.0.2` or `10.0.0.2:5353`";
                        wrong.push(Diagnostic::at(&server.place, "bad-value", message));
                    }
                }
            }
        }
        let (least, most) = (Period(Duration::from_millis(100)), Period::seconds(24 * 3600));
        let floor = in_range(ttl_floor.as_ref(), Period::seconds(1), least, most, &mut wrong);
        let ceiling = in_range(ttl_ceiling.as_ref(), Period(Duration::from_secs(60).max(floor)), least, most, &mut wrong);
        if let Some(at) = ttl_ceiling.as_ref().filter(|_| ceiling < floor) {
            let message = format!("`{}` is less than the floor: expected at least {}", at.value, Period(floor));
            wrong.push(Diagnostic::at(&at.place, "out-of-range", message));
        }
        if wrong.is_empty() { Ok(LookUps { servers: asked, floor, ceiling }) } else { Err(wrong) }
    }

    /// How long an answer of this TTL is used.
    pub fn hold(&self, ttl: Duration) -> Duration {
        ttl.clamp(self.floor, self.ceiling)
    }
}

impl Default for LookUps {
    fn default() -> Self {
        LookUps { servers: Vec::new(), floor: Duration::from_secs(1), ceiling: Duration::from_secs(60) }
    }
}

// === impl Resolver ===

impl Resolver {
    /// Reads `/etc/resolv.conf` and `/etc/hosts`, unless name servers are given. Where that fails, every look-up fails with the reason:
    /// literal targets work on.
    pub fn new(look_ups: LookUps) -> Resolver {
        let build = || {
            let mut builder = match look_ups.servers.as_slice() {
                [] => TokioResolver::builder_tokio()?,
                servers => {
                    let config = ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(name_server).collect());
                    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                }
            };
            let options = builder.options_mut();
            // v6 only where there is no v4: many networks publish v6 addresses that cannot be reached.
            options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
            options.timeout = PATIENCE;
            // What was not there is asked for again as soon as anything else that failed.
            options.negative_max_ttl = Some(SOON);
            // An answer of ours is used until it has run out; another copy of it would make it older.
            options.positive_max_ttl = Some(look_ups.ceiling);
            builder.build()
        };
        Resolver { asker: build().map(Arc::new).map_err(|e: NetError| e.to_string().into()), look_ups }
    }

    /// This one, or another where others are asked.
    pub fn asking(&self, look_ups: &LookUps) -> Resolver {
        if *look_ups == self.look_ups { self.clone() } else { Resolver::new(look_ups.clone()) }
    }

    /// As the system does.
    pub fn system() -> Resolver {
        Resolver::new(LookUps::default())
    }

    #[cfg(test)]
    pub fn broken() -> Resolver {
        Resolver { asker: Err("no configuration".into()), look_ups: LookUps::default() }
    }

    fn asker(&self) -> Result<&TokioResolver, String> {
        self.asker.as_ref().map(|asker| &**asker).map_err(|why| why.to_string())
    }

    fn left(&self, until: Instant) -> Duration {
        self.look_ups.hold(until.saturating_duration_since(Instant::now()))
    }

    /// The addresses of a name and how long they hold.
    pub async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), String> {
        let answer = in_time(self.asker()?.lookup_ip(name)).await?;
        let addresses: Vec<_> = answer.iter().collect();
        match addresses.is_empty() {
            true => Err("no addresses".to_owned()),
            false => Ok((addresses, self.left(answer.valid_until()))),
        }
    }

    /// The SRV records of a name and how long they hold.
    pub async fn services(&self, name: &str) -> Result<(Vec<Service>, Duration), String> {
        let answer = in_time(self.asker()?.srv_lookup(name)).await?;
        let service = |data: &RData| match data {
            RData::SRV(srv) => Some(Service { priority: srv.priority, weight: srv.weight, port: srv.port, host: srv.target.to_ascii() }),
            _ => None,
        };
        let services: Vec<_> = answer.answers().iter().filter_map(|record| service(&record.data)).collect();
        match services.is_empty() {
            true => Err("no SRV records".to_owned()),
            false => Ok((services, self.left(answer.valid_until()))),
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

/// A question with all its repetitions has an end.
async fn in_time<T>(question: impl Future<Output = Result<T, NetError>>) -> Result<T, String> {
    match tokio::time::timeout(IN_ALL, question).await {
        Ok(answered) => answered.map_err(|e| e.to_string()),
        Err(_) => Err(format!("no name server has answered within {IN_ALL:?}")),
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    server.connections.iter_mut().for_each(|connection: &mut ConnectionConfig| connection.port = address.port());
    server
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_between_a_second_and_a_minute() {
        let look_ups = LookUps::default();
        assert_eq!(look_ups, LookUps::compile(None).unwrap());
        assert_eq!(look_ups.hold(Duration::ZERO), Duration::from_secs(1));
        assert_eq!(look_ups.hold(Duration::from_secs(30)), Duration::from_secs(30));
        assert_eq!(look_ups.hold(Duration::from_secs(86_400)), Duration::from_secs(60));
    }
}
