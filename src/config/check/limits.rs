//! Decides whether every limit can find something to count by, wherever it is used.

use std::collections::HashSet;
use std::time::Duration;

use super::Index;
use crate::config::diagnostic::{Diagnostic, Place};
use crate::config::document::{Document, RouteSettings};
use crate::config::effective::{Effective, Giver};
use crate::config::types::At;
use crate::listen::address::LOCAL;
use crate::policy::Shadow;
use crate::policy::authn::AuthSettings;
use crate::policy::limits::limit::quota_name;
use crate::policy::rate_limit::{By, LimitSettings, Per, Stage};
use crate::store::settings;

/// A window that several gateways count in must last for many settlements.
const SHORTEST_SHARED: Duration = Duration::from_secs(1);

/// A kind of caller that a route admits, by what is known of it when limits are judged.
#[derive(Clone, Copy)]
enum Caller {
    /// Nobody was asked who they are, or not yet.
    Anonymous,
    Token,
    ApiKey,
    /// With a certificate; whether it is always a consumer's.
    Certificate {
        consumer: bool,
    },
}

pub(super) fn check(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    for (name, limit) in &index.document.limits {
        before_auth(name, limit, errors);
        useless_keys(limit, errors);
    }
    plans(index.document, errors);
    shared(index.document, errors);
    let mut on_routes: HashSet<&str> = HashSet::new();
    let mut told: HashSet<(&str, u32, u32)> = HashSet::new();
    for ((name, route), effective) in index.document.routes.iter().zip(&index.effective) {
        for used in effective.given(|all| &all.limits).iter().flat_map(|given| &given.settings.value) {
            let Some(limit) = index.limits.get(used.as_str()) else { continue };
            on_routes.insert(used.as_str());
            // A list of the defaults is told once, not once a route.
            if !told.contains(&(used.as_str(), used.place.line, used.place.column))
                && let Some(error) = can_come_up_empty(index, name, route, effective, used, limit)
            {
                told.insert((used.as_str(), used.place.line, used.place.column));
                errors.push(error);
            }
        }
    }
    on_listeners(index, &on_routes, errors);
    at_upstreams(index, errors);
    over_unix_sockets(index, errors);
}

/// Who comes over a Unix socket has no address of its own: a limit that counts by it would count all for one. Unless a load balancer
/// says who they are, in each request or at the beginning of the connection.
fn over_unix_sockets(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let document = index.document;
    let is_told = document.clients.iter().flat_map(|clients| &clients.trusted_proxies.value).any(|network| network.0.contains(&LOCAL.ip()));
    let mut tell = |listener: &str, used: &At<String>| {
        if index.limits.get(used.as_str()).is_some_and(|limit| limit.by.iter().any(|by| matches!(by.value, By::ClientIp))) {
            let message = format!("`{}` counts by `client_ip`, but `{listener}` is a Unix socket, whose clients have none", used.value);
            let help = "let a load balancer say who they are: `proxy_protocol`, or `clients.trusted_proxies` with `127.0.0.1/32`, as which who comes over Unix sockets is known";
            errors.push(Diagnostic::at(&used.place, "limit-without-key", message).help(help));
        }
    };
    for (name, settings) in &document.listeners {
        if !settings.address.is_unix() || settings.proxy_protocol.is_some() || is_told {
            continue;
        }
        settings.limits.iter().for_each(|used| tell(&name.value, used));
        for ((_, route), effective) in document.routes.iter().zip(&index.effective) {
            if route.own.listeners.as_ref().is_none_or(|names| names.iter().any(|own| own.value == name.value)) {
                effective.given(|all| &all.limits).iter().flat_map(|given| &given.settings.value).for_each(|used| tell(&name.value, used));
            }
        }
    }
}

