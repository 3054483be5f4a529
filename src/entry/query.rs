//! Reads the parameters of a query, for conditions and for credentials in parameters. Never changes what is sent on.
//!
//! A query is `name=value` pieces between `&`; `;` does not separate. Names and values are compared after percent-decoding, so
//! that no spelling hides one (`%64ebug` is `debug`). `+` is a plus sign, not a blank: RFC 3986 and HTML forms disagree on it,
//! so conditions on blanks or plus signs are refused when the configuration is loaded.

/// Name and value of each parameter, as sent. `a` and `a=` both have an empty value.
pub fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').filter(|piece| !piece.is_empty()).map(|piece| piece.split_once('=').unwrap_or((piece, "")))
}

/// Whether the sent text means the plain text. A `%` without two hex digits stands for itself.
pub fn means(sent: &str, plain: &[u8]) -> bool {
    if !sent.as_bytes().contains(&b'%') {
        return sent.as_bytes() == plain;
    }
    let (mut sent, mut plain) = (sent.as_bytes(), plain);
    loop {
        let (byte, after) = match sent {
            [] => return plain.is_empty(),
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                (None, _) | (_, None) => (b'%', &sent[1..]),
            },
            [byte, after @ ..] => (*byte, after),
        };
        match plain.split_first() {
            Some((wanted, rest)) if *wanted == byte => (sent, plain) = (after, rest),
            Some(_) | None => return false,
        }
    }
}

/// The value of a hex digit of either case.
pub(super) fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_in_order_with_their_duplicates() {
        let read = |query: &'static str| parameters(query).collect::<Vec<_>>();
        assert_eq!(read("a=1&b&a=2&c=&d=x=y&&;e=1"), [("a", "1"), ("b", ""), ("a", "2"), ("c", ""), ("d", "x=y"), (";e", "1")]);
        assert_eq!(read(""), []);
        assert_eq!(read("=1"), [("", "1")]);
    }

    #[test]
    fn a_parameter_means_its_decoded_text() {
        for (sent, plain, expected) in [
            ("debug", "debug", true),
            ("%64ebug", "debug", true),
            ("%64%65bug", "debug", true),
            ("a%5Bb%5d", "a[b]", true),
            ("a[b]", "a[b]", true),
            ("Debug", "debug", false),
            ("debug", "debu", false),
            ("%64ebu", "debug", false),
            ("%64ebugs", "debug", false),
            ("", "", true),
            ("%", "%", true),
            ("%6", "%6", true),
            ("%zz", "%zz", true),
            ("%25", "%", true),
            ("a+b", "a b", false),
            ("a%2Bb", "a+b", true),
            ("caf%C3%A9", "caf\u{e9}", true),
        ] {
            assert_eq!(means(sent, plain.as_bytes()), expected, "{sent} {plain}");
        }
    }
}
