//! Writes moments as people and protocols read them: RFC 3339 with milliseconds, the HTTP date of RFC 9110 section 5.6.7, and the time of
//! the Common Log Format.
//!
//! Decides the spelling only. UTC always; reads no clock.

/// A moment in UTC on the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub millisecond: u32,
    /// 0 is Sunday.
    pub weekday: u32,
}

const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// The last millisecond of the year 9999; later ones have no four-digit year and are shown as this one.
const LAST: u64 = 253_402_300_799_999;

/// `2026-11-21T23:12:59.042Z`, 24 bytes, from milliseconds since 1970.
pub fn rfc3339(unix_ms: u64) -> [u8; 24] {
    let at = Civil::from_unix_ms(unix_ms);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    put(&mut text[0..4], at.year);
    put(&mut text[5..7], at.month);
    put(&mut text[8..10], at.day);
    put(&mut text[11..13], at.hour);
    put(&mut text[14..16], at.minute);
    put(&mut text[17..19], at.second);
    put(&mut text[20..23], at.millisecond);
    text
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, 29 bytes, from milliseconds since 1970.
pub fn http_date(unix_ms: u64) -> [u8; 29] {
    let at = Civil::from_unix_ms(unix_ms);
    let mut text = *b"Sun, 00 Jan 0000 00:00:00 GMT";
    text[0..3].copy_from_slice(WEEKDAYS[at.weekday as usize].as_bytes());
    put(&mut text[5..7], at.day);
    text[8..11].copy_from_slice(MONTHS[at.month as usize - 1].as_bytes());
    put(&mut text[12..16], at.year);
    put(&mut text[17..19], at.hour);
    put(&mut text[20..22], at.minute);
    put(&mut text[23..25], at.second);
    text
}

/// `10/Oct/2000:13:55:36 +0000`, 26 bytes, from milliseconds since 1970: the time of the Common Log Format.
pub fn common_log(unix_ms: u64) -> [u8; 26] {
    let at = Civil::from_unix_ms(unix_ms);
    let mut text = *b"00/Jan/0000:00:00:00 +0000";
    put(&mut text[0..2], at.day);
    text[3..6].copy_from_slice(MONTHS[at.month as usize - 1].as_bytes());
    put(&mut text[7..11], at.year);
    put(&mut text[12..14], at.hour);
    put(&mut text[15..17], at.minute);
    put(&mut text[18..20], at.second);
    text
}

/// Fills `room` with the last digits of `number`.
fn put(room: &mut [u8], mut number: u32) {
    for digit in room.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Reads `2027-01-31`, `2027-01-31T12:00:00Z` or the same with a fraction and an offset (RFC 3339), as milliseconds since 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |text: Option<&str>, digits: usize| {
        text.filter(|text| text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse::<i64>().ok())
    };
    let (date, time) = match text.split_once(['T', 't']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let (year, month, day) = (number(date.get(..4), 4)?, number(date.get(5..7), 2)?, number(date.get(8..), 2)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let longest = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if date.as_bytes()[4] != b'-' || date.as_bytes()[7] != b'-' || !(1..=longest).contains(&day) {
        return None;
    }
    // The years count from March: see `Civil::from_unix_ms`.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1 - 719_468;
    let mut all = days * 86_400_000;
    if let Some(time) = time {
        let (clock, zone) = time.split_at(time.find(['Z', 'z', '+', '-'])?);
        let (clock, fraction) = clock.split_once('.').map_or((clock, None), |(clock, fraction)| (clock, Some(fraction)));
        let (hour, minute, second) = (number(clock.get(..2), 2)?, number(clock.get(3..5), 2)?, number(clock.get(6..), 2)?);
        if clock.as_bytes()[2] != b':' || clock.as_bytes()[5] != b':' || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let millis = match fraction {
            None => 0,
            Some(digits) if !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{digits:0<3}")[..3].parse::<i64>().ok()?
            }
            Some(_) => return None,
        };
        let offset = match zone {
            "Z" | "z" => 0,
            _ => {
                let (hours, minutes) = (number(zone.get(1..3), 2)?, number(zone.get(4..), 2)?);
                if zone.as_bytes()[3] != b':' || hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if zone.starts_with('-') { -1 } else { 1 }
            }
        };
        all += hour * 3_600_000 + (minute - offset) * 60_000 + second * 1_000 + millis;
    }
    u64::try_from(all).ok().filter(|all| *all <= LAST)
}

// === impl Civil ===

impl Civil {
    /// From milliseconds since 1970. The years count from March, so that the leap day is the last of its year; an era is
    /// the 400 years (146,097 days) after which the calendar repeats.
    pub fn from_unix_ms(unix_ms: u64) -> Self {
        let unix_ms = unix_ms.min(LAST);
        let days = (unix_ms / 86_400_000) as u32;
        let of_day = (unix_ms % 86_400_000) as u32;
        let since = days + 719_468; // days from 1 March of the year 0 to 1970
        let era = since / 146_097;
        let of_era = since % 146_097;
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Civil {
            year: era * 400 + year_of_era + u32::from(month <= 2),
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: of_day / 3_600_000,
            minute: of_day / 60_000 % 60,
            second: of_day / 1_000 % 60,
            millisecond: of_day % 1_000,
            weekday: (days + 4) % 7, // 1 January 1970 was a Thursday
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(unix_ms: u64) -> String {
        String::from_utf8(rfc3339(unix_ms).to_vec()).unwrap()
    }

    #[test]
    fn known_moments_are_written_as_everybody_writes_them() {
        assert_eq!(shown(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(shown(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(shown(1_709_251_199_999), "2024-02-29T23:59:59.999Z");
        assert_eq!(shown(1_709_251_200_000), "2024-03-01T00:00:00.000Z");
        assert_eq!(shown(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
        assert_eq!(shown(u64::MAX), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn the_http_date_of_the_rfc_is_written_as_the_rfc_does() {
        assert_eq!(&http_date(784_111_777_000), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&http_date(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn every_day_until_the_year_2400_follows_the_day_before_it() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..157_054u64 {
            let at = Civil::from_unix_ms(days * 86_400_000 + 86_399_999);
            assert_eq!((at.year, at.month, at.day, at.weekday), (year, month, day, ((days + 4) % 7) as u32));
            assert_eq!((at.hour, at.minute, at.second, at.millisecond), (23, 59, 59, 999));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                4 | 6 | 9 | 11 => 30,
                2 => 28 + u32::from(leap),
                _ => 31,
            };
            (year, month, day) = match (day == length, month == 12) {
                (false, _) => (year, month, day + 1),
                (true, false) => (year, month + 1, 1),
                (true, true) => (year + 1, 1, 1),
            };
        }
    }

    #[test]
    fn moments_are_read_as_they_are_written() {
        for ms in [0, 951_782_400_000, 1_709_164_800_000, 1_735_689_600_123, 4_102_444_799_999] {
            let text = String::from_utf8(rfc3339(ms).to_vec()).unwrap();
            assert_eq!(parse_rfc3339(&text), Some(ms), "{text}");
        }
        assert_eq!(parse_rfc3339("2025-01-01"), Some(1_735_689_600_000));
        assert_eq!(parse_rfc3339("2025-01-01T02:30:00.5+02:30"), Some(1_735_689_600_500));
        assert_eq!(parse_rfc3339("2024-12-31t22:00:00-02:00"), Some(1_735_689_600_000));
        for text in [
            "",
            "2025",
            "2025-1-1",
            "2025-13-01",
            "2025-02-29",
            "2025-01-00",
            "2025-01-01T",
            "2025-01-01T00:00:00",
            "2025-01-01T24:00:00Z",
            "2025-01-01 00:00:00Z",
            "2025-01-01T00:00Z",
            "2025-01-01T00:00:00.Z",
            "2025/01/01",
            "1969-12-31",
            "2025-01-01T00:00:00+0200",
            "+025-01-01",
            "2025-01-0é",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }
}
