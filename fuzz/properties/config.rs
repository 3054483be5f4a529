//! Any text, as a configuration, where no environment variable is set: it is refused with mistakes that can be shown, or it runs.

use sluice::config::compile;
use sluice::config::diagnostic::{Diagnostic, render};
use sluice::config::plan::Gateway;
use sluice::ctx::Now;
use sluice::listen::address::Address;
use sluice::policy::buckets::Buckets;
use sluice::simulate::{Asked, SOMEBODY, Said, simulate, tell, text};
use sluice::state::State;

pub fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match compile::load_text("fuzz.yaml", text, &|_| None, &State::default()) {
        Ok(gateway) => ask(&gateway),
        Err(mistakes) => can_be_shown(&mistakes, text),
    }
}

fn can_be_shown(mistakes: &[Diagnostic], text: &str) {
    assert!(!mistakes.is_empty(), "refused for nothing");
    // YAML ends lines at a bare CR too.
    let lines = text.split(['\n', '\r']).count();
    for mistake in mistakes {
        assert!(mistake.code.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
        if let Some(place) = &mistake.place {
            assert!(place.line >= 1 && place.column >= 1 && place.width >= 1, "{mistake:?}");
            assert!(place.line as usize <= lines, "{mistake:?} is behind the end");
        }
    }
    let shown = render(mistakes, false);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "a terminal would obey {shown:?}");
}

fn ask(gateway: &Gateway) {
    assert!(!gateway.listeners.is_empty());
    let buckets = Buckets::new(64 << 10);
    let now = Now { mono: 1, unix_ms: 1_750_000_000_000 };
    for (method, path) in [("GET", "/"), ("POST", "/a/b?c=d"), ("OPTIONS", "/api/orders/1")] {
        for listener in &gateway.listeners {
            let _: Address = listener.address;
            let asked = Asked {
                said: Said::Described {
                    method: method.to_owned(),
                    url: format!("http://a.example{path}"),
                    headers: vec![("authorization".to_owned(), "Bearer a.b.c".to_owned())],
                },
                listener: Some(listener.name.to_string()),
                from: SOMEBODY,
                claims: None,
                certificate: None,
                consumer: None,
                revocable: true,
            };
            let outcome = simulate(gateway, &buckets, &asked, now, true).expect("a sound request");
            assert!(!text(&tell(gateway, &outcome)).contains("a.b.c"), "a credential is shown");
        }
    }
}
