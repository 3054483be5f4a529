//! Decides which requests have a line: all, or of those that went well a share. What was refused, failed, was tried again or would have been
//! refused always has one.

use std::cell::RefCell;

use super::{AccessLog, Line, LogFormat, combined};
use crate::config::types::Percent;
use crate::report::writer::Sink;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(4096));
}

// === impl Line ===

impl Line<'_> {
    /// Formats the line into this thread's buffer and hands it to `sink`, unless the sample leaves it out. Allocates nothing once the buffer has grown.
    pub fn send(&self, sink: &Sink, log: &AccessLog) {
        if self.sample.is_some_and(|share| self.went_well() && !falls_into(share)) {
            return sink.leave_out();
        }
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            match log.format {
                LogFormat::Json => self.append_to(buffer),
                LogFormat::Combined => combined::append(self, buffer),
            }
            sink.append(buffer);
        });
    }

    /// Whether there is nothing about it that somebody would look for.
    pub(super) fn went_well(&self) -> bool {
        self.status.is_some_and(|status| status < 400)
            // Of an answer that was cut after its head the status is good.
            && self.code.is_empty()
            && self.reason.is_empty()
            && self.limit.is_empty()
            && self.fallback.is_empty()
            && self.failed.is_empty()
            && self.would_refuse.is_empty()
            && (self.grpc_status.is_empty() || self.grpc_status == "OK")
    }
}

fn falls_into(share: Percent) -> bool {
    fastrand::u16(..10_000) < share.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Line<'static> {
        Line { status: Some(200), sample: Some(Percent(25)), ..Line::default() }
    }

    #[test]
    fn what_somebody_would_look_for_is_never_left_out() {
        assert!(good().went_well() && Line { status: Some(304), grpc_status: "OK", ..good() }.went_well());
        for line in [
            Line { status: None, ..good() },
            Line { status: Some(404), ..good() },
            Line { status: Some(502), ..good() },
            Line { code: "client-gone", ..good() },
            Line { reason: "closed early", ..good() },
            Line { limit: "one", ..good() },
            Line { fallback: "answer", ..good() },
            Line { would_refuse: &["rate-limited"], ..good() },
            Line { grpc_status: "UNAVAILABLE", ..good() },
        ] {
            assert!(!line.went_well(), "{line:?}");
        }
    }

    #[test]
    fn a_line_of_a_sample_says_so_and_any_other_does_not() {
        let told = |line: Line<'_>| {
            let mut out = Vec::new();
            line.append_to(&mut out);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap()["sample"].as_f64()
        };
        assert_eq!(told(good()), Some(0.0025));
        assert_eq!((told(Line { status: Some(500), ..good() }), told(Line { sample: None, ..good() })), (None, None));
    }

    #[test]
    fn as_many_fall_into_a_sample_as_its_share_says() {
        fastrand::seed(7);
        let count = |share| (0..100_000).filter(|_| falls_into(Percent(share))).count();
        assert_eq!((count(0), count(10_000)), (0, 100_000));
        assert!((2_300..2_700).contains(&count(250)), "2.5 %");
    }
}
