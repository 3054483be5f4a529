//! From a request head to a decision, without a socket: what the proxy calls, and `explain`, tests and simulations call the same.
//!
//! Decides the order of entry and policy, nothing else. Carrying the decision out is `exchange.rs`'s.

use http::request::Parts;

use crate::config::plan::{Action, Gateway, Route};
use crate::ctx::{Facts, Step};
use crate::entry;
use crate::entry::ROUTE_NOT_FOUND;
use crate::policy::buckets::Buckets;
use crate::policy::credential::cut;
use crate::policy::{Answer, Counting, Request, Stop};
use crate::reply::problem::Problem;

/// What happens to a request that nothing refused.
pub enum Decision<'g> {
    /// It goes to an upstream.
    Relay(&'g Route),
    /// The route answers by itself.
    Answer(&'g Route, Box<Answer>),
    /// The route refuses by itself, with a code of the operator's.
    Fixed(&'g Route),
}

/// Decides about one request. `facts` holds what is known of the connection, and afterwards all that was learnt.
///
/// # Errors
/// Why the request goes no further; a refusal by a policy has `facts.route` set.
pub async fn decide<'g>(
    gateway: &'g Gateway,
    buckets: &Buckets,
    head: &Parts,
    raw_target: &[u8],
    facts: &mut Facts,
) -> Result<Decision<'g>, Stop> {
    entry::identify(&gateway.clients, head, facts);
    let request = Request { head };
    let Some(listener) = gateway.listeners.get(facts.listener) else {
        // The listener went with a reload while its last requests were on their way.
        return Err(Problem::new(&ROUTE_NOT_FOUND).into());
    };
    // Before routing: these count what matches no route, too.
    let counted = listener.limits.judge(&request, facts, buckets, &gateway.plans);
    if let Some(trail) = &mut facts.trail
        && !listener.limits.is_empty()
    {
        trail.push(Step::of("listener limits", &counted, false));
    }
    counted?;
    let accept = |index: usize| gateway.routes.get(index).map(|route| route.accept).unwrap_or_default();
    let located = entry::locate(&listener.table, accept, head, raw_target, facts);
    if let Some(tls) = &listener.settings.tls {
        // Before what the route says: a host that belongs on another connection has no routes on this one.
        tls.admit(facts).map_err(Stop::Refuse)?;
    }
    if let Some(https) = listener.settings.https
        && !located.as_ref().is_err_and(|problem| problem.kind.status == 400)
    {
        let redirected = https.judge(facts);
        if let Some(trail) = &mut facts.trail {
            trail.push(Step::of("listener redirect_https", &redirected, false));
        }
        if redirected.is_err() {
            // The listener answers, no route.
            facts.route = None;
        }
        redirected?;
    }
    located.map_err(Stop::Refuse)?;
    let Some(route) = facts.route.and_then(|index| gateway.routes.get(index)) else {
        return Err(Problem::new(&ROUTE_NOT_FOUND).into());
    };
    let choose = |facts: &mut Facts| {
        if let Some(choice) = route.others.as_ref().and_then(|others| others.choice.as_ref()) {
            facts.chosen = choice.of(route, &head.headers, facts);
        }
    };
    route.policies.judge(&request, facts, Counting { buckets, plans: &gateway.plans }, choose).await?;
    match &route.action {
        Action::Upstream(_) => Ok(Decision::Relay(route)),
        Action::Respond(fixed) if fixed.code.is_some() => Ok(Decision::Fixed(route)),
        Action::Respond(fixed) => Ok(Decision::Answer(route, Box::new(fixed.answer()))),
        Action::Redirect(redirect) => {
            let captures = captures(route, facts);
            let query = facts.target.query().map(|query| cut(query, &gateway.credential_parameters));
            let answer = redirect.answer(&captures, facts.target.query(), query.as_deref())?;
            Ok(Decision::Answer(route, Box::new(answer)))
        }
    }
}

/// What the route's pattern matched, in the order of [`Pattern::captures`](crate::entry::route::pattern::Pattern::captures).
pub fn captures<'f>(route: &Route, facts: &'f Facts) -> smallvec::SmallVec<[&'f str; 4]> {
    let path = facts.target.path();
    route
        .pattern
        .captures()
        .map(|name| route.pattern.capture(name).and_then(|capture| facts.captures.get(capture, path)).unwrap_or_default())
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::config::compile::load_text;
    use crate::policy::buckets::Buckets;
    use crate::simulate::{Asked, SOMEBODY, Said, Verdict, simulate};
    use crate::state::State;

    /// What goes upstream or into `Location` for a GET of this path.
    fn target(text: &str, path: &str) -> String {
        let gateway = load_text("a.yaml", text, &|_| None, &State::default()).unwrap();
        let asked = Asked {
            said: Said::Described { method: "GET".to_owned(), url: format!("http://a.example{path}"), headers: Vec::new() },
            listener: None,
            from: SOMEBODY,
            claims: None,
            certificate: None,
            consumer: None,
            revocable: true,
        };
        match simulate(&gateway, &Buckets::new(64 << 10), &asked, crate::clock::now(), false).unwrap().verdict {
            Verdict::Relayed { head, .. } => String::from_utf8(head.raw_path().to_vec()).unwrap(),
            Verdict::Answered { headers, .. } => {
                let location = headers.iter().find(|(name, _)| name == http::header::LOCATION);
                location.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap_or_default()
            }
        }
    }

    #[test]
    fn a_route_may_say_rest_in_its_rewrite_and_its_redirect() {
        // Was refused when the configuration was loaded, though the reference has it.
        let with = |route: &str| {
            format!(
                "listeners: {{ a: {{ address: 127.0.0.1:0 }} }}\nroutes:\n  r: {{ match: {{ path: \"/old/{{id}}/**\" }}, auth: public, {route} }}\n"
            )
        };
        let redirect = with("redirect: { to: \"/new/{rest}?of={id}\", status: 308 }");
        assert_eq!(target(&redirect, "/old/7/b/c"), "/new/b/c?of=7");
        let rewrite = with("upstream: u, rewrite: { path: \"/{rest}/{id}\" }") + "upstreams: { u: { targets: [127.0.0.1:1] } }\n";
        assert_eq!(target(&rewrite, "/old/7/b/c"), "/b/c/7");
    }

    #[test]
    fn a_redirect_leads_no_credential_to_another_site_and_nobody_to_another_host() {
        let text = |to: &str| {
            format!(
                r#"
listeners: {{ l: {{ address: 127.0.0.1:1 }} }}
authenticators: {{ a: {{ api_key: {{ query: key }} }} }}
consumers: {{ acme: {{ keys: [{{ sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }}] }} }}
routes:
  old: {{ match: {{ path: "/old/**" }}, auth: public, redirect: {{ to: "{to}" }}, accept: [double_slash] }}
  key: {{ match: {{ path: /key }}, auth: [a], respond: {{ status: 200 }} }}
"#
            )
        };
        for (to, path, expected) in [
            ("https://elsewhere.example/{rest}", "/old/a?x=1&key=secret&y=2", "https://elsewhere.example/a?x=1&y=2"),
            ("/new/{rest}", "/old/a?x=1&key=secret", "/new/a?x=1&key=secret"),
            ("/{rest}", "/old//evil.example", "/.//evil.example"),
            ("/{rest}", "/old/a//b", "/a//b"),
        ] {
            assert_eq!(target(&text(to), path), expected, "{to} {path}");
        }
    }
}
