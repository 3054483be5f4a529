//! Decides the canonical form of a path (RFC 3986 section 6.2.2) and which spellings with two readings are in it.

use smallvec::SmallVec;

use super::{Flaw, PATH_BACKSLASH, PATH_CONTROL, PATH_DOT_SEGMENT, PATH_ESCAPE_INVALID, Spelling, SpellingSet, TEXT_INLINE};
use crate::entry::query::hex;
use crate::listen::head::REQUEST_LINE_INVALID;

/// What a byte of a path may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Stays as it is: unreserved, sub-delims but `;`, `:`, `@`, `/` (RFC 3986 section 3.3).
    Plain,
    Percent,
    Semicolon,
    Backslash,
    Hash,
    /// Controls, the blank, DEL.
    Control,
    /// Above ASCII.
    High,
    /// Not allowed raw, but sent by browsers and harmless: `"<>[]^{|}` and the backtick. Escaped.
    Stray,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            0..=b' ' | 0x7f => Class::Control,
            0x80.. => Class::High,
            b'%' => Class::Percent,
            b';' => Class::Semicolon,
            b'\\' => Class::Backslash,
            b'#' => Class::Hash,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' | b'?' => Class::Stray,
            _ => Class::Plain,
        };
        byte += 1;
    }
    classes
};

/// Appends the canonical form of a path that begins with `/` and has no `?`. Says which opt-in spellings are in it.
pub(super) fn canonicalise(raw: &[u8], out: &mut SmallVec<[u8; TEXT_INLINE]>) -> Result<SpellingSet, Flaw> {
    // One pass without branches: nearly every path is canonical as it came.
    let mut needs_care = false;
    let mut previous = 0;
    for byte in raw {
        needs_care |= CLASSES[usize::from(*byte)] != Class::Plain;
        needs_care |= previous == b'/' && (*byte == b'/' || *byte == b'.');
        previous = *byte;
    }
    if !needs_care {
        out.extend_from_slice(raw);
        return Ok(SpellingSet::default());
    }
    let mut seen = respell(raw, out)?;
    if has_dot_segment(out) {
        return Err(Flaw { kind: &PATH_DOT_SEGMENT, detail: "The path has a segment `.` or `..`, perhaps escaped." });
    }
    if out.windows(2).any(|pair| pair == b"//") {
        seen.insert(Spelling::DoubleSlash);
    }
    Ok(seen)
}

/// Decodes escapes of unreserved characters, writes the others in upper case (RFC 3986 sections 6.2.2.1 and 6.2.2.2).
fn respell(raw: &[u8], out: &mut SmallVec<[u8; TEXT_INLINE]>) -> Result<SpellingSet, Flaw> {
    let mut seen = SpellingSet::default();
    let mut high: SmallVec<[u8; 32]> = SmallVec::new();
    let mut rest = raw;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            check_utf8(&mut high)?;
        }
        match CLASSES[usize::from(*byte)] {
            Class::Plain => out.push(*byte),
            Class::Percent => {
                let (Some(upper), Some(lower)) = (rest.first().and_then(|d| hex(*d)), rest.get(1).and_then(|d| hex(*d))) else {
                    return Err(Flaw { kind: &PATH_ESCAPE_INVALID, detail: "The path has a `%` without two hex digits." });
                };
                rest = &rest[2..];
                let decoded = upper << 4 | lower;
                if decoded < 0x80 {
                    check_utf8(&mut high)?;
                }
                match decoded {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(decoded),
                    0..=0x1f | 0x7f => return Err(Flaw { kind: &PATH_CONTROL, detail: "The path has an escaped control character." }),
                    b'/' => {
                        seen.insert(Spelling::EncodedSlash);
                        push_escaped(decoded, out);
                    }
                    b'\\' => {
                        seen.insert(Spelling::Backslash);
                        push_escaped(decoded, out);
                    }
                    0x80.. => {
                        high.push(decoded);
                        push_escaped(decoded, out);
                    }
                    _ => push_escaped(decoded, out),
                }
            }
            Class::Semicolon => {
                seen.insert(Spelling::Semicolon);
                out.push(*byte);
            }
            Class::Stray => push_escaped(*byte, out),
            Class::Backslash => return Err(Flaw { kind: &PATH_BACKSLASH, detail: "The path has a backslash." }),
            Class::Hash => return Err(Flaw { kind: &REQUEST_LINE_INVALID, detail: "The path has a fragment (`#`)." }),
            Class::Control => return Err(Flaw { kind: &PATH_CONTROL, detail: "The path has a control character or a blank." }),
            Class::High => {
                return Err(Flaw { kind: &REQUEST_LINE_INVALID, detail: "The path has a byte above ASCII that is not escaped." });
            }
        }
    }
    check_utf8(&mut high)?;
    Ok(seen)
}

/// A run of escapes above ASCII must be UTF-8: overlong forms such as `%C0%AF` are a slash to some decoders.
fn check_utf8(run: &mut SmallVec<[u8; 32]>) -> Result<(), Flaw> {
    if !run.is_empty() {
        if std::str::from_utf8(run).is_err() {
            return Err(Flaw { kind: &PATH_ESCAPE_INVALID, detail: "The path has escapes that are not UTF-8." });
        }
        run.clear();
    }
    Ok(())
}

fn push_escaped(byte: u8, out: &mut SmallVec<[u8; TEXT_INLINE]>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Whether some reader would find a `.` or `..` segment: also between encoded slashes, and before `;`, where some servers cut
/// parameters off before they resolve dots. No opt-in lets it through.
fn has_dot_segment(path: &[u8]) -> bool {
    let mut name_starts = 0;
    let mut name_ended = false;
    let mut at = 0;
    loop {
        let (ends_name, ends_segment, width) = match &path[at..] {
            [] => (true, true, 1),
            [b'/', ..] => (true, true, 1),
            [b'%', b'2', b'F', ..] | [b'%', b'5', b'C', ..] => (true, true, 3),
            [b';', ..] => (true, false, 1),
            [b'%', b'3', b'B', ..] => (true, false, 3),
            [_, ..] => (false, false, 1),
        };
        if ends_name && !name_ended {
            if matches!(&path[name_starts..at], b"." | b"..") {
                return true;
            }
            name_ended = true;
        }
        at += width;
        if ends_segment {
            name_starts = at;
            name_ended = false;
        }
        if at > path.len() {
            return false;
        }
    }
}
