//! The keys of `server`, `standards`, `access_log`, `admin` and `clients`.

use super::super::proof::Proof::{Differs, Test, TestInstead};
use super::Row;

pub const KEYS: &[Row] = &[
    ("standards.tls_minimum", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.token_lifetime", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.token_algorithms", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.key_format.prefix", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.key_format.length", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("standards.auth_required", Test("every_part_keeps_to_the_standards_or_is_refused")),
    ("server.threads", Test("as_many_workers_run_as_are_configured")),
    ("server.drain", Test("what_takes_longer_than_the_drain_is_cut_counted_and_logged")),
    ("server.settle", Test("while_it_settles_it_takes_new_connections_and_says_that_it_is_not_ready")),
    ("server.state", Test("a_certified_provider_is_discovered_its_keys_rotate_and_its_outage_is_survived")),
    ("server.watch", Test("a_watched_file_takes_effect_by_itself")),
    ("server.limits_memory", Test("more_callers_than_the_memory_of_limits_holds_are_counted")),
    ("server.tokens_memory", Test("the_memory_of_tokens_is_as_large_as_configured")),
    ("access_log.to", Test("logrotate_moves_the_file_and_a_signal_begins_a_new_one")),
    ("access_log.sample", Test("of_what_goes_well_a_sample_has_lines_and_all_else_always")),
    ("access_log.format", Test("the_combined_format_is_what_readers_of_other_logs_expect_and_a_reload_changes_it")),
    ("admin.address", Test("each_listener_listens_where_it_is_told_to_and_so_does_admin")),
    (
        "clients.trusted_proxies",
        Differs(
            "clients: { trusted_proxies: [ [[192.0.2.1||10.0.0.0/8]] ] }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-forwarded-for: 198.51.100.7"],
        ),
    ),
    (
        "clients.header",
        Differs(
            "clients: { trusted_proxies: [192.0.2.1], header: [[cf-connecting-ip||x-forwarded-for]] }\nroutes: { r: { match: { path: /a }, auth: public, upstream: u } }",
            &["GET http://h/a | x-forwarded-for: 198.51.100.7 | cf-connecting-ip: 198.51.100.8"],
        ),
    ),
    ("server.limits_store.redis", TestInstead("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it", "127.0.0.1:1")),
    ("server.limits_store.username", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("server.limits_store.password", TestInstead("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it", "wrong")),
    ("server.limits_store.prefix", Test("gateways_with_one_store_admit_one_limit_together_and_go_on_without_it")),
    ("server.limits_store.tls.ca", Test("a_store_is_spoken_to_over_tls_as_the_user_of_the_docs_and_no_other_is_believed")),
    ("server.limits_store.tls.server_name", Test("a_store_is_spoken_to_over_tls_as_the_user_of_the_docs_and_no_other_is_believed")),
    ("server.limits_store.sentinel.master", TestInstead("sentinels_name_the_master_and_a_failover_is_followed", "nobody")),
    ("server.limits_store.sentinel.at", TestInstead("sentinels_name_the_master_and_a_failover_is_followed", "[127.0.0.1:1]")),
    ("server.limits_store.sentinel.username", Test("sentinels_name_the_master_and_a_failover_is_followed")),
    ("server.limits_store.sentinel.password", TestInstead("sentinels_name_the_master_and_a_failover_is_followed", "wrong")),
    (
        "server.limits_store.cluster",
        TestInstead("a_cluster_of_three_counts_as_one_while_its_slots_move_and_a_node_comes_and_goes", "[127.0.0.1:1]"),
    ),
    ("server.overload.in_flight", TestInstead("the_process_takes_as_many_at_once_as_it_may", "1000")),
    ("server.overload.memory", TestInstead("with_its_memory_used_up_the_process_takes_fewer_requests_and_says_so", "100GiB")),
    ("server.pool", Test("no_more_connections_rest_than_the_server_keeps")),
];
