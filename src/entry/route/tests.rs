//! The table against examples, and against a plain matcher that compares all routes.

use std::cmp::Reverse;

use http::{HeaderName, HeaderValue};

use super::pattern::Segment;
use super::*;
use crate::config::diagnostic::Diagnostic;
use crate::entry::testing::{Prng, at, place};

/// `host,host path METHOD,METHOD header=value ?param=value`; hosts and methods may be `-`.
fn settings(text: &str) -> MatchSettings {
    let mut words = text.split(' ');
    let list = |words: &str| (words != "-").then(|| at(words.split(',').map(|word| at(word.to_owned())).collect()));
    let hosts = list(words.next().unwrap());
    let path = at(words.next().unwrap().to_owned());
    let methods = list(words.next().unwrap_or("-"));
    let (mut headers, mut query) = (BTreeMap::new(), BTreeMap::new());
    for word in words {
        let (name, value) = word.split_once('=').unwrap();
        match name.strip_prefix('?') {
            Some(name) => query.insert(name.to_owned(), at(value.to_owned())),
            None => headers.insert(name.to_owned(), at(value.to_owned())),
        };
    }
    MatchSettings { hosts, path, methods, headers, query }
}

fn compile(texts: &[&str]) -> Result<Table, Vec<Diagnostic>> {
    let settings: Vec<MatchSettings> = texts.iter().map(|text| settings(text)).collect();
    let names: Vec<String> = (0..texts.len()).map(|index| format!("r{index}")).collect();
    let routes: Vec<RouteMatch<'_>> = settings
        .iter()
        .enumerate()
        .map(|(index, settings)| RouteMatch { index, name: &names[index], place: place(index as u32 + 1), settings })
        .collect();
    Table::compile(&routes)
}

/// A request as text: `METHOD host/path?query name:value`.
struct Asked<'a> {
    method: Method,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    headers: HeaderMap,
}

fn request(text: &str) -> Asked<'_> {
    let mut words = text.split(' ');
    let method = Method::from_bytes(words.next().unwrap().as_bytes()).unwrap();
    let target = words.next().unwrap();
    let (host, _) = target.split_once('/').unwrap();
    let (path, query) = target[host.len()..].split_once('?').map_or((&target[host.len()..], None), |(path, query)| (path, Some(query)));
    let headers = words
        .map(|word| word.split_once(':').unwrap())
        .map(|(name, value)| (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap()))
        .collect();
    Asked { method, host, path, query, headers }
}

impl Asked<'_> {
    fn of<'t>(&self, table: &'t Table) -> Choice<'t> {
        table.choose(&self.method, self.host, self.path, self.query, &self.headers)
    }

    fn explained(&self, table: &Table) -> Vec<Considered> {
        table.candidates(&self.method, self.host, self.path, self.query, &self.headers)
    }
}

/// `r3`, `405 GET, HEAD` or `404`.
fn outcome(choice: &Choice<'_>) -> String {
    match choice {
        Choice::Route { index, .. } => format!("r{index}"),
        Choice::MethodNotAllowed { allow } => format!("405 {}", allow.to_list()),
        Choice::NotFound => "404".into(),
    }
}

fn check(routes: &[&str], requests: &[(&str, &str)]) {
    let table = compile(routes).unwrap();
    for (text, expected) in requests {
        assert_eq!(outcome(&request(text).of(&table)), *expected, "{text}");
    }
}

#[test]
fn an_exact_host_beats_a_longer_wildcard_beats_a_shorter_beats_any() {
    check(
        &["- /**", "*.example.com /**", "*.b.example.com /**", "a.b.example.com /**", "[::1] /**"],
        &[
            ("GET a.b.example.com/x", "r3"),
            ("GET c.b.example.com/x", "r2"),
            ("GET d.c.b.example.com/x", "r2"),
            ("GET b.example.com/x", "r1"),
            ("GET x.y.z.example.com/x", "r1"),
            ("GET example.com/x", "r0"),
            ("GET xexample.com/x", "r0"),
            ("GET [::1]/x", "r4"),
            ("GET /x", "r0"),
        ],
    );
}

