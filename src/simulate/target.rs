//! Which target a request would go to, as far as that does not depend on what others do at the moment, and why.
//!
//! Decides nothing: asks what chooses.

use pingora_http::RequestHeader;
use serde_json::{Value, json};

use crate::config::plan::{Relay, Route};
use crate::ctx::Facts;
use crate::relay::balance::owner;
use crate::relay::upstream::Balance;

/// Nothing where any target would do.
pub fn tell(route: &Route, relay: &Relay, head: Option<&RequestHeader>, facts: &Facts) -> Option<Value> {
    let pool = &relay.upstream.pool;
    let set = pool.present();
    let mut told = json!({});
    if set.levels.len() > 1 {
        told["levels"] = set
            .levels
            .iter()
            .map(|level| {
                let targets: Vec<_> = set.targets[level.range.clone()].iter().map(|target| target.address.to_string()).collect();
                json!({ "priority": level.priority, "near": level.is_near, "targets": targets })
            })
            .collect();
    }
    if pool.upstream.balance == Balance::Hash {
        let key = head.and_then(|head| relay.hash.key(route, &head.headers, facts));
        told["by"] = json!(key.map(|(_, by)| by.to_string()));
        told["target"] = json!(key.and_then(|(key, _)| owner(pool, key)).map(|target| target.address.to_string()));
    }
    if let Some(sticky) = &pool.upstream.sticky {
        let stuck = head.and_then(|head| sticky.read(&head.headers));
        told["sticky"] = json!(match (stuck, stuck.and_then(|stuck| set.target_of(stuck))) {
            (_, Some(target)) => {
                told["by"] = json!(format!("the cookie `{}`", sticky.name()));
                told["target"] = json!(target.address.to_string());
                "kept"
            }
            (Some(_), None) => "its target is none of these any more, or it was signed with another secret",
            (None, None) => "no cookie yet",
        });
    }
    told.as_object().is_some_and(|told| !told.is_empty()).then_some(told)
}

/// The same in words.
pub fn text(told: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    match (told["by"].as_str(), told["target"].as_str()) {
        (Some(by), Some(target)) if told["sticky"] == "kept" => lines.push(format!("{target} by {by}, while it works")),
        (Some(by), Some(target)) => lines.push(format!("{target} by {by}, while it works and is not overloaded")),
        _ if told.get("by").is_some() => lines.push("any: the request has nothing of `hash_by`".to_owned()),
        _ => {}
    }
    if let Some(sticky) = told["sticky"].as_str().filter(|sticky| *sticky != "kept") {
        lines.push(format!("sticky: {sticky}; the answer sets one"));
    }
    for level in told["levels"].as_array().into_iter().flatten() {
        let zone = match level["near"].as_bool() {
            Some(true) => ", own zone",
            Some(false) => ", other zones",
            None => "",
        };
        let targets: Vec<_> = level["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        lines.push(format!("priority {}{zone}: {}", level["priority"], targets.join(", ")));
    }
    lines
}