/// What is shared has a store, and the store something to share.
fn shared(document: &Document, errors: &mut Vec<Diagnostic>) {
    let store = document.server.as_ref().and_then(|server| server.limits_store.as_ref());
    let mut any = false;
    let without_store = |name: &str, place: &Place, errors: &mut Vec<Diagnostic>| {
        if store.is_none() {
            let message = format!("`{name}` is shared, but there is no store over which");
            errors.push(Diagnostic::at(place, "shared-without-store", message).help("add `server.limits_store`"));
        }
    };
    for (name, limit) in &document.limits {
        let Some(shared) = limit.shared.as_ref().filter(|shared| shared.value) else { continue };
        any = true;
        without_store(&name.value, &shared.place, errors);
        if limit.concurrent.is_some() {
            let message =
                format!("places of `{}` are taken and given back too fast to be settled: each gateway counts its own", name.value);
            errors.push(Diagnostic::at(&shared.place, "shared-not-exact", message).help("remove `shared`, and give each gateway its part"));
        }
        if limit.window.is_some() && limit.rate.as_ref().is_some_and(|rate| rate.value.per < SHORTEST_SHARED) {
            let message = format!("windows of `{}` end before what was counted in them is settled: expected at least 1s", name.value);
            errors.push(
                Diagnostic::at(&shared.place, "shared-not-exact", message).help("remove `window`: a bucket may be as fast as it likes"),
            );
        }
    }
    for (name, plan) in &document.plans {
        let Some(shared) = plan.shared.as_ref().filter(|shared| shared.value) else { continue };
        any = true;
        without_store(&name.value, &shared.place, errors);
    }
    let lists = [
        document.consumers_from.as_ref().and_then(|from| from.value.redis.as_ref()),
        document.revocation.as_ref().and_then(|revocation| revocation.value.redis.as_ref()),
    ];
    for key in lists.into_iter().flatten() {
        any = true;
        if store.is_none() {
            let message = format!("`{}` would be a key of the store, which there is not", key.value);
            errors.push(Diagnostic::at(&key.place, "shared-without-store", message).help("add `server.limits_store`"));
        }
    }
    if let Some(store) = store.filter(|_| !any) {
        let message = "`limits_store` has no effect: no limit and no plan is shared, and no list is in it";
        errors.push(Diagnostic::at(&store.place, "inert", message).help("add `shared: true` to a limit, or remove it"));
    }
    if let Some(store) = store {
        settings::check(store, errors);
    }
}

