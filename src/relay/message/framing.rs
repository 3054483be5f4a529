//! Decides whether the answer of an upstream ends in one place for everybody who reads it (RFC 9112 section 6).
//!
//! Pingora reads it leniently and would pass on what it read; what another reader could take for another length is made plain
//! here, or refused. Does not read the body.

use http::{HeaderValue, Version, header};
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;

/// Makes the framing of a head plain: the gateway's own version, one `Content-Length`, or `Transfer-Encoding: chunked`.
///
/// # Errors
/// It has two readings: the upstream's fault, answered with 502 (RFC 9112 section 6.3).
pub fn make_plain(head: &mut ResponseHeader) -> Result<()> {
    let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // RFC 9112 section 6.1: in HTTP/1.0 the field means nothing, or the message went through something that did not know it.
        let is_chunked = coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || head.version == Version::HTTP_10 {
            return Err(unsound("Transfer-Encoding is not a single `chunked`"));
        }
        if coding != "chunked" {
            let _ = head.insert_header(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    if head.version != Version::HTTP_11 {
        // RFC 9110 section 6.2: an intermediary speaks its own version.
        head.set_version(Version::HTTP_11);
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(()) };
    if lengths.next().is_none() && !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return Ok(());
    }
    // Section 6.3: the same number again is one number.
    let mut numbers = head
        .headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let first = numbers.next().unwrap_or_default();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) || numbers.any(|other| other != first) {
        return Err(unsound("Content-Length is not one number"));
    }
    let one = HeaderValue::from_bytes(first).map_err(|_| unsound("Content-Length is not one number"))?;
    let _ = head.insert_header(header::CONTENT_LENGTH, one);
    Ok(())
}

fn unsound(why: &'static str) -> Box<Error> {
    Error::explain(ErrorType::InvalidHTTPHeader, why).into_up()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(version: Version, lines: &[(&'static str, &str)]) -> Option<Vec<String>> {
        let mut head = ResponseHeader::build(200, None).unwrap();
        head.set_version(version);
        for (name, value) in lines {
            head.append_header(*name, *value).unwrap();
        }
        make_plain(&mut head).ok()?;
        assert_eq!(head.version, Version::HTTP_11);
        Some(head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect())
    }

    #[test]
    fn framing_with_one_reading_is_made_plain() {
        let (te, cl) = ("transfer-encoding", "content-length");
        for (version, lines, expected) in [
            (Version::HTTP_11, &[][..], &[][..]),
            (Version::HTTP_10, &[(cl, "5")], &["content-length: 5"]),
            (Version::HTTP_11, &[(cl, "5")], &["content-length: 5"]),
            (Version::HTTP_11, &[(cl, "5"), (cl, "5")], &["content-length: 5"]),
            (Version::HTTP_11, &[(cl, "5, 5 ,5")], &["content-length: 5"]),
            (Version::HTTP_11, &[(te, "chunked")], &["transfer-encoding: chunked"]),
            (Version::HTTP_11, &[(te, "Chunked")], &["transfer-encoding: chunked"]),
        ] {
            let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(plain(version, lines), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn framing_with_two_readings_is_refused() {
        let (te, cl) = ("transfer-encoding", "content-length");
        for (version, lines) in [
            (Version::HTTP_10, &[(te, "chunked")][..]),
            (Version::HTTP_11, &[(te, "identity")]),
            (Version::HTTP_11, &[(te, "gzip, chunked")]),
            (Version::HTTP_11, &[(te, "chunked"), (te, "chunked")]),
            (Version::HTTP_11, &[(te, "xchunked")]),
            (Version::HTTP_11, &[(te, "")]),
            (Version::HTTP_11, &[(cl, "5, 6")]),
            (Version::HTTP_11, &[(cl, "5"), (cl, "6")]),
            (Version::HTTP_11, &[(cl, "5,")]),
            (Version::HTTP_11, &[(cl, "+5")]),
            (Version::HTTP_11, &[(cl, "")]),
        ] {
            assert_eq!(plain(version, lines), None, "{lines:?}");
        }
    }
}
