//! Decides whether a client address may call a route at all. Does not find out the address: see `entry/client_ip.rs`.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use super::{Policy, Request, Stop};
use crate::config::check::not_empty;
use crate::config::check::values::one_of;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::ctx::Facts;
use crate::reply::problem::{Kind, Problem};

pub static ADDRESS_REFUSED: Kind = Kind {
    code: "address-refused",
    status: 403,
    error: "Forbidden",
    about: "The client's address is not allowed on this route. Check `ip_filter`, and `clients.trusted_proxies` if a proxy stands before the gateway.",
};

/// Which client addresses may call the route. Exactly one of the two lists.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IpFilterSettings {
    /// Networks or addresses that may call; all others get 403, code `address-refused`.
    pub allow: Option<Vec<At<Network>>>,
    /// Networks or addresses that may not call.
    pub deny: Option<Vec<At<Network>>>,
}

/// A network such as `10.0.0.0/8` or `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// The compiled filter.
#[derive(Clone, Debug)]
pub struct IpFilter {
    listed: Listed,
    networks: Networks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listed {
    MayCall,
    MayNotCall,
}

/// Disjoint ranges, first and last address, in order.
#[derive(Clone, Debug, Default)]
struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// What is wrong with it by itself, wherever it is written.
pub fn check(filter: &At<IpFilterSettings>, errors: &mut Vec<Diagnostic>) {
    let lists = [("allow", filter.allow.as_ref()), ("deny", filter.deny.as_ref())];
    one_of("`ip_filter`", &filter.place, &lists.map(|(key, list)| (key, list.map(|_| &filter.place))), false, errors);
    for list in lists.into_iter().filter_map(|(_, list)| list) {
        not_empty(list, &filter.place, "networks", errors);
    }
}

// === impl IpFilter ===

impl IpFilter {
    pub fn compile(settings: &At<IpFilterSettings>) -> Result<Self, Vec<Diagnostic>> {
        let IpFilterSettings { allow, deny } = &settings.value;
        let (listed, list) = match (allow, deny) {
            (Some(list), None) => (Listed::MayCall, list),
            (None, Some(list)) => (Listed::MayNotCall, list),
            (Some(_), Some(_)) => {
                return Err(vec![
                    Diagnostic::at(&settings.place, "ip-filter-both", "`allow` and `deny` are both written: expected one of them")
                        .help("with `allow`, every other address is refused already"),
                ]);
            }
            (None, None) => {
                return Err(vec![Diagnostic::at(
                    &settings.place,
                    "ip-filter-empty",
                    "neither `allow` nor `deny` is written: expected one of them",
                )]);
            }
        };
        if list.is_empty() {
            let message = "the list is empty: expected at least one address or network";
            return Err(vec![Diagnostic::at(&settings.place, "ip-filter-empty", message)]);
        }
        let mut wrong = Vec::new();
        for (index, network) in list.iter().enumerate() {
            if let IpNet::V6(net) = network.0
                && net.addr().to_ipv4_mapped().is_some()
                && net.prefix_len() >= 96
            {
                wrong.push(
                    Diagnostic::at(
                        &network.place,
                        "network-never-matches",
                        format!("`{}` matches nobody: such clients are seen with their IPv4 address", network.0),
                    )
                    .help("write the network as IPv4"),
                );
                continue;
            }
            let cover = list
                .iter()
                .enumerate()
                .find(|(other, wide)| *other != index && wide.0.contains(&network.0) && (wide.0 != network.0 || *other < index));
            if let Some((_, wide)) = cover {
                let message = format!("`{}` changes nothing: `{}` covers it", network.0, wide.0);
                wrong.push(Diagnostic::at(&network.place, "network-covered", message).help("remove it"));
            }
        }
        if wrong.is_empty() { Ok(IpFilter { listed, networks: Networks::new(list.iter().map(|network| network.0)) }) } else { Err(wrong) }
    }

