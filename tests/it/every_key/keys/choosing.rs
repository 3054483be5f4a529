//! The keys that prefer one target to another.

use super::super::proof::Proof::{Test, TestInstead};
use super::Row;

const COOKIE: &str = "a_cookie_keeps_a_client_at_its_target_until_that_is_gone";

pub const KEYS: &[Row] = &[
    ("server.zone", TestInstead("targets_in_the_zone_of_the_gateway_are_preferred", "north")),
    ("upstreams.*.targets[].zone", TestInstead("targets_in_the_zone_of_the_gateway_are_preferred", "north")),
    ("upstreams.*.targets[].priority", Test("a_lower_priority_gets_nothing_until_the_higher_is_gone")),
    ("upstreams.*.slow_start", Test("a_new_target_gets_its_share_slowly")),
    ("upstreams.*.sticky.cookie", TestInstead(COOKIE, "other")),
    ("upstreams.*.sticky.secret", TestInstead(COOKIE, "00000000000000000000000000000000")),
    ("upstreams.*.sticky.max_age", Test(COOKIE)),
    ("upstreams.*.sticky.same_site", Test(COOKIE)),
    ("upstreams.*.sticky.secure", Test(COOKIE)),
];
