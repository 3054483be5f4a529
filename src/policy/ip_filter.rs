//! Decides whether a client address may call a route at all. Does not find out the address: see `entry/client_ip.rs`.

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

use crate::config::types::At;
use crate::reply::problem::Kind;

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
