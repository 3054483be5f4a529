//! Any text, as a time, a size and a rate: what is read is written so that it reads the same.

use std::fmt::Display;

use sluice::config::types::{Period, Rate, Size};

pub fn hold(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    again(text, Period::parse);
    again(text, Size::parse);
    again(text, Rate::parse);
    if let Some(rate) = Rate::parse(text) {
        assert!(rate.count > 0 && !rate.per.is_zero());
    }
}

fn again<T: Display + PartialEq + std::fmt::Debug>(text: &str, parse: fn(&str) -> Option<T>) {
    let Some(value) = parse(text) else { return };
    let written = value.to_string();
    assert_eq!(parse(&written), Some(value), "{text} is written {written}");
}
