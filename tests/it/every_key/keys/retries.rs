//! The keys of `retries`, of what is refused under overload, and of a route that says whether its requests may be sent twice.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    ("upstreams.*.retries.on", TestInstead("each_condition_is_tried_again_after_where_it_is_written_and_nowhere_else", "[connect]")),
    ("upstreams.*.retries.attempt_timeout", TestInstead("an_attempt_may_take_as_long_as_is_written_and_all_together_too", "2s")),
    ("upstreams.*.retries.backoff.base", TestInstead("backoff_waits_before_what_was_sent_and_not_before_what_was_not", "1ms")),
    (
        "upstreams.*.retries.backoff.max",
        Differs(
            "upstreams: { u: { targets: [127.0.0.1:2], retries: { on: [503], backoff: { base: 25ms, max: [[50ms||75ms]] } } } }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a"],
        ),
    ),
    ("upstreams.*.retries.retry_after", Test("an_upstream_that_wants_to_be_left_alone_is_for_as_long_as_is_written")),
    ("upstreams.*.retries.body", TestInstead("a_body_is_sent_again_byte_for_byte_up_to_what_is_kept", "64KiB")),
    ("upstreams.*.retries.budget.share", TestInstead("retries_add_no_more_than_their_share_to_an_outage_and_to_its_end", "100%")),
    ("upstreams.*.retries.budget.min_per_second", TestInstead("retries_add_no_more_than_their_share_to_an_outage_and_to_its_end", "1000")),
    ("upstreams.*.adaptive_concurrency.min", TestInstead("a_full_upstream_refuses_those_who_matter_least_first", "1")),
    ("upstreams.*.adaptive_concurrency.max", TestInstead("a_full_upstream_refuses_those_who_matter_least_first", "1000")),
    ("plans.*.priority", Test("a_full_upstream_refuses_those_who_matter_least_first")),
    ("routes.*.priority", Test("a_full_upstream_refuses_those_who_matter_least_first")),
    ("routes.*.idempotent", Test("only_what_may_be_sent_twice_is_sent_again")),
];