#[test]
fn a_better_host_that_does_not_fit_leaves_the_request_to_others() {
    check(
        &["a.example /x", "*.example /x POST", "- /**"],
        &[("GET a.example/y", "r2"), ("POST a.example/x", "r0"), ("GET b.example/x", "r2"), ("POST b.example/x", "r1")],
    );
    check(&["a.example /x", "b.example /**"], &[("GET a.example/y", "404"), ("GET c.example/x", "404")]);
}

#[test]
fn paths_are_ranked_segment_by_segment() {
    check(
        &["- /{a}/b/c", "- /a/{b}/d", "- /a/**", "- /a/b", "- /a/b/", "- /{a}", "- /", "- /{a}/{b}/**", "- /q/r/s/t", "- /q/{x}/s/u"],
        &[
            ("GET h/a/b", "r3"),
            ("GET h/a/b/", "r4"),
            ("GET h/a", "r2"),
            ("GET h/a/", "r2"),
            ("GET h/a/b/c", "r2"),
            ("GET h/x/b/c", "r0"),
            ("GET h/a/x/d", "r1"),
            ("GET h/a/x/e", "r2"),
            ("GET h/x", "r5"),
            ("GET h/x/", "404"),
            ("GET h/", "r6"),
            ("GET h/x/y", "r7"),
            ("GET h/x/y/", "r7"),
            ("GET h/x/y/z/z", "r7"),
            ("GET h/q/r/s/t", "r8"),
            ("GET h/q/r/s/u", "r9"),
            ("GET h/q/r/s/v", "r7"),
        ],
    );
}

#[test]
fn a_slash_at_the_end_is_another_path_unless_the_rest_is_taken() {
    check(&["- /a", "- /b/", "- /c/**"], &[("GET h/a", "r0"), ("GET h/a/", "404"), ("GET h/b", "404"), ("GET h/b/", "r1")]);
    check(&["- /c/**"], &[("GET h/c", "r0"), ("GET h/c/", "r0"), ("GET h/c/d", "r0"), ("GET h/cd", "404"), ("GET h/", "404")]);
    check(&["- /**"], &[("GET h/", "r0"), ("GET h//", "r0"), ("OPTIONS h*/", "r0")]);
}

#[test]
fn a_name_is_one_segment_that_is_not_empty() {
    check(&["- /a/{x}", "- /b/{x}/c"], &[("GET h/a/", "404"), ("GET h/a/1/2", "404"), ("GET h/b//c", "404"), ("GET h/b/x%2Fy/c", "r1")]);
}

#[test]
fn the_server_as_a_whole_is_no_path() {
    let table = compile(&["- /**"]).unwrap();
    assert_eq!(outcome(&table.choose(&Method::OPTIONS, "h", "*", None, &HeaderMap::new())), "404");
}

#[test]
fn escapes_that_a_segment_does_not_need_do_not_pass_by_a_literal() {
    check(
        &["- /v1/jobs:run", "- /u/@me", "- /u/%2A", "- /v1/**", "- /u/{x}"],
        &[
            ("GET h/v1/jobs:run", "r0"),
            ("GET h/v1/jobs%3Arun", "r0"),
            ("GET h/u/%40me", "r1"),
            ("GET h/u/*", "r2"),
            ("GET h/v1/jobs%3Brun", "r3"),
            ("GET h/u/%C3%A9", "r4"),
        ],
    );
}