    /// Judges the client's address.
    pub fn decide(&self, client: IpAddr) -> Result<(), Stop> {
        let may_call = match self.listed {
            Listed::MayCall => self.networks.contain(client),
            Listed::MayNotCall => !self.networks.contain(client),
        };
        if may_call {
            return Ok(());
        }
        let why = match self.listed {
            Listed::MayCall => "is in no allowed network",
            Listed::MayNotCall => "is in a denied network",
        };
        Err(Problem::new(&ADDRESS_REFUSED).reason(format!("{client} {why}")).into())
    }
}

impl Policy for IpFilter {
    async fn judge(&self, _: &Request<'_>, facts: &mut Facts) -> Result<(), Stop> {
        self.decide(facts.client)
    }
}

// === impl Networks ===

impl Networks {
    fn new(list: impl Iterator<Item = IpNet>) -> Self {
        let mut networks = Networks::default();
        for net in list {
            match net {
                IpNet::V4(net) => networks.v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => networks.v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        // Networks lie within one another or apart, and none lies within another here.
        networks.v4.sort_unstable();
        networks.v6.sort_unstable();
        networks
    }

    fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => is_within(&self.v4, address.to_bits()),
            IpAddr::V6(address) => is_within(&self.v6, address.to_bits()),
        }
    }
}

fn is_within<T: Ord>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= address);
    after > 0 && address <= ranges[after - 1].1
}

// === impl Network ===

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bad = || {
            de::Error::custom(format_args!(
                "`{text}` is not a network: expected an address or a network, such as `10.0.0.0/8` or `2001:db8::/32`"
            ))
        };
        if let Ok(address) = text.parse::<std::net::IpAddr>() {
            return Ok(Network(address.into()));
        }
        let net: IpNet = text.parse().map_err(|_| bad())?;
        if net.trunc() != net {
            return Err(de::Error::custom(format_args!("`{text}` has bits set behind its prefix: did you mean `{}`?", net.trunc())));
        }
        Ok(Network(net))
    }
}

impl JsonSchema for Network {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::fixtures::{at, codes, facts, head, judge, refusal};

    fn list(networks: &[&str]) -> Option<Vec<At<Network>>> {
        Some(
            networks
                .iter()
                .map(|text| at(Network(text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).unwrap())))
                .collect(),
        )
    }

    fn compile(allow: Option<Vec<At<Network>>>, deny: Option<Vec<At<Network>>>) -> Result<IpFilter, Vec<Diagnostic>> {
        IpFilter::compile(&at(IpFilterSettings { allow, deny }))
    }

    fn passes(filter: &IpFilter, client: &str) -> bool {
        let mut facts = facts();
        facts.client = client.parse().unwrap();
        judge(filter, &head("GET /", &[]), &mut facts).is_ok()
    }

    #[test]
    fn only_allowed_addresses_may_call() {
        let filter = compile(list(&["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "172.16.0.0/12"]), None).unwrap();
        for client in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "172.31.255.255"]
        {
            assert!(passes(&filter, client), "{client}");
        }
        for client in
            ["9.255.255.255", "11.0.0.0", "192.0.2.6", "192.0.2.8", "2001:db9::", "::1", "0.0.0.0", "255.255.255.255", "172.32.0.0"]
        {
            assert!(!passes(&filter, client), "{client}");
        }
    }

    #[test]
    fn denied_addresses_may_not_call() {
        let filter = compile(None, list(&["10.0.0.0/8", "2001:db8::1"])).unwrap();
        for client in ["10.1.2.3", "2001:db8::1"] {
            assert!(!passes(&filter, client), "{client}");
        }
        for client in ["11.0.0.0", "2001:db8::2", "::"] {
            assert!(passes(&filter, client), "{client}");
        }
    }

    #[test]
    fn a_network_of_one_family_does_not_hold_the_other() {
        let filter = compile(list(&["0.0.0.0/0"]), None).unwrap();
        assert!(passes(&filter, "203.0.113.9"));
        assert!(!passes(&filter, "2001:db8::1"));
    }

    #[test]
    fn the_refusal_names_the_address_for_the_log_only() {
        let problem = refusal(compile(list(&["10.0.0.0/8"]), None).unwrap().decide("192.0.2.1".parse().unwrap()));
        assert_eq!((problem.kind.code, problem.kind.status), ("address-refused", 403));
        assert_eq!(problem.reason.unwrap(), "192.0.2.1 is in no allowed network");
        assert_eq!(problem.detail, None);
    }

    #[test]
    fn lists_that_say_nothing_are_mistakes() {
        assert_eq!(codes(compile(list(&["10.0.0.0/8"]), list(&["10.0.0.1"]))), ["ip-filter-both"]);
        assert_eq!(codes(compile(None, None)), ["ip-filter-empty"]);
        assert_eq!(codes(compile(Some(Vec::new()), None)), ["ip-filter-empty"]);
        assert_eq!(codes(compile(list(&["10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16"]), None)), ["network-covered", "network-covered"]);
        assert_eq!(codes(compile(list(&["10.0.0.1", "10.0.0.1"]), None)), ["network-covered"]);
        assert_eq!(codes(compile(list(&["::ffff:10.0.0.0/104"]), None)), ["network-never-matches"]);
    }
}
