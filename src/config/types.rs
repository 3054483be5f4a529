//! The small values that configuration keys take: times, sizes, rates, names, secrets.
//!
//! Decides how each is written and which writings are refused (parse, don't validate). Knows nothing of the keys that use them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::diagnostic::Place;
use crate::report::civil::{parse_rfc3339, rfc3339};

/// A value and where it was written. The reader fills in the place; see `read.rs`.
#[derive(Clone, Debug)]
pub struct At<T> {
    pub value: T,
    pub place: Place,
}

/// Named entries in the order in which they were written: a YAML mapping from names to settings.
pub type Named<T> = Vec<(At<String>, T)>;

/// A time such as `250ms`, `5s`, `1m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

/// A number of bytes such as `64KiB`, `1MiB` or plain `512`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A share such as `20%` or `0.5%`, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u16);

/// A moment such as `2027-01-31` (its beginning, in UTC) or `2027-01-31T12:00:00Z`, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

/// So many requests in a period: `100/m`, `10/s`, `5/5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

/// Text that is never shown: `Debug` prints `[redacted]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

// === impl At ===

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    // Two types of one name are told apart by it.
    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// By this name the reader knows that a place is wanted too.
pub const AT: &str = "$sluice::At";

/// By this name the reader knows that text or a list is wanted: a scalar is text, whatever it looks like.
pub const TEXT_OR_LIST: &str = "$sluice::TextOrList";

impl<'de, T: Deserialize<'de>> Deserialize<'de> for At<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Pair<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Pair<T> {
            type Value = At<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }
            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<At<T>, D::Error> {
                // The reader announces the place just before it hands over the value.
                let place = Place::take_announced().ok_or_else(|| de::Error::custom("places are known only where YAML is read"))?;
                T::deserialize(d).map(|value| At { value, place })
            }
        }
        d.deserialize_newtype_struct(AT, Pair(PhantomData))
    }
}

// === impl Secret ===

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }
    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(Secret)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

// === what is written as text and parsed ===

/// Implements `Deserialize` and `JsonSchema` for a type that is written as one short text.
macro_rules! written_as {
    ($type:ty, $title:literal, $pattern:literal, $what:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::parse(text).ok_or_else(|| E::custom(format_args!("`{text}` is not {}", $what)))
                    }
                }
                d.deserialize_str(Text)
            }
        }
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "title": $title, "type": ["string", "integer"], "pattern": $pattern })
            }
        }
    };
}

written_as!(Period, "time", "^[0-9]+(ms|s|m|h)$", "a time: expected a number and a unit, such as `250ms`, `5s`, `1m` or `1h`");
written_as!(Size, "size", "^[0-9]+(B|KiB|MiB|GiB)?$", "a size: expected a number and a unit, such as `64KiB` or `1MiB`");
written_as!(Rate, "rate", "^[0-9]+/([0-9]+)?(ms|s|m|h)$", "a rate: expected a count and a unit or duration, such as `10/s` or `5/5m`");
written_as!(Percent, "share", "^[0-9]{1,3}([.][0-9]{1,2})?%$", "a share: expected 0% to 100%, such as `20%` or `0.5%`");

written_as!(
    Moment,
    "moment",
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2}))?$",
    "a moment: expected a date or a date and time with its zone, such as `2027-01-31` or `2027-01-31T12:00:00Z`"
);

// === impl Moment ===

impl Moment {
    pub fn parse(text: &str) -> Option<Self> {
        parse_rfc3339(text).map(Moment)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&rfc3339(self.0)))
    }
}

// === impl Period ===

impl Period {
    pub const fn seconds(n: u64) -> Self {
        Period(Duration::from_secs(n))
    }

    /// `250ms`, `5s`, `1m`, `1h`; nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = text[..digits].parse().ok()?;
        let millis = match &text[digits..] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        // A year is longer than any period that makes sense here, and keeps sums far from overflow.
        let all = count.checked_mul(millis).filter(|all| *all <= 366 * 24 * 3_600_000)?;
        Some(Period(Duration::from_millis(all)))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match ms {
            0 => f.write_str("0s"),
            _ if ms.is_multiple_of(3_600_000) => write!(f, "{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => write!(f, "{}m", ms / 60_000),
            _ if ms.is_multiple_of(1_000) => write!(f, "{}s", ms / 1_000),
            _ => write!(f, "{ms}ms"),
        }
    }
}