/// A plan says how much, and its quota has a name that nobody else has.
fn plans(document: &Document, errors: &mut Vec<Diagnostic>) {
    for (name, plan) in &document.plans {
        if let Some((other, _)) = document.limits.iter().find(|(other, _)| other.value == name.value) {
            let message = format!("`{}` is the name of a plan, too: headers, logs and metrics could not tell them apart", name.value);
            errors.push(Diagnostic::at(&other.place, "limit-name", message).help("give one of them another name"));
        }
        match (&plan.rate, &plan.quota) {
            (None, None) => errors.push(
                Diagnostic::at(&name.place, "limit-without-rate", format!("the plan `{}` says neither `rate` nor `quota`", name.value))
                    .help("add one, such as `rate: 100/m` or `quota: 10000/day`"),
            ),
            (Some(_), Some(_)) => {
                let quota = quota_name(&name.value);
                let limits = document.limits.iter().map(|(name, _)| name);
                if let Some(other) = limits.chain(document.plans.iter().map(|(name, _)| name)).find(|other| other.value == quota) {
                    let message = format!("`{quota}` is what the quota of the plan `{}` is called in logs and headers", name.value);
                    errors.push(Diagnostic::at(&other.place, "limit-name", message).help("give it another name"));
                }
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
    }
}

/// What counts at each upstream of its own is used where requests go to one.
fn at_upstreams(index: &Index<'_>, errors: &mut Vec<Diagnostic>) {
    let at_upstream = |used: &At<String>| index.limits.get(used.as_str()).is_some_and(|limit| limit.per == Some(Per::Upstream));
    let mut inert: Vec<&At<String>> = Vec::new();
    let mut useful: HashSet<&str> = HashSet::new();
    for ((_, route), effective) in index.document.routes.iter().zip(&index.effective) {
        let answers_itself = route.own.respond.is_some() || route.own.redirect.is_some();
        let Some(given) = effective.given(|all| &all.limits) else { continue };
        for used in given.settings.value.iter().filter(|used| at_upstream(used)) {
            match (answers_itself, given.by == Giver::Route) {
                (false, _) => _ = useful.insert(used.as_str()),
                (true, true) => errors.push(no_upstream(used)),
                // What bundles and defaults say need not concern every route.
                (true, false) => inert.push(used),
            }
        }
    }
    let mut told = HashSet::new();
    errors.extend(inert.into_iter().filter(|used| !useful.contains(used.as_str()) && told.insert(used.as_str())).map(no_upstream));
}

fn no_upstream(used: &At<String>) -> Diagnostic {
    let message = format!("`{}` counts at each upstream, and the route answers by itself: nothing is counted", used.value);
    Diagnostic::at(&used.place, "inert", message).help("remove it here, or remove `per: upstream` there")
}

/// Before authentication nobody knows the caller.
fn before_auth(name: &str, limit: &LimitSettings, errors: &mut Vec<Diagnostic>) {
    match limit.stage {
        None => return,
        Some(Stage::BeforeAuth) => {}
    }
    if let Some(tags) = &limit.for_tags {
        let message = format!("`{name}` is judged before authentication, where no tags are known");
        errors.push(Diagnostic::at(&tags.place, "limit-stage", message).help("remove `for`, or `stage`"));
    }
    if limit.per == Some(Per::Upstream) {
        let message = format!("`{name}` is judged before authentication, when the upstream may not be known yet");
        errors.push(Diagnostic::at(&limit.by.place, "limit-stage", message).help("remove `stage`, or `per: upstream`"));
    }
    for by in &limit.by.value {
        if needs_caller(by) {
            errors.push(
                Diagnostic::at(
                    &by.place,
                    "limit-stage",
                    format!("`{name}` is judged before authentication, where no `{}` is known", by.kind()),
                )
                .help("count by `client_ip`, `header:NAME` or `global`, or remove `stage`"),
            );
        }
    }
}

/// Behind a key that every request has, no other is ever reached.
fn useless_keys(limit: &LimitSettings, errors: &mut Vec<Diagnostic>) {
    let by = &limit.by.value;
    if by.is_empty() {
        errors.push(Diagnostic::at(
            &limit.by.place,
            "empty-list",
            "an empty list: expected what to count by, such as `[consumer, client_ip]`",
        ));
    }
    for (at, key) in by.iter().enumerate() {
        if by[..at].iter().any(|before| before.value == key.value) {
            errors.push(Diagnostic::at(&key.place, "listed-twice", format!("`{}` stands in this list already", spelled(key))));
        } else if let Some(before) = by[..at].iter().find(|before| matches!(before.value, By::ClientIp | By::Global)) {
            errors.push(
                Diagnostic::at(
                    &key.place,
                    "inert",
                    format!("`{}` is never reached: every request has `{}`", spelled(key), spelled(before)),
                )
                .help("the first that a request has is counted by; put it last"),
            );
        }
    }
}

fn spelled(by: &By) -> String {
    match by {
        By::Header(name) => format!("header:{name}"),
        By::Tag(name) => format!("tag:{name}"),
        By::Consumer | By::Subject | By::ApiKey | By::ClientIp | By::Global => by.kind().to_owned(),
    }
}

fn needs_caller(by: &By) -> bool {
    match by {
        By::Consumer | By::Subject | By::ApiKey | By::Tag(_) => true,
        By::ClientIp | By::Header(_) | By::Global => false,
    }
}

fn can_come_up_empty(
    index: &Index<'_>,
    name: &str,
    route: &RouteSettings,
    effective: &Effective<'_>,
    used: &At<String>,
    limit: &LimitSettings,
) -> Option<Diagnostic> {
    if limit.by.is_empty() || (limit.stage.is_some() && limit.by.iter().any(|by| needs_caller(by))) {
        // Told already.
        return None;
    }
    let has_header = |header: &http::HeaderName| {
        route.own.matches.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case(header.as_str()) && value.value != "absent")
    };
    let has_tag = |tag: &str| match &route.own.auth.value {
        AuthSettings::Public => false,
        AuthSettings::AnyOf(names) => names.iter().all(|name| {
            index.authenticators.get(name.as_str()).is_none_or(|found| !found.takes_tokens() || found.tags().any(|(own, _)| own == tag))
        }),
    };
    let caller = callers(index, route, effective, limit)?.into_iter().find(|caller| {
        !limit.by.iter().any(|by| match (&by.value, caller) {
            (By::ClientIp | By::Global, _) => true,
            (By::Header(header), _) => has_header(header),
            (By::Subject, Caller::Token | Caller::Certificate { .. }) => true,
            (By::Consumer | By::ApiKey, Caller::ApiKey) => true,
            // It has a default where every authenticator of the route makes it from a claim.
            (By::Tag(tag), Caller::Token) => has_tag(tag),
            (By::Tag(_), Caller::ApiKey | Caller::Certificate { .. } | Caller::Anonymous) => false,
            (By::Consumer, Caller::Certificate { consumer }) => *consumer,
            (By::ApiKey, Caller::Certificate { .. }) => false,
            (By::Consumer | By::ApiKey, Caller::Token | Caller::Anonymous) | (By::Subject, Caller::ApiKey | Caller::Anonymous) => false,
        })
    })?;
    let by: Vec<String> = limit.by.iter().map(|by| format!("`{}`", spelled(by))).collect();
    let who = match caller {
        Caller::Anonymous => format!("an unknown caller of `{name}`"),
        Caller::Token => format!("a caller of `{name}` with a token"),
        Caller::ApiKey => format!("a caller of `{name}` with an API key"),
        Caller::Certificate { .. } => format!("a caller of `{name}` with a certificate"),
    };
    let told = match by.as_slice() {
        [only] => format!("{only}, which {who} may not have"),
        [first @ .., last] => format!("{} and {last}, of which {who} may have none", first.join(", ")),
        [] => return None,
    };
    Some(
        Diagnostic::at(&used.place, "limit-without-key", format!("`{}` counts by {told}", used.value))
            .help(format!("add `client_ip` as the last of the `by` of `{}`", used.value)),
    )
}

/// The kinds of callers whom the limit meets on the route. None where it cannot be known.
fn callers(index: &Index<'_>, route: &RouteSettings, effective: &Effective<'_>, limit: &LimitSettings) -> Option<Vec<Caller>> {
    if limit.stage.is_some() {
        return Some(vec![Caller::Anonymous]);
    }
    let mut callers = Vec::new();
    let shadowed = effective.shadows(Shadow::Auth);
    match &route.own.auth.value {
        AuthSettings::Public => callers.push(Caller::Anonymous),
        AuthSettings::AnyOf(names) => {
            if shadowed {
                callers.push(Caller::Anonymous);
            }
            for name in names {
                let authenticator = index.authenticators.get(name.as_str())?;
                callers.push(match &authenticator.client_certificate {
                    Some(by) => Caller::Certificate { consumer: !by.any_certificate },
                    None if authenticator.api_key.is_some() => Caller::ApiKey,
                    None => Caller::Token,
                });
            }
        }
    }
    Some(callers)
}

/// Limits of listeners are judged before a route is chosen.
fn on_listeners(index: &Index<'_>, on_routes: &HashSet<&str>, errors: &mut Vec<Diagnostic>) {
    for (listener, settings) in &index.document.listeners {
        for used in &settings.limits {
            let Some(limit) = index.limits.get(used.as_str()) else { continue };
            for by in &limit.by.value {
                match &by.value {
                    By::ClientIp | By::Global => {}
                    By::Consumer | By::Subject | By::ApiKey | By::Tag(_) | By::Header(_) => errors.push(
                        Diagnostic::at(
                            &used.place,
                            "limit-stage",
                            format!(
                                "`{}` counts by `{}`, but limits of a listener know only `client_ip` and `global`",
                                used.value,
                                spelled(by)
                            ),
                        )
                        .help(format!("give the listener `{}` a limit of its own", listener.value)),
                    ),
                }
            }
            if limit.for_tags.is_some() {
                let message =
                    format!("`{}` is `for` callers with tags, but limits of a listener are judged before anybody is known", used.value);
                errors.push(Diagnostic::at(&used.place, "limit-stage", message).help("name it in the `limits` of routes"));
            }
            if let Some(per) = limit.per {
                errors.push(Diagnostic::at(
                    &used.place,
                    "inert",
                    format!(
                        "`per: {}` of `{}` has no effect: limits of a listener are judged before a route is chosen",
                        per.as_str(),
                        used.value
                    ),
                ));
            }
            if limit.stage.is_some() && !on_routes.contains(used.as_str()) {
                errors.push(Diagnostic::at(
                    &used.place,
                    "inert",
                    format!("`stage` of `{}` has no effect: limits of a listener are always judged before authentication", used.value),
                ));
            }
        }
    }
}
