//! Reads and writes how long a caller of gRPC is willing to wait (`grpc-timeout`). Does not keep the time: see `relay/attempt/deadline.rs`.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::reply::problem::Kind;

pub static GRPC_DEADLINE: Kind = Kind {
    code: "grpc-deadline",
    status: 504,
    error: "Gateway timeout",
    about: "A call of gRPC took longer than its caller's `grpc-timeout`; it was given up, at the upstream too.",
};

pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// At most eight digits and a unit. None where it is not written or not a time: the upstream says then what it makes of it.
pub fn read(fields: &HeaderMap) -> Option<Duration> {
    let (digits, unit) = fields.get(GRPC_TIMEOUT)?.as_bytes().split_last().map(|(unit, digits)| (digits, *unit))?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The same in as fine a unit as eight digits hold; never nothing, which servers take for no time at all.
pub fn write(time: Duration) -> String {
    let micros = time.as_micros().max(1);
    match micros {
        0..=99_999_999 => format!("{micros}u"),
        _ if micros / 1_000 <= 99_999_999 => format!("{}m", micros / 1_000),
        _ => format!("{}S", (micros / 1_000_000).min(99_999_999)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_digits_and_a_unit() {
        let of = |text: &str| read(&[(GRPC_TIMEOUT, text.parse().unwrap())].into_iter().collect());
        assert_eq!(of("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(of("99999999M"), Some(Duration::from_secs(99_999_999 * 60)));
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("7u"), Some(Duration::from_micros(7)));
        assert_eq!(of("0n"), Some(Duration::ZERO));
        for text in ["", "S", "1", "1s", "-1S", "1.5S", "123456789S", " 1S", "1 S"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(read(&HeaderMap::new()), None);
        for (time, written) in [
            (Duration::ZERO, "1u"),
            (Duration::from_millis(250), "250000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(200_000), "200000S"),
            (Duration::MAX, "99999999S"),
        ] {
            assert_eq!(write(time), written);
            assert!(of(written).is_some());
        }
    }
}
