//! What is told of who goes first: the priority of a request, why it has it, and how much of what there is that leaves it.
//!
//! Decides nothing: see `policy/priority.rs`.

use serde_json::{Value, json};

use crate::config::plan::{Gateway, Relay, Route};
use crate::ctx::Facts;
use crate::policy::priority::Priority;

/// None: nothing can be full.
pub fn tell(gateway: &Gateway, route: &Route, relay: &Relay, facts: &Facts) -> Option<Value> {
    if relay.upstream.pool.upstream.adaptive.is_none() && gateway.overload.is_none() {
        return None;
    }
    let (priority, because) = Priority::because(route.priority, facts, &gateway.plans);
    Some(json!({ "class": priority.as_str(), "because": because.told(), "share": format!("{}%", priority.percent()) }))
}

pub fn text(told: &Value) -> String {
    let str = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
    format!("{}, because {}: may take {} of what there is at once", str("class"), str("because"), str("share"))
}
