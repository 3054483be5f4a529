//! Targets in SRV records (RFC 2782): host, port, weight and priority of each.
//!
//! Decides what a record becomes. How long an answer holds is decided in `discovery.rs`, as for addresses.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use super::follow::Follower;
use crate::config::diagnostic::Diagnostic;
use crate::config::types::At;
use crate::relay::targets::address::{Address, is_host_name};
use crate::relay::targets::discovery::{Resolver, Service};
use crate::relay::targets::members::Member;

/// The name of SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv(Arc<str>);

// === impl Srv ===

impl Srv {
    pub(super) fn compile(name: &At<String>, wrong: &mut Vec<Diagnostic>) -> Option<Srv> {
        let text = name.value.to_ascii_lowercase();
        if !is_host_name(&text) {
            wrong.push(super::mistake(&name.place, "not a name of SRV records: expected one such as `_http._tcp.orders.internal`"));
            return None;
        }
        Some(Srv(text.into()))
    }

    /// The targets, and how long they hold.
    pub(super) async fn ask(&self, resolver: &Resolver) -> Result<(Vec<Member>, Duration), String> {
        let (services, hold) = resolver.services(&self.0).await?;
        let members = members(&services)?;
        Ok((members, hold))
    }

    pub(super) async fn keep(&self, follower: &mut Follower) {
        loop {
            let resolver = follower.resolver.clone();
            let pause = match self.ask(&resolver).await {
                Ok((members, hold)) => {
                    follower.answered(members);
                    hold
                }
                Err(why) => follower.failed(why),
            };
            tokio::time::sleep(pause).await;
        }
    }
}

impl fmt::Display for Srv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "srv {}", self.0)
    }
}

/// RFC 2782: a weight of 0 is the smallest there is; `.` as the only host says that there is no such service, which is no list of targets.
fn members(services: &[Service]) -> Result<Vec<Member>, String> {
    let mut members = Vec::with_capacity(services.len());
    for Service { priority, weight, port, host } in services.iter().filter(|service| service.host != ".") {
        let host = host.trim_end_matches('.');
        let address = Address::parse(&format!("{host}:{port}")).map_err(|why| format!("a record leads to `{host}:{port}`: {why}"))?;
        members.push(Member {
            address,
            weight: NonZeroU16::new(*weight).unwrap_or(NonZeroU16::MIN),
            drain: false,
            priority: *priority,
            zone: None,
        });
    }
    if members.is_empty() { Err("the records name no host".to_owned()) } else { Ok(members) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_target_with_its_port_weight_and_priority() {
        let service = |priority, weight, port, host: &str| Service { priority, weight, port, host: host.to_owned() };
        let found = members(&[service(10, 5, 8080, "A.internal."), service(20, 0, 81, "b.internal.")]).unwrap();
        let told: Vec<_> = found.iter().map(|one| (&*one.address.text, one.weight.get(), one.priority)).collect();
        assert_eq!(told, [("a.internal:8080", 5, 10), ("b.internal:81", 1, 20)]);
        assert_eq!(members(&[service(0, 0, 0, ".")]).unwrap_err(), "the records name no host");
        assert!(members(&[service(0, 0, 0, "a.internal.")]).unwrap_err().contains("port"));
    }
}