// === impl Size ===

impl Size {
    pub const fn kib(n: u64) -> Self {
        Size(n * 1024)
    }
    pub const fn mib(n: u64) -> Self {
        Size(n * 1024 * 1024)
    }

    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let count: u64 = text[..digits].parse().ok()?;
        let unit: u64 = match &text[digits..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return None,
        };
        count.checked_mul(unit).filter(|all| *all <= 1 << 50).map(Size)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0;
        match n {
            _ if n >= 1 << 30 && n.is_multiple_of(1 << 30) => write!(f, "{}GiB", n >> 30),
            _ if n >= 1 << 20 && n.is_multiple_of(1 << 20) => write!(f, "{}MiB", n >> 20),
            _ if n >= 1 << 10 && n.is_multiple_of(1 << 10) => write!(f, "{}KiB", n >> 10),
            _ => write!(f, "{n}B"),
        }
    }
}

// === impl Percent ===

impl Percent {
    /// `20%`, `0.5%`, `12.25%`; nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, parts) = text.strip_suffix('%')?.split_once('.').map_or((text.strip_suffix('%')?, "0"), |both| both);
        let is_number = |digits: &str, most: usize| (1..=most).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole, 3) || !is_number(parts, 2) {
            return None;
        }
        let hundredths = whole.parse::<u16>().ok()? * 100 + parts.parse::<u16>().ok()? * if parts.len() == 1 { 10 } else { 1 };
        (hundredths <= 10_000).then_some(Percent(hundredths))
    }

    /// That much of `all`, rounded down.
    pub fn of(self, all: u64) -> u64 {
        (u128::from(all) * u128::from(self.0) / 10_000) as u64
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenths) if tenths.is_multiple_of(10) => write!(f, "{whole}.{}%", tenths / 10),
            (whole, hundredths) => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

// === impl Rate ===

impl Rate {
    pub fn parse(text: &str) -> Option<Self> {
        let (count, per) = text.split_once('/')?;
        if count.is_empty() || !count.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let count: u32 = count.parse().ok().filter(|count| *count > 0)?;
        let per = match per {
            "s" | "m" | "h" | "ms" => Period::parse(&format!("1{per}"))?,
            other => Period::parse(other)?,
        };
        if per.0.is_zero() { None } else { Some(Rate { count, per: per.0 }) }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = Period(self.per).to_string();
        write!(f, "{}/{}", self.count, per.strip_prefix('1').filter(|unit| !unit.starts_with(|c: char| c.is_ascii_digit())).unwrap_or(&per))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_sizes_and_rates_read_as_they_are_written() {
        for text in ["250ms", "5s", "1m", "1h", "90s"] {
            assert_eq!(Period::parse(text).unwrap().to_string(), text);
        }
        for text in ["64KiB", "1MiB", "3GiB", "17B"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
        for text in ["0%", "20%", "0.5%", "12.25%", "0.05%", "100%"] {
            assert_eq!(Percent::parse(text).unwrap().to_string(), text);
        }
        assert_eq!([Percent(2_000).of(14), Percent(50).of(1_000), Percent(10_000).of(u64::MAX)], [2, 5, u64::MAX]);
        for text in ["100/m", "10/s", "5/5m", "60/h", "3/250ms"] {
            assert_eq!(Rate::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_time_a_size_or_a_rate_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "5sec", "1.5s", "99999999999999h"] {
            assert_eq!(Period::parse(text), None, "{text}");
        }
        for text in ["", "KiB", "64KB", "64k", "-1", "99999999999999GiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        for text in ["", "%", "20", "101%", "100.01%", "1.%", ".5%", "0.125%", "-1%", "+1%", "20 %", "1e1%", "0.+5%"] {
            assert_eq!(Percent::parse(text), None, "{text}");
        }
        for text in ["", "10", "10/", "/s", "0/s", "10/sec", "10/0s", "+1/s", "10/s/s"] {
            assert_eq!(Rate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new("hush")), "[redacted]");
    }
}