#[test]
fn captures_are_positions_in_the_path() {
    let table = compile(&["- /a/{x}/b/{y}/**", "- /{p}/{q}", "- /a/{x}/c", "- /a/{x}/** POST"]).unwrap();
    let captured = |path: &str| match table.choose(&Method::GET, "h", path, None, &HeaderMap::new()) {
        Choice::Route { captures, .. } => {
            let names = (0..captures.names.len()).map(|at| captures.get(Capture::Name(at), path).unwrap().to_owned());
            (names.collect::<Vec<_>>(), captures.get(Capture::Rest, path).map(str::to_owned))
        }
        other @ (Choice::MethodNotAllowed { .. } | Choice::NotFound) => panic!("{path}: {other:?}"),
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(captured("/a/1/b/22/x/y"), (words(&["1", "22"]), Some("x/y".into())));
    assert_eq!(captured("/a/1/b/22/"), (words(&["1", "22"]), Some(String::new())));
    assert_eq!(captured("/a/1/b/22"), (words(&["1", "22"]), Some(String::new())));
    // The walk goes into `/a/{x}` and its rest first and comes back without its captures.
    assert_eq!(captured("/a/zz"), (words(&["a", "zz"]), None));
    assert_eq!(captured("/a/1/c"), (words(&["1"]), None));
}

#[test]
fn methods_are_matched_and_405_lists_what_would_do() {
    check(
        &["- /a GET", "- /a POST,PURGE", "- /b GET", "- /b", "- /c GET x-v=1", "- /c POST x-v=2", "h /d GET", "- /d PUT"],
        &[
            ("GET h/a", "r0"),
            ("HEAD h/a", "r0"),
            ("POST h/a", "r1"),
            ("PURGE h/a", "r1"),
            ("DELETE h/a", "405 GET, HEAD, POST, PURGE"),
            ("LINK h/a", "405 GET, HEAD, POST, PURGE"),
            ("OPTIONS h/a", "405 GET, HEAD, POST, PURGE"),
            ("GET h/b", "r2"),
            ("PATCH h/b", "r3"),
            ("LINK h/b", "r3"),
            ("PUT h/c", "404"),
            ("PUT h/c x-v:1", "405 GET, HEAD"),
            ("GET h/c x-v:2", "405 POST"),
            ("GET h/c", "404"),
            ("PUT h/d", "r7"),
            ("POST h/d", "405 GET, HEAD, PUT"),
            ("POST i/d", "405 PUT"),
            ("GET h/x", "404"),
        ],
    );
}

#[test]
fn a_preflight_is_routed_as_the_request_that_it_announces() {
    check(
        &["- /a PUT", "- /a GET x-v=2", "- /b OPTIONS", "- /c"],
        &[
            ("OPTIONS h/a origin:o access-control-request-method:PUT", "r0"),
            ("OPTIONS h/a origin:o access-control-request-method:DELETE", "405 PUT"),
            ("OPTIONS h/a origin:o access-control-request-method:GET", "405 PUT"),
            ("OPTIONS h/a origin:o access-control-request-method:GET access-control-request-headers:x-v", "r1"),
            ("OPTIONS h/a origin:o access-control-request-method:HEAD access-control-request-headers:a,X-V", "r1"),
            ("OPTIONS h/a access-control-request-method:PUT", "405 PUT"),
            ("OPTIONS h/a origin:o", "405 PUT"),
            ("GET h/a origin:o access-control-request-method:PUT", "405 PUT"),
            ("OPTIONS h/b origin:o access-control-request-method:PUT", "405 OPTIONS"),
            ("OPTIONS h/b", "r2"),
            ("OPTIONS h/c origin:o access-control-request-method:PUT", "r3"),
        ],
    );
}

#[test]
fn conditions_rank_behind_path_and_methods() {
    check(
        &["- /a", "- /a - x-v=2", "- /a - x-v=2 ?b=present", "- /a GET", "- /{x} GET x-v=2 ?b=1 ?c=1", "- /a - ?b=absent x-v=3"],
        &[
            ("POST h/a", "r0"),
            ("POST h/a x-v:2", "r1"),
            ("POST h/a?b x-v:2", "r2"),
            ("POST h/a?%62=1 x-v:2", "r2"),
            ("POST h/a x-v:3", "r5"),
            ("POST h/a?b x-v:3", "r0"),
            ("GET h/a?b=1&c=1 x-v:2", "r3"),
            ("GET h/z?b=1&c=1 x-v:2", "r4"),
            ("GET h/z?b=1 x-v:2", "404"),
        ],
    );
}

#[test]
fn routes_that_tie_are_mistakes_that_name_both_and_a_request() {
    for (routes, request) in [
        (&["- /a", "- /a"][..], "`GET http://any.example/a`"),
        (&["- /a/{x}", "- /a/{y}"], "`GET http://any.example/a/x`"),
        (&["- /x/{x}/**", "- /x/{y}/**"], "`GET http://any.example/x/x1/x1`"),
        (&["h,i /a", "i,j /a"], "`GET http://i/a`"),
        (&["*.h /a", "*.h /a"], "`GET http://x.h/a`"),
        (&["- /a GET,POST", "- /a POST,PUT"], "`POST http://any.example/a`"),
        (&["- /a GET", "- /a HEAD"], "`HEAD http://any.example/a`"),
        (&["- /a%3Ab", "- /a:b"], "`GET http://any.example/a%3Ab`"),
        (
            &["- /a - x=1", "- /a - y=1"],
            "`GET http://any.example/a`, with header `x` with the value it asks for and header `y` with the value it asks for",
        ),
        (&["- /a - x=1", "- /a - x=present"], "`GET http://any.example/a`, with header `x` with the value it asks for"),
        (&["- /a - ?x=absent", "- /a - y=present"], "`GET http://any.example/a`, with header `y` and no query parameter `x`"),
    ] {
        let wrong = compile(routes).unwrap_err();
        assert_eq!(wrong.len(), 1, "{routes:?}");
        assert_eq!((wrong[0].code, wrong[0].place.as_ref().unwrap().line), ("equal-rank-routes", 2));
        assert_eq!(wrong[0].message, format!("route `r1` takes the same requests as `r0` with equal rank, such as {request}"));
    }
}

#[test]
fn routes_that_only_look_alike_are_none() {
    for routes in [
        &["- /a", "- /a/"][..],
        &["- /a", "- /a/**"],
        &["- /a", "h /a"],
        &["*.h /a", "*.i.h /a", "i.h /a"],
        &["- /a", "- /a GET"],
        &["- /a GET", "- /a POST"],
        &["- /a", "- /a - x=1"],
        &["- /a - x=1", "- /a - x=2", "- /a - x=absent"],
        &["- /a - x=present", "- /a - x=absent"],
        &["- /a - x=1 ?y=1", "- /a - x=1 ?y=2", "- /a - x=2 ?y=1"],
        &["- /{x}/b", "- /a/{x}"],
    ] {
        assert!(compile(routes).is_ok(), "{routes:?}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_places() {
    let wrong = compile(&["- /a", "- a", "H /a get x=", "- /a", "- /a/{x}/{x} - ?a+b=1"]).unwrap_err();
    let codes: Vec<_> = wrong.iter().map(|wrong| wrong.code).collect();
    for code in [
        "path-pattern-invalid",
        "host-pattern-invalid",
        "method-invalid",
        "header-condition-invalid",
        "equal-rank-routes",
        "query-condition-invalid",
    ] {
        assert!(codes.contains(&code), "{code}: {codes:?}");
    }
    assert!(wrong.is_sorted_by_key(|wrong| wrong.place.clone()));
    let mut nothing = settings("- /a");
    nothing.hosts = Some(at(vec![]));
    nothing.methods = Some(at(vec![]));
    let wrong = Table::compile(&[RouteMatch { index: 0, name: "r", place: place(1), settings: &nothing }]).unwrap_err();
    assert_eq!(wrong.iter().map(|wrong| wrong.code).collect::<Vec<_>>(), ["hosts-empty", "methods-empty"]);
    assert_eq!(compile(&["h,h /a"]).unwrap_err()[0].code, "host-repeated");
}

#[test]
fn values_of_conditions_are_never_shown() {
    let table = compile(&["- /a - x-internal=hush ?k=quiet"]).unwrap();
    let considered = request("GET h/a").explained(&table);
    let wrong = compile(&["- /a - x=hush", "- /a - y=hush", "- /b - z=hush\n", "- /c - ?k=hush+"]).unwrap_err();
    assert!(!format!("{considered:?}{wrong:?}").contains("hush"));
    assert!(!format!("{considered:?}").contains("quiet"));
}

#[test]
fn explain_says_why_the_near_ones_lost() {
    let table = compile(&[
        "a.h /x/y",       // 0: the winner
        "*.h /x/y",       // 1
        "- /x/y",         // 2
        "a.h /x/{z}",     // 3
        "a.h /x/**",      // 4
        "a.h /x/y PUT",   // 5
        "a.h /x/y - v=1", // 6
        "a.h /x/y/",      // 7
        "b.h /x/y",       // 8
        "a.h /other",     // 9
        "a.h /{x}/y GET", // 10
        "a.h /x/y/**",    // 11
    ])
    .unwrap();
    let asked = request("GET a.h/x/y");
    assert_eq!(outcome(&asked.of(&table)), "r0");
    let considered = asked.explained(&table);
    let why =
        |index: usize| considered.iter().find(|considered| considered.index == index).map(|considered| considered.lost_because.as_str());
    assert_eq!(why(0), None);
    assert_eq!(why(9), None);
    assert_eq!(why(1), Some("`r0` names the host exactly, this one does not"));
    assert_eq!(why(2), Some("`r0` names the host exactly, this one does not"));
    assert_eq!(why(3), Some("`r0` has `y` where this one has `{z}`"));
    assert_eq!(why(4), Some("`r0` has another segment where this one has `/**`"));
    assert_eq!(why(5), Some("it takes PUT; the request is GET"));
    assert_eq!(why(6), Some("it takes requests with header `v` with the value it asks for"));
    assert_eq!(why(7), Some("its path `/x/y/` ends in a slash, the request's does not"));
    assert_eq!(why(8), Some("it takes the host b.h; the request's is `a.h`"));
    assert_eq!(why(10), Some("`r0` has `x` where this one has `{x}`"));
    assert_eq!(why(11), Some("`r0` ends where this one has `/**`"));
    let shorter = compile(&["- /x"]).unwrap();
    assert_eq!(request("GET h/x/").explained(&shorter)[0].lost_because, "its path `/x` does not end in a slash, the request's does");
    let by_method = compile(&["- /a GET", "- /a", "- /a GET v=1", "*.c.h /a", "*.h /a"]).unwrap();
    let considered = request("GET b.c.h/a v:1").explained(&by_method);
    assert_eq!(considered[0], Considered { index: 4, lost_because: "`r3` has the longer wildcard host".into() });
    assert_eq!(considered[1], Considered { index: 2, lost_because: "`r3` has a wildcard host, this one takes any".into() });
    let considered = request("GET h/a v:1").explained(&by_method);
    assert_eq!(considered[0].lost_because, "`r2` has more conditions on headers and query (1, this one 0)");
    assert_eq!(considered[1].lost_because, "`r2` names its methods, this one takes any");
}

#[test]
fn ten_thousand_routes_compile_without_comparing_all_pairs() {
    // All at one place, kept apart by a value, by two values, and by methods; and all at places of their own.
    let tenants: Vec<String> = (0..10_000).map(|n| format!("- /a - tenant=t{n}")).collect();
    let grid: Vec<String> = (0..2_500).map(|n| format!("- /a - one={} two={}", n / 50, n % 50)).collect();
    let switches: Vec<String> = (0..1_024)
        .map(|n| {
            let on = |bit: usize| format!("s{bit}={}", if n >> bit & 1 == 1 { "present" } else { "absent" });
            format!("- /a - {}", (0..10).map(on).collect::<Vec<_>>().join(" "))
        })
        .collect();
    let apart: Vec<String> = (0..10_000).map(|n| format!("h{}.example /s{}/{{id}}/t{n} GET", n % 10, n % 100)).collect();
    for texts in [&tenants, &grid, &switches, &apart] {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let table = compile(&texts).unwrap();
        let mut builder = trie::Builder::default();
        table.rules.iter().enumerate().for_each(|(number, rule)| builder.insert(rule.hosts.first(), &rule.pattern, number as u32));
        let compared = clash::find(&builder, &table.rules, &table.vocabulary, &mut Vec::new());
        assert!(compared <= 10 * texts.len(), "{compared} pairs of {} routes were compared", texts.len());
    }
    let equal = vec!["- /a"; 10_000];
    assert_eq!(compile(&equal).unwrap_err().len(), 9_999);
}

/// What the table must agree with: compares every route with the request and the ranks of those that fit.
mod reference {
    use super::*;

    type Rank = (Reverse<(u8, usize)>, Vec<u8>, bool, Reverse<usize>);

    pub fn choose(rules: &[Rule], asked: &Asked<'_>) -> (Option<usize>, Vec<Method>) {
        let looked = Looked { headers: &asked.headers, query: asked.query, is_preflight: false };
        let mut allow: Vec<Method> = Vec::new();
        let mut fitting: Vec<(Rank, usize)> = Vec::new();
        let vocabulary = Vocabulary::default();
        for rule in rules {
            let Some(host) = host_rank(rule, asked.host) else { continue };
            let Some(path) = path_rank(&rule.pattern, asked.path) else { continue };
            if !rule.conditions.iter().all(|condition| condition.holds(looked)) {
                continue;
            }
            if rule.methods == 0 || rule.methods & vocabulary.bit(&asked.method) != 0 {
                fitting.push(((Reverse(host), path, rule.methods == 0, Reverse(rule.conditions.len())), rule.index));
            } else {
                allow.extend(vocabulary.methods(rule.methods).iter().cloned());
            }
        }
        fitting.sort();
        assert!(fitting.windows(2).all(|pair| pair[0].0 != pair[1].0), "a tie was let through: {fitting:?}");
        allow.sort_by_key(|method| vocabulary.bit(method));
        allow.dedup();
        (fitting.first().map(|(_, index)| *index), allow)
    }

    fn host_rank(rule: &Rule, host: &str) -> Option<(u8, usize)> {
        if rule.hosts.is_empty() {
            return Some((0, 0));
        }
        let ranks = rule.hosts.iter().filter_map(|pattern| match pattern {
            HostPattern::Exact(name) => (name == host).then_some((2, 0)),
            HostPattern::Under(name) => host.ends_with(&format!(".{name}")).then_some((1, name.len())),
        });
        ranks.max()
    }

    /// Per segment: 0 literal, 1 name, 3 rest; 2 where the pattern ends with the path.
    fn path_rank(pattern: &Pattern, path: &str) -> Option<Vec<u8>> {
        let segments: Vec<&str> = path[1..].split('/').collect();
        let mut rank = Vec::new();
        for (at, wanted) in pattern.segments().iter().enumerate() {
            rank.push(match (wanted, segments.get(at)) {
                (Segment::Literal(text), Some(segment)) if text == segment => 0,
                (Segment::Name(_), Some(segment)) if !segment.is_empty() => 1,
                (Segment::Literal(_) | Segment::Name(_), _) => return None,
            });
        }
        if pattern.has_rest() {
            rank.push(3);
        } else if rank.len() == segments.len() {
            rank.push(2);
        } else {
            return None;
        }
        Some(rank)
    }
}

fn random_route(random: &mut Prng) -> String {
    let pick = |random: &mut Prng, words: &[&str]| words[random.below(words.len())].to_owned();
    let hosts = pick(random, &["-", "-", "-", "a.h", "b.h", "*.h", "*.a.h", "a.h,*.a.h", "*.h,c"]);
    let mut path = String::new();
    for at in 0..random.below(4) {
        path += &pick(random, &["/a", "/b"]);
        if random.chance(3) {
            path.truncate(path.len() - 1);
            path += &format!("{{n{at}}}");
        }
    }
    path += &pick(random, &["", "", "/", "/**"]);
    if path.is_empty() {
        path = "/".into();
    }
    let methods = pick(random, &["-", "-", "GET", "POST", "GET,POST", "HEAD", "PUT,DELETE"]);
    let mut text = format!("{hosts} {path} {methods}");
    for name in ["x", "?y", "?z"] {
        if random.chance(2) {
            text += &format!(" {name}={}", pick(random, &["1", "2", "present", "absent"]));
        }
    }
    text
}

fn random_request(random: &mut Prng) -> String {
    let pick = |random: &mut Prng, words: &[&str]| words[random.below(words.len())].to_owned();
    let method = pick(random, &["GET", "GET", "POST", "HEAD", "PUT", "PATCH"]);
    let host = pick(random, &["a.h", "b.h", "c", "x.a.h", "y.x.a.h", "h", "d"]);
    let mut path = String::new();
    for _ in 0..random.below(5) {
        path += &pick(random, &["/a", "/a", "/b", "/b", "/c", "/"]);
    }
    path += if path.is_empty() || random.chance(1) { "/" } else { "" };
    let query = pick(random, &["", "", "?y", "?y=1", "?y=2&z=1", "?z=2&y=1&y=2", "?z"]);
    let header = pick(random, &["", "", " x:1", " x:2", " x:3", " x:1 x:2"]);
    format!("{method} {host}{path}{query}{header}")
}

#[test]
fn the_table_chooses_what_comparing_all_routes_would() {
    let mut random = Prng::new(3);
    let (mut tables, mut ties) = (0, 0);
    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    while tables < 1_000 {
        let texts: Vec<String> = (0..1 + random.below(30)).map(|_| random_route(&mut random)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let Ok(table) = compile(&texts) else {
            ties += 1;
            continue;
        };
        tables += 1;
        for _ in 0..25 {
            let text = random_request(&mut random);
            let asked = request(&text);
            let (best, allow) = reference::choose(&table.rules, &asked);
            let expected = match best {
                Some(index) => format!("r{index}"),
                None if !allow.is_empty() => format!("405 {}", allow.iter().map(Method::as_str).collect::<Vec<_>>().join(", ")),
                None => "404".into(),
            };
            let choice = asked.of(&table);
            assert_eq!(outcome(&choice), expected, "{text} among {texts:#?}");
            *outcomes.entry(if best.is_some() { "route".into() } else { expected[..3].into() }).or_default() += 1;
            // What is explained is never the winner, and nobody is told twice.
            let considered = asked.explained(&table);
            let mut indexes: Vec<_> = considered.iter().map(|considered| considered.index).collect();
            indexes.sort_unstable();
            assert!(indexes.windows(2).all(|pair| pair[0] != pair[1]) && !indexes.contains(&best.unwrap_or(usize::MAX)), "{text}");
        }
    }
    // The test would prove nothing if one kind of outcome hardly came up.
    assert!(outcomes.values().all(|count| *count > 500) && outcomes.len() == 3 && ties > 100, "{outcomes:?}, {ties} ties");
}

#[test]
fn a_tie_is_found_exactly_where_two_routes_could_tie() {
    let mut random = Prng::new(5);
    let (mut found, mut none) = (0, 0);
    for _ in 0..4_000 {
        // At one place and of many conditions, so that groups are split.
        let count = 2 + random.below(20);
        let texts: Vec<String> = (0..count)
            .map(|_| {
                let method = ["GET", "POST", "GET,POST"][random.below(3)];
                let one = ["1", "2", "3", "4", "present", "absent"][random.below(6)];
                let other = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "absent"][random.below(10)];
                format!("- /a {method} {}={one} {}={other}", ["x", "y"][random.below(20) / 19], ["v", "w"][random.below(20) / 19])
            })
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let parsed: Vec<(u64, Vec<Condition>)> = texts
            .iter()
            .map(|text| {
                let settings = settings(text);
                let bits = Vocabulary::default().learn(settings.methods.as_ref().unwrap(), &mut Vec::new());
                (bits, Condition::compile(&settings.headers, &settings.query, &mut Vec::new()))
            })
            .collect();
        let tie = |one: &(u64, Vec<Condition>), other: &(u64, Vec<Condition>)| {
            one.0 & other.0 != 0 && !one.1.iter().any(|c| other.1.iter().any(|d| c.contradicts(d)))
        };
        let expected = (0..count).any(|at| parsed[..at].iter().any(|earlier| tie(earlier, &parsed[at])));
        let wrong = compile(&texts);
        assert_eq!(wrong.is_err(), expected, "{texts:#?}");
        if expected { found += 1 } else { none += 1 }
    }
    assert!(found > 300 && none > 300, "{found} {none}");
}
