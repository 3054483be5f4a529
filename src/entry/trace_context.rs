//! Decides a request's trace and span (W3C Trace Context, level 1, section 3). Does not record or export spans.
//!
//! Any client may continue a trace: an id gives no rights, it only ties records together.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::request_id::{random_bytes, write_hex};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bit 0 of the flags, the only one that level 1 defines: the caller may have recorded this trace.
const SAMPLED: u8 = 1;

/// Trace id, own span id, the caller's span id, flags. All zeros only before [`TraceContext::decide`] ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    /// This hop's own; what the upstream sees as its parent.
    span_id: [u8; 8],
    /// The caller's span; none where the trace began here.
    parent: Option<[u8; 8]>,
    flags: u8,
}

// === impl TraceContext ===

impl TraceContext {
    /// Continues the trace of the one valid `traceparent`, else starts one (section 3.2.2: what cannot be parsed, or came
    /// twice, restarts the trace).
    pub fn decide(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(&TRACEPARENT).iter();
        let sent = match (lines.next(), lines.next()) {
            (Some(only), None) => parse(only.as_bytes()),
            (Some(_), Some(_)) | (None, _) => None,
        };
        let span_id = non_zero();
        match sent {
            Some((trace_id, parent, flags)) => TraceContext { trace_id, span_id, parent: Some(parent), flags },
            // Not sampled: the flag says that the caller recorded something, and nothing was recorded before or here.
            None => TraceContext { trace_id: non_zero(), span_id, parent: None, flags: 0 },
        }
    }

    /// Whether the caller's trace goes on. If not, its `tracestate` must not be passed on either (section 3.3).
    pub fn is_continued(&self) -> bool {
        self.parent.is_some()
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// 32 lower-case hex digits.
    pub fn trace_id(&self) -> Hex<32> {
        Hex::of(&self.trace_id)
    }

    /// This hop's span: 16 lower-case hex digits.
    pub fn span_id(&self) -> Hex<16> {
        Hex::of(&self.span_id)
    }

    /// The caller's span: 16 lower-case hex digits.
    pub fn parent_id(&self) -> Option<Hex<16>> {
        self.parent.as_ref().map(|id| Hex::of(id))
    }

    /// `traceparent` for the upstream, always version 00: `00-<trace id>-<own span id>-<flags>`.
    pub fn traceparent(&self) -> Hex<55> {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&Hex::<32>::of(&self.trace_id).0);
        text[36..52].copy_from_slice(&Hex::<16>::of(&self.span_id).0);
        text[53..55].copy_from_slice(&Hex::<2>::of(&[self.flags]).0);
        Hex(text)
    }

    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.traceparent().0).expect("hex digits and dashes")
    }
}

/// Hex digits (and the dashes of `traceparent`), without the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const N: usize>([u8; N]);

// === impl Hex ===

impl<const N: usize> Hex<N> {
    fn of(bytes: &[u8]) -> Self {
        let mut digits = [b'0'; N];
        write_hex(bytes, &mut digits);
        Hex(digits)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits are ASCII")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Section 3.2.2, 4.3: version 00 exactly; later versions by their first 55 characters, if a dash or nothing follows.
fn parse(text: &[u8]) -> Option<([u8; 16], [u8; 8], u8)> {
    let (head, tail) = text.split_at_checked(55)?;
    let [version] = unhex::<1>(&head[..2])?;
    let may_have_tail = version != 0;
    let dashes = head[2] == b'-' && head[35] == b'-' && head[52] == b'-';
    if version == 0xff || !dashes || !(tail.is_empty() || may_have_tail && tail[0] == b'-') {
        return None;
    }
    let trace_id = unhex::<16>(&head[3..35]).filter(|id| *id != [0; 16])?;
    let parent = unhex::<8>(&head[36..52]).filter(|id| *id != [0; 8])?;
    let [flags] = unhex::<1>(&head[53..55])?;
    // Section 3.2.2.5.1: flags that are not defined are not passed on.
    Some((trace_id, parent, flags & SAMPLED))
}

/// Lower-case hex digits only (section 3.2.1: HEXDIGLC).
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn non_zero<const N: usize>() -> [u8; N] {
    loop {
        let id = random_bytes::<N>();
        // Section 3.2.2.3: all zeros is no id. Chance: 2^-64 and less.
        if id != [0; N] {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn decide(lines: &[&str]) -> TraceContext {
        TraceContext::decide(&lines.iter().map(|line| (TRACEPARENT, HeaderValue::from_str(line).unwrap())).collect())
    }

    #[test]
    fn a_valid_parent_is_continued_with_a_span_of_our_own() {
        let context = decide(&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
        assert!(context.is_continued() && context.is_sampled());
        assert_eq!(context.trace_id().as_str(), TRACE);
        assert_eq!(context.parent_id().unwrap().as_str(), SPAN);
        assert_ne!(context.span_id().as_str(), SPAN);
        let sent = context.traceparent();
        assert_eq!(sent.as_str(), format!("00-{TRACE}-{}-01", context.span_id().as_str()));
        assert_eq!(context.to_header_value(), sent.as_str());
    }

    #[test]
    fn what_is_sent_on_can_be_continued_by_the_next_hop() {
        let first = decide(&[]);
        let second = decide(&[first.traceparent().as_str()]);
        assert_eq!(second.trace_id(), first.trace_id());
        assert_eq!(second.parent_id(), Some(first.span_id()));
    }

    #[test]
    fn without_a_parent_a_trace_begins_and_is_not_sampled() {
        let (one, other) = (decide(&[]), decide(&[]));
        assert!(!one.is_continued() && !one.is_sampled());
        assert_ne!(one.trace_id(), other.trace_id());
        assert_ne!(one.span_id(), other.span_id());
    }

    #[test]
    fn only_the_sampled_flag_is_passed_on() {
        for (flags, expected) in [("00", "00"), ("01", "01"), ("02", "00"), ("ff", "01"), ("fe", "00")] {
            let sent = decide(&[&format!("00-{TRACE}-{SPAN}-{flags}")]).traceparent();
            assert!(sent.as_str().ends_with(&format!("-{expected}")), "{flags}: {}", sent.as_str());
        }
    }

    #[test]
    fn a_later_version_is_read_by_the_rules_of_level_1() {
        for good in [
            format!("cc-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
            format!("01-{TRACE}-{SPAN}-01-"),
            format!("fe-{TRACE}-{SPAN}-01"),
        ] {
            let context = decide(&[&good]);
            assert_eq!(context.trace_id().as_str(), TRACE, "{good}");
            assert!(context.traceparent().as_str().starts_with("00-"));
        }
    }

    #[test]
    fn what_is_malformed_or_sent_twice_restarts_the_trace() {
        let upper_trace = TRACE.to_uppercase();
        let (zero_trace, zero_span) = ("0".repeat(32), "0".repeat(16));
        for bad in [
            String::new(),
            "00".into(),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("FE-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{zero_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{zero_span}-01"),
            format!("00-{upper_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0G"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("00-{TRACE}0{SPAN}-01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0\u{e9}"),
        ] {
            let context = decide(&[&bad]);
            assert!(!context.is_continued(), "{bad}");
            assert_ne!(context.trace_id().as_str(), TRACE, "{bad}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert!(!decide(&[&good, &good]).is_continued());
    }
}
