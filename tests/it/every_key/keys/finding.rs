//! The keys of `resolver` and of `targets_from`.

use super::super::proof::Proof::{Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    ("resolver.servers", Test("srv_records_are_targets_as_long_as_their_time_to_live_and_an_outage_changes_nothing")),
    ("resolver.ttl_floor", Test("an_answer_of_addresses_holds_as_its_time_to_live_says_within_floor_and_ceiling")),
    ("resolver.ttl_ceiling", Test("an_answer_of_addresses_holds_as_its_time_to_live_says_within_floor_and_ceiling")),
    (
        "upstreams.*.targets_from.file",
        TestInstead("targets_of_a_file_change_without_a_reload_and_a_bad_file_changes_nothing", "others.yaml"),
    ),
    (
        "upstreams.*.targets_from.srv",
        TestInstead("srv_records_are_targets_as_long_as_their_time_to_live_and_an_outage_changes_nothing", "_http._tcp.others.internal"),
    ),
    (
        "upstreams.*.targets_from.consul.service",
        TestInstead("instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing", "others"),
    ),
    ("upstreams.*.targets_from.consul.tag", Test("instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing")),
    ("upstreams.*.targets_from.consul.datacenter", Test("instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing")),
    ("upstreams.*.targets_from.consul.address", Test("instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing")),
    ("upstreams.*.targets_from.consul.token", Test("instances_in_consul_are_targets_and_an_outage_of_consul_changes_nothing")),
    ("upstreams.*.targets_from.consul.ca", Test("consul_over_tls_is_believed_only_with_a_certificate_of_the_right_authority")),
    ("upstreams.*.targets_from.drain", Test("an_operator_drains_targets_that_are_found_from_their_first_moment_on")),
    ("upstreams.*.targets_from.kubernetes.service", TestInstead(KUBERNETES, "others")),
    ("upstreams.*.targets_from.kubernetes.namespace", TestInstead(KUBERNETES, "others")),
    ("upstreams.*.targets_from.kubernetes.port", Test(KUBERNETES)),
    ("upstreams.*.targets_from.kubernetes.address", Test(KUBERNETES)),
    ("upstreams.*.targets_from.kubernetes.token_file", Test(KUBERNETES)),
    ("upstreams.*.targets_from.kubernetes.ca", Test(KUBERNETES)),
];

const KUBERNETES: &str = "endpoints_of_a_kubernetes_service_are_targets_through_watches_that_end_and_versions_that_are_forgotten";
