//! The page of the private listener for the engineer on call: what is out comes first, in words, then everything else.
//!
//! Decides how the status is shown. No scripts, nothing from elsewhere, and whatever is shown is escaped: reasons may quote what a target said.

use std::fmt::{self, Write};
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::targets::{AddressStatus, TargetStatus, UpstreamStatus};
use super::{Moment, Status};
use crate::report::civil::rfc3339;

/// What the browser may do with it: show it, with this style.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
});

/// Of targets that take requests, so many are listed; those that do not are listed all.
const LISTED: usize = 200;
/// How often the browser asks again, in seconds.
const AGAIN: u32 = 5;

const STYLE: &str = "
:root { color-scheme: light dark; --bad: #b00020; --warn: #8a4b00; --good: #1b6b2f; --line: #8884; --soft: #8882; }
@media (prefers-color-scheme: dark) { :root { --bad: #ff8a80; --warn: #ffcc80; --good: #8fd6a0; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 78rem; padding: 1rem 1.25rem 3rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: .2rem 0 .6rem; padding: .6rem .9rem; border-left: .5rem solid var(--good); background: var(--soft); }
h1.bad { border-color: var(--bad); color: var(--bad); background: #b000201a; } h1.warn { border-color: var(--warn); color: var(--warn); }
h2 { font-size: 1.15rem; margin: 1.6rem 0 .4rem; }
p { margin: .3rem 0; } .quiet { opacity: .75; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; font-size: .82rem; opacity: .75; }
td.n + td:not(.n), th.n + th:not(.n) { padding-left: .9rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.a { font-family: ui-monospace, monospace; font-size: .92em; overflow-wrap: anywhere; min-width: 9rem; }
b.bad { color: var(--bad); } b.warn { color: var(--warn); } b.good { color: var(--good); font-weight: 600; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem .8rem; margin: .3rem 0; }
";

/// Text as it is shown.
struct Shown<'a>(&'a str);

/// A time span in words: `3 min`.
struct Span(u64);

/// How good a word is; it is never said by the colour alone.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Warn,
    Bad,
}

/// The whole page. `now` in milliseconds since 1970.
pub fn page(status: &Status, now: u64) -> String {
    let mut out = String::with_capacity(16 * 1024);
    // Writing to a string does not fail.
    let _ = write_page(&mut out, status, now);
    out
}

fn write_page(out: &mut String, status: &Status, now: u64) -> fmt::Result {
    let mut all: Vec<_> =
        status.upstreams.iter().flat_map(|(name, targets)| targets.iter().map(move |target| (name.as_str(), target))).collect();
    // In their order otherwise.
    all.sort_by_key(|(_, target)| (target.healthy, !is_troubled(target)));
    let troubled: Vec<_> = all.iter().filter(|(_, target)| is_troubled(target)).collect();
    let gone = all.iter().filter(|(_, target)| !target.healthy).count();
    let turned: Vec<_> = status.upstream_states.iter().filter(|(_, state)| is_turned(state)).collect();
    let open = turned.iter().filter(|(_, state)| state.circuit != "closed").count();
    let (tone, verdict) = verdict(status, &all, gone, open, troubled.len());
    let name = Shown(&status.config.path);
    write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"{AGAIN}\"><title>{} - {name} - Sluice</title><style>{STYLE}</style>\
         <p class=\"quiet\">Sluice {} - {name} - at {} - this page asks again every {AGAIN} s</p><h1 class=\"{}\">{}</h1>",
        Shown(&verdict),
        status.version,
        Shown(&at(Moment(now))),
        tone.class(),
        Shown(&verdict),
    )?;
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.accepted) {
        write!(
            out,
            "<p>{} {} ago; the configuration before it goes on.</p><pre>{}</pre>",
            word(Tone::Bad, "The last reload was REFUSED"),
            ago(reload.at, now),
            Shown(reload.diagnostics.trim_end())
        )?;
    }
    if !turned.is_empty() || !troubled.is_empty() {
        out.push_str("<h2>What is out</h2><table><tr><th>upstream<th>where<th>state<th>why<th class=\"n\">for<th class=\"n\">back in</tr>");
        for (name, state) in &turned {
            write_state(out, name, state, now)?;
        }
        for (name, target) in &troubled {
            write_trouble(out, name, target, now)?;
        }
        out.push_str("</table>");
    }
    write_targets(out, status, &all, now)?;
    write_rest(out, status, now)
}

/// The one sentence that is read first.
fn verdict(status: &Status, all: &[(&str, &TargetStatus)], gone: usize, open: usize, troubled: usize) -> (Tone, String) {
    let mut parts = Vec::new();
    if let Some(reason) = &status.reason {
        parts.push(format!("NOT READY: {reason}"));
    }
    if gone > 0 {
        parts.push(format!("{gone} of {} OUT", targets(all.len())));
    }
    if open > 0 {
        parts.push(format!("{open} {} OPEN", if open == 1 { "circuit" } else { "circuits" }));
    }
    if !parts.is_empty() {
        return (Tone::Bad, parts.join(", "));
    }
    if troubled > 0 {
        return (Tone::Warn, format!("{} in PART out or on trial", targets(troubled)));
    }
    if status.last_reload.as_ref().is_some_and(|reload| !reload.accepted) {
        return (Tone::Warn, format!("{} in; the last reload was REFUSED", targets(all.len())));
    }
    match all.len() {
        0 => (Tone::Good, "Ready; no targets".to_owned()),
        1 => (Tone::Good, "The target is in".to_owned()),
        count => (Tone::Good, format!("All {count} targets are in")),
    }
}

fn targets(count: usize) -> String {
    format!("{count} {}", if count == 1 { "target" } else { "targets" })
}

/// Whether something speaks against any address of it.
fn is_troubled(target: &TargetStatus) -> bool {
    !target.healthy || target.addresses.iter().any(|address| address.state != "in" || !address.causes.is_empty())
}

fn is_turned(state: &UpstreamStatus) -> bool {
    state.circuit != "closed" || state.panic || state.waiting > 0 || state.full().is_some()
}

fn write_state(out: &mut String, name: &str, state: &UpstreamStatus, now: u64) -> fmt::Result {
    let name = Shown(name);
    let mut row = |state: String, why: &str, since: Option<Moment>, until: Option<Moment>| {
        let (since, until) = (since.map(|since| ago(since, now)), until.map(|until| left(until, now)));
        write!(
            out,
            "<tr><td>{name}<td>the upstream<td>{state}<td>{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
            Shown(why),
            since.unwrap_or_default(),
            until.unwrap_or_default()
        )
    };
    match state.circuit.as_str() {
        "closed" => {}
        "open" => row(word(Tone::Bad, "CIRCUIT OPEN"), &state.reason, state.since, state.until)?,
        _ => row(word(Tone::Warn, "CIRCUIT ON TRIAL"), &state.reason, state.since, None)?,
    }
    if state.panic {
        row(word(Tone::Bad, "ALL USED"), "so many addresses are out that all are used (panic_threshold)", None, None)?;
    }
    if state.waiting > 0 {
        row(word(Tone::Warn, "QUEUE"), &format!("{} requests wait for it (max_requests, max_connections)", state.waiting), None, None)?;
    }
    if let Some(full) = state.full() {
        row(
            word(Tone::Warn, "FULL"),
            &format!("{} of {} requests at once (adaptive_concurrency)", full.in_flight, full.limit),
            None,
            None,
        )?;
    }
    Ok(())
}

fn write_trouble(out: &mut String, name: &str, target: &TargetStatus, now: u64) -> fmt::Result {
    let name = Shown(name);
    if target.addresses.is_empty() {
        return write!(
            out,
            "<tr><td>{name}<td class=\"a\">{}<td>{}<td>its name has no address<td class=\"n\">{}<td></tr>",
            Shown(&target.address),
            word(Tone::Bad, "OUT"),
            target.since.map(|since| ago(since, now)).unwrap_or_default()
        );
    }
    for address in target.addresses.iter().filter(|address| address.state != "in" || !address.causes.is_empty()) {
        let place = match address.address == target.address {
            true => address.address.clone(),
            false => format!("{} ({})", target.address, address.address),
        };
        let (place, state) = (Shown(&place), state_of(address));
        if address.causes.is_empty() {
            let since = address.since.map(|since| ago(since, now)).unwrap_or_default();
            let why = "a few requests find out whether it works again";
            write!(out, "<tr><td>{name}<td class=\"a\">{place}<td>{state}<td>{why}<td class=\"n\">{since}<td></tr>")?;
        }
        for cause in &address.causes {
            write!(
                out,
                "<tr><td>{name}<td class=\"a\">{place}<td>{state}<td>{}: {}<td class=\"n\">{}<td class=\"n\">{}</tr>",
                said(cause.cause),
                Shown(&cause.reason),
                ago(cause.since, now),
                cause.until.map(|until| left(until, now)).unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

fn state_of(address: &AddressStatus) -> String {
    match (address.state, address.causes.is_empty()) {
        ("out", _) => word(Tone::Bad, "OUT"),
        ("probed", _) => word(Tone::Warn, "ON TRIAL"),
        (_, true) => word(Tone::Good, "in"),
        // Used all the same.
        (_, false) => word(Tone::Warn, "USED ANYWAY"),
    }
}

fn said(cause: &str) -> &'static str {
    match cause {
        "check" => "check fails",
        "ejected" => "ejected",
        "circuit" => "circuit open",
        "drained" => "drained",
        _ => "out",
    }
}

fn write_targets(out: &mut String, status: &Status, all: &[(&str, &TargetStatus)], now: u64) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<h2>Targets</h2><table><tr><th>upstream<th>target<th>state<th class=\"n\">for<th class=\"n\">in flight<th class=\"n\">requests\
         <th class=\"n\">p50<th class=\"n\">p99<th>errors since the start</tr>",
    );
    let mut listed = 0;
    for (name, target) in all.iter().filter(|(_, target)| {
        listed += 1;
        listed <= LISTED || !target.healthy
    }) {
        let is_open = status.upstream_states.get(*name).is_some_and(|state| state.circuit == "open");
        let state = match (target.healthy, is_open, is_troubled(target)) {
            (false, _, _) => word(Tone::Bad, "OUT"),
            (true, true, _) => word(Tone::Warn, "in, CIRCUIT OPEN"),
            (true, false, true) => word(Tone::Warn, "IN PART"),
            (true, false, false) => word(Tone::Good, "in"),
        };
        let ms =
            |time: Option<f64>| time.map(|ms| if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }).unwrap_or_default();
        let errors: Vec<_> = target.errors.iter().map(|(kind, count)| format!("{count} {}", kind.replace('_', " "))).collect();
        write!(
            out,
            "<tr><td>{}<td class=\"a\">{}<td>{state}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td class=\"n\">{}<td>{}</tr>",
            Shown(name),
            Shown(&target.address),
            target.since.map(|since| ago(since, now)).unwrap_or_default(),
            target.requests_in_flight,
            target.requests,
            ms(target.latency.p50_ms),
            ms(target.latency.p99_ms),
            Shown(&errors.join(", "))
        )?;
    }
    out.push_str("</table><p class=\"quiet\">p50 and p99: to the head of an answer, in the last half minute.</p>");
    if all.len() > LISTED {
        write!(out, "<p>Of {} targets, the first {LISTED} and those that are out are listed; /status has them all.</p>", all.len())?;
    }
    Ok(())
}

fn write_rest(out: &mut String, status: &Status, now: u64) -> fmt::Result {
    out.push_str("<h2>Listeners</h2><table><tr><th>name<th>address<th class=\"n\">connections</tr>");
    for (name, listener) in &status.listeners {
        write!(out, "<tr><td>{}<td class=\"a\">{}<td class=\"n\">{}</tr>", Shown(name), Shown(&listener.address), listener.connections)?;
    }
    out.push_str("</table>");
    let troubles = status.key_sets.iter().filter(|(_, set)| set.last_result != "ok").map(|(name, set)| ("keys of", name, &set.last_result));
    let troubles = troubles
        .chain(status.lists.iter().filter(|(_, list)| list.last_result != "ok").map(|(name, list)| ("list", name, &list.last_result)));
    for (what, name, why) in troubles {
        write!(out, "<p>{}: {}</p>", word(Tone::Warn, &format!("{what} {name}")), Shown(why))?;
    }
    writeln!(
        out,
        "<p class=\"quiet\">Process {}, up {}; configuration {} loaded {} ago. All of it as JSON: /status; figures: /metrics.</p></html>",
        status.pid,
        Span(status.uptime_s),
        Shown(&status.config.hash),
        ago(status.config.loaded, now)
    )
}

fn at(moment: Moment) -> String {
    String::from_utf8_lossy(&rfc3339(moment.0)).into_owned()
}

fn ago(since: Moment, now: u64) -> String {
    Span(now.saturating_sub(since.0) / 1_000).to_string()
}

fn left(until: Moment, now: u64) -> String {
    Span(until.0.saturating_sub(now).div_ceil(1_000)).to_string()
}

fn word(tone: Tone, text: &str) -> String {
    format!("<b class=\"{}\">{}</b>", tone.class(), Shown(text))
}

// === impl Tone ===

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => f.write_char(character)?,
                // Nothing that reorders or hides what stands beside it.
                hidden
                    if hidden.is_control()
                        || matches!(hidden, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    f.write_char('\u{fffd}')?;
                }
                plain => f.write_char(plain)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            seconds @ 0..120 => write!(f, "{seconds} s"),
            seconds @ 120..7_200 => write!(f, "{} min", seconds / 60),
            seconds @ 7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            seconds => write!(f, "{} days", seconds / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Figures;
    use super::super::tests::Fixed;
    use super::*;

    const NOW: u64 = 1_700_000_090_000;

    #[test]
    fn what_is_out_is_said_first_in_words() {
        let text = page(&Fixed(Ok(())).status(), NOW);
        assert!(text.contains("<h1 class=\"bad\">1 of 1 target OUT</h1>"), "{text}");
        assert!(text.contains("The last reload was REFUSED</b> 30 s ago"), "{text}");
        assert!(text.find("What is out") < text.find("<h2>Targets"), "{text}");
        assert!(text.contains("<td>3 connect failed</tr>"), "{text}");
        assert!(page(&Fixed(Err("stopping")).status(), NOW).contains("NOT READY: stopping, 1 of 1 target OUT"));
    }

    #[test]
    fn nothing_that_is_shown_is_markup() {
        let mut status = Fixed(Ok(())).status();
        let evil = "<script>alert('x')</script>\u{202e}\"&";
        status.config.path = evil.to_owned();
        status.last_reload.as_mut().unwrap().diagnostics = evil.to_owned();
        let targets = status.upstreams.remove("orders").unwrap();
        status.upstreams.insert(evil.to_owned(), targets);
        let text = page(&status, NOW);
        assert!(!text.contains("<script") && !text.contains('\u{202e}'), "{text}");
        assert_eq!(text.matches("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;\u{fffd}&quot;&amp;").count(), 5, "{text}");
    }

    #[test]
    fn the_policy_lets_the_style_in_and_nothing_else() {
        let hash = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
        assert!(POLICY.starts_with(&format!("default-src 'none'; style-src 'sha256-{hash}';")), "{}", *POLICY);
        let text = page(&Fixed(Ok(())).status(), NOW);
        assert!(text.contains(&format!("<style>{STYLE}</style>")));
        assert!(!text.contains("style=") && !text.contains("src=") && !text.contains("href="), "{text}");
    }

    #[test]
    fn spans_are_short_words() {
        let told: Vec<_> = [0, 119, 120, 7_199, 7_200, 172_800].into_iter().map(|s| Span(s).to_string()).collect();
        assert_eq!(told, ["0 s", "119 s", "2 min", "119 min", "2 h", "2 days"]);
    }
}
