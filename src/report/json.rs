//! Appends JSON strings to a byte buffer: any bytes in, always a valid JSON string out (RFC 8259 section 7).
//!
//! Decides how bytes are escaped and where a long field is cut. Does not know what the fields mean, allocates nothing but
//! the room that the buffer lacks.

/// Appended where a field was cut.
pub const CUT: &str = "…";

/// Appends `text` as the inside of a JSON string, without the quotes.
///
/// Bytes that are not UTF-8 become U+FFFD; control characters, C1 included, become `\uXXXX`, so that nobody can write
/// to the terminal of whoever reads the line.
pub fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let plain = plain_prefix(text);
    out.extend_from_slice(&text[..plain]);
    if plain == text.len() {
        return;
    }
    for chunk in text[plain..].utf8_chunks() {
        push_escaped_str(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

/// Appends `text` as a whole JSON string, quotes included.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

/// Like [`push_string`], but at most `limit` bytes of `text`, followed by [`CUT`] where there were more.
pub fn push_string_bounded(out: &mut Vec<u8>, text: &[u8], limit: usize) {
    out.push(b'"');
    // Nearly every field, and then it is copied here.
    if text.len() <= limit && plain_prefix(text) == text.len() {
        out.extend_from_slice(text);
    } else {
        push_escaped_bounded(out, text, limit);
    }
    out.push(b'"');
}

/// Like [`push_escaped`], but at most `limit` bytes of `text`, followed by [`CUT`] where there were more.
pub fn push_escaped_bounded(out: &mut Vec<u8>, text: &[u8], limit: usize) {
    if text.len() <= limit {
        return push_escaped(out, text);
    }
    // A character is never cut in two: at most three bytes of it can stand before the limit.
    let mut end = limit;
    while end > 0 && limit - end < 3 && is_continuation(text[end]) {
        end -= 1;
    }
    push_escaped(out, &text[..end]);
    out.extend_from_slice(CUT.as_bytes());
}

fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

fn push_escaped_str(out: &mut Vec<u8>, text: &str) {
    let mut from = 0;
    for (at, character) in text.char_indices() {
        if character != '"' && character != '\\' && !character.is_control() {
            continue;
        }
        out.extend_from_slice(&text.as_bytes()[from..at]);
        from = at + character.len_utf8();
        match character {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            other => {
                let low = (u32::from(other) & 0xff) as u8; // all control characters are below U+00A0
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(low >> 4)], HEX[usize::from(low & 15)]]);
            }
        }
    }
    out.extend_from_slice(&text.as_bytes()[from..]);
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// How many of the first bytes are ASCII and need no escape, eight at a time: nearly every field is such to its end.
#[inline]
fn plain_prefix(text: &[u8]) -> usize {
    let mut at = 0;
    for word in text.as_chunks::<8>().0 {
        if !is_plain(u64::from_le_bytes(*word)) {
            break;
        }
        at += 8;
    }
    // The last eight at once, some of which have been seen.
    let rest = &text[at..];
    if rest.len() < 8 && is_plain(last_word(text)) {
        return text.len();
    }
    at + rest.iter().take_while(|byte| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')).count()
}

#[inline]
fn is_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let quote = has_zero(word ^ (ONES * u64::from(b'"')));
    let backslash = has_zero(word ^ (ONES * u64::from(b'\\')));
    let delete = has_zero(word ^ (ONES * 0x7f));
    (word & HIGH) | below_space | quote | backslash | delete == 0
}

/// The last eight bytes, or all there are, some twice.
#[inline]
fn last_word(text: &[u8]) -> u64 {
    if let Some(last) = text.last_chunk::<8>() {
        return u64::from_le_bytes(*last);
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    let byte = |at: usize| text.get(at).copied().unwrap_or(b' ');
    u64::from_le_bytes([byte(0), byte(1), byte(2), b' ', b' ', b' ', b' ', b' '])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    fn read_back(text: &[u8]) -> String {
        serde_json::from_str(&written(text)).unwrap()
    }

    #[test]
    fn plain_text_is_copied_as_it_is() {
        assert_eq!(written(b"/api/orders/1?x=y"), "\"/api/orders/1?x=y\"");
    }

    #[test]
    fn every_single_byte_at_every_offset_gives_valid_json_that_reads_back() {
        for byte in 0..=255u8 {
            for (len, offset) in (1..21).flat_map(|len| (0..len).map(move |offset| (len, offset))) {
                let mut text = vec![b'a'; len];
                text[offset] = byte;
                assert_eq!(read_back(&text), String::from_utf8_lossy(&text), "byte {byte} at {offset} of {len}");
            }
        }
    }

    #[test]
    fn every_character_of_two_bytes_and_a_sample_of_the_others_reads_back() {
        for character in (0..0x800u32).chain((0x800..0x11_0000).step_by(97)).filter_map(char::from_u32) {
            let text = format!("a{character}b");
            assert_eq!(read_back(text.as_bytes()), text);
        }
    }

    #[test]
    fn control_characters_never_reach_the_file_raw() {
        for character in (0..0xA0u32).filter_map(char::from_u32).filter(|c| c.is_control()) {
            let line = written(format!("x{character}y").as_bytes());
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_become_replacement_characters() {
        assert_eq!(read_back(b"a\xff\xc3(\xe2\x82b\"\x01"), "a\u{FFFD}\u{FFFD}(\u{FFFD}b\"\u{1}");
    }

    #[test]
    fn a_long_field_is_cut_between_characters_and_marked() {
        for limit in 0..12 {
            let mut out = Vec::new();
            push_escaped_bounded(&mut out, "aé€😀xyz".as_bytes(), limit);
            let text = String::from_utf8(out).unwrap();
            assert!(!text.contains('\u{FFFD}'), "limit {limit} gave {text}");
            assert!(text.len() <= limit + CUT.len() && text.ends_with(CUT), "limit {limit} gave {text}");
        }
    }

    #[test]
    fn a_field_as_long_as_the_bound_is_not_cut() {
        let mut out = Vec::new();
        push_escaped_bounded(&mut out, b"12345", 5);
        assert_eq!(out, b"12345");
    }
}
