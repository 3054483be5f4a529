//! The names, words and labels of all metrics, and how samples become Prometheus' text format.
//!
//! Decides what a metric is called; label values come from the configuration or from closed lists only, never from a request.
//! Does not count: see `route.rs` and `series.rs`, and for what other chapters count, [`Metrics::source`](super::Metrics::source).

use prometheus::proto::{Bucket, Counter, Gauge, Histogram as HistogramProto, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Error, TextEncoder};

use super::histogram::Histogram;

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: Sort,
    pub labels: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Counter,
    Gauge,
    Histogram,
}

/// Collects the samples of one family at a scrape.
#[derive(Debug)]
pub struct Samples {
    family: &'static Family,
    metrics: Vec<Metric>,
}

/// Declares the families and the list of all, in the order in which they are shown.
macro_rules! families {
    ($list:ident: $($constant:ident = $sort:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $constant: Family = Family { name: $name, help: $help, kind: Sort::$sort, labels: &[$($label),*] };
        )*
        pub static $list: &[&Family] = &[$(&$constant),*];
    };
}

families! { ALL:
    // What each request leaves behind, counted in `route.rs` and `series.rs`.
    REQUESTS = Counter "sluice_requests_total" ["route", "status_class", "code"]
        "Requests answered. No route: none matched or it came to no choice. No code: not the gateway's own answer. Class none: the client got no answer.";
    DURATION = Histogram "sluice_request_duration_seconds" ["route"] "Time from the request head to the last byte of the answer.";
    GATEWAY_DURATION = Histogram "sluice_gateway_duration_seconds" ["route"] "The part of the time that was not spent waiting for an upstream.";
    REFUSALS = Counter "sluice_refusals_total" ["policy", "code"] "Requests that the gateway refused, by what refused them and why.";
    WOULD_REFUSE = Counter "sluice_would_refuse_total" ["route", "code"] "Requests that a shadowed policy let pass and would have refused.";
    GRPC_CALLS = Counter "sluice_grpc_calls_total" ["route", "status"] "Calls of gRPC by their status, whether the upstream or the gateway gave it.";
    WEBSOCKETS = Gauge "sluice_websockets" ["route"] "Open WebSockets.";
    FALLBACKS = Counter "sluice_fallbacks_total" ["route", "code"] "Requests whose upstream could not be reached, and that the route's `fallback` answered or sent elsewhere: the code that they would have been refused with.";
    FAULTS = Counter "sluice_faults_total" ["route", "fault"] "Faults made on purpose: delay or abort.";
    MIRRORED = Counter "sluice_mirrored_total" ["route", "result"] "Requests to be mirrored: the other upstream answered (answered), could not be reached or did not answer in time (failed); or there was no copy, because too many wait (queue-full), the body is too large (body-too-large), or it is a WebSocket or a call of gRPC (unfit).";
    WEBSOCKETS_OPENED = Counter "sluice_websockets_opened_total" ["route"] "WebSockets opened.";
    WEBSOCKETS_CLOSED = Counter "sluice_websockets_closed_total" ["route", "by"] "WebSockets closed, by who ended them: client, upstream or gateway.";
    WEBSOCKET_BYTES = Counter "sluice_websocket_bytes_total" ["route", "direction"] "Bytes through WebSockets from (in) and to (out) clients, as they pass.";
    WEBSOCKET_DURATION = Histogram "sluice_websocket_duration_seconds" ["route"] "Time from the handshake to the end of a WebSocket.";
    LIMITED = Counter "sluice_limited_total" ["limit", "key"] "Requests that a limit or plan refused, by what it counted by.";
    LIMITED_CALLERS = Gauge "sluice_limited_callers" ["limit"] "About how many different callers a limit or plan has refused in this minute and the last.";
    TAGGED = Counter "sluice_tagged_requests_total" ["tag", "value", "result"] "Requests of callers with a tag: passed, or refused by the gateway. Values that the configuration does not name are `other`.";
    LIMIT_STORE_UP = Gauge "sluice_limit_store_up" [] "Whether the store of shared limits answers; where it does not, each gateway counts its part alone.";
    LIMIT_STORE_FAILURES = Counter "sluice_limit_store_failures_total" [] "Attempts to reach or settle with the store of shared limits that failed.";
    LIMIT_GATEWAYS = Gauge "sluice_limit_gateways" [] "Gateways that share limits over the store, as was last known.";
    LIMIT_HELD = Gauge "sluice_limit_held" ["limit"] "Places of a limit on requests at once that are taken, of all callers.";
    LIMIT_UPSTREAM_HELD = Gauge "sluice_limit_upstream_held" ["limit", "upstream"] "Places of a limit on requests at once `per: upstream` that are taken.";
    LIMIT_UPSTREAM_REFUSED = Counter "sluice_limit_upstream_refused_total" ["limit", "upstream"] "Requests that found no place at an upstream.";
    LIMIT_WAITING = Gauge "sluice_limit_waiting" ["limit"] "Requests that a limit delays now.";
    LIMIT_DELAYED = Counter "sluice_limit_delayed_total" ["limit"] "Requests that a limit has delayed.";
    IN_FLIGHT = Gauge "sluice_requests_in_flight" ["listener"] "Requests begun and not yet ended.";
    BYTES = Counter "sluice_bytes_total" ["listener", "direction"] "Bytes of bodies from (in) and to (out) clients.";
    HEAD_REFUSALS = Counter "sluice_head_refusals_total" ["listener", "code"] "Request heads refused before they were a request.";
    CONNECTIONS = Gauge "sluice_connections" ["listener"] "Open connections of clients.";
    ACCEPTED = Counter "sluice_connections_accepted_total" ["listener"] "Connections accepted, those dropped at once included.";
    CONNECTION_DROPS = Counter "sluice_connections_dropped_total" ["listener", "reason"] "Connections of clients that the gateway closed without an answer.";
    TLS_HANDSHAKES = Counter "sluice_tls_handshakes_total" ["listener", "result"] "TLS handshakes with clients: full, resumed, or how they failed.";
    UPSTREAM_REQUESTS = Counter "sluice_upstream_requests_total" ["upstream", "result"] "Attempts at upstreams: the class of the answer, or how it failed.";
    SHED = Counter "sluice_shed_total" ["full", "priority"]
        "Requests refused, or sent to a fallback, because something is full: their upstream (`adaptive_concurrency`), the requests at once or the memory of the process. By priority; any: all are refused.";
    UPSTREAM_BYTES = Counter "sluice_upstream_bytes_total" ["upstream", "direction"] "Bytes of bodies to (out) and from (in) upstreams.";
    UPSTREAM_CONNECTIONS = Counter "sluice_upstream_connections_total" ["upstream", "connection"] "Connections taken for attempts: new, or reused from the pool.";
    RETRIES = Counter "sluice_upstream_retries_total" ["upstream", "reason"] "Requests sent again, by why the attempt before had failed.";
    RETRIES_GIVEN_UP = Counter "sluice_upstream_retries_given_up_total" ["upstream", "reason"]
        "Requests that were to be sent again and were not, by why: budget means that too many others were.";
    // What other chapters know and are asked for at a scrape.
    TARGET_HEALTHY = Gauge "sluice_target_healthy" ["upstream", "target"] "Whether a target is given requests: 1 or 0.";
    FOUND_TARGETS = Gauge "sluice_found_targets" ["upstream"] "Targets that an upstream with `targets_from` has.";
    FOUND_ANSWERED = Gauge "sluice_found_answered_timestamp_seconds" ["upstream"] "When the source of an upstream's targets gave its last good answer.";
    FOUND_ANSWERS = Counter "sluice_found_answers_total" ["upstream", "result"] "Answers of the source of an upstream's targets: ok, or failed, so that the targets of before stay.";
    TARGET_OUT = Gauge "sluice_target_out" ["upstream", "target", "cause"] "Addresses of a target that are out, by cause: check, ejected, circuit or drained. Only where there are any.";
    TARGET_EJECTIONS = Counter "sluice_target_ejections_total" ["upstream", "target"] "Ejections by `outlier_detection`.";
    TARGET_CIRCUITS_OPENED = Counter "sluice_target_circuit_opened_total" ["upstream", "target"] "How often the circuit of a target's address opened.";
    CIRCUIT_OPEN = Gauge "sluice_circuit_open" ["upstream"] "The circuit of an upstream: 0 closed, 1 open, 0.5 half open.";
    CIRCUIT_OPENED = Counter "sluice_circuit_opened_total" ["upstream"] "How often the circuit of an upstream opened.";
    UPSTREAM_PANIC = Gauge "sluice_upstream_panic" ["upstream"] "Whether so many addresses are out that all are used (`panic_threshold`).";
    UPSTREAM_SPARED = Counter "sluice_upstream_spared_total" ["upstream"] "Ejections that were not made because enough was ejected (`max_ejected`) or nothing else would be left.";
    UPSTREAM_CONNECTIONS_OPEN = Gauge "sluice_upstream_connections_open" ["upstream"] "Connections to an upstream that are open, those at rest included; where it has `max_connections`.";
    UPSTREAM_CONNECTIONS_OVER = Counter "sluice_upstream_connections_over_total" ["upstream"] "Connections that were opened above `max_connections`, because a worker had none to the address.";
    CONCURRENCY_LIMIT = Gauge "sluice_upstream_concurrency_limit" ["upstream"] "Requests at once that an upstream with `adaptive_concurrency` gets at this moment.";
    CONCURRENCY = Gauge "sluice_upstream_concurrency_in_flight" ["upstream"] "Requests that it has.";
    UPSTREAM_WAITING = Gauge "sluice_upstream_waiting" ["upstream"] "Requests that wait in the `queue` of an upstream.";
    LIMITER_BUCKETS = Gauge "sluice_limiter_buckets" [] "Buckets of limits in use.";
    LIMITER_EVICTED = Counter "sluice_limiter_evicted_total" [] "Buckets at rest that gave way to new keys.";
    LIMITER_OVERFLOWED = Counter "sluice_limiter_overflowed_total" [] "Requests counted in a shared overflow bucket because no bucket was at rest.";
    TOKEN_MEMORY_HITS = Counter "sluice_token_memory_hits_total" ["authenticator"] "Tokens that were remembered, so that no signature was verified.";
    TOKEN_MEMORY_MISSES = Counter "sluice_token_memory_misses_total" ["authenticator"] "Tokens that had to be verified.";
    TLS_EXPIRY = Gauge "sluice_tls_certificate_expiry_timestamp_seconds" ["listener", "certificate"] "When a certificate of the gateway's expires.";
    TLS_LISTS = Gauge "sluice_tls_revocation_list_expiry_timestamp_seconds" ["listener", "certificate"] "When the first of the revocation lists of clients that were shown a certificate is past its date.";
    KEY_SET_KEYS = Gauge "sluice_key_set_keys" ["authenticator"] "Keys of a provider's set that can verify tokens.";
    KEY_SET_FETCHED = Gauge "sluice_key_set_fetched_timestamp_seconds" ["authenticator"] "When the provider's key set that is in use was fetched.";
    KEY_SET_NEXT = Gauge "sluice_key_set_next_fetch_timestamp_seconds" ["authenticator"] "When the provider's key set is fetched next.";
    KEY_SET_FETCHES = Counter "sluice_key_set_fetches_total" ["authenticator", "result"] "Attempts to fetch a provider's key set: ok or failed.";
    KEY_SET_UNKNOWN = Counter "sluice_key_set_unknown_keys_total" ["authenticator", "result"] "Tokens with a key that is not in the set: the provider was asked at once, or the question was held back.";
    INTROSPECTIONS = Counter "sluice_introspections_total" ["authenticator", "result"] "Opaque tokens: the issuer said that they are active or inactive, could not be asked (failed), was not asked because too many questions were on their way (held-back), or had said so before (remembered).";
    LIST_ENTRIES = Gauge "sluice_list_entries" ["list"] "Entries of a file that is read again while the gateway runs: keys of `consumers`, or `revocation`.";
    LIST_READ = Gauge "sluice_list_read_timestamp_seconds" ["list"] "When what is in use of such a file was read.";
    LIST_READS = Counter "sluice_list_reads_total" ["list", "result"] "Such a file changed and was read again: ok, or failed, so that what was read last stays in use.";
    LIST_LAG = Gauge "sluice_list_lag_seconds" ["list"] "Of a list in the store: from a publication on its channel to its effect here, as last measured.";
    LIST_UNUSABLE = Gauge "sluice_list_unusable_entries" ["list"] "Of a list in the store: entries that say nothing that can be used, and are left out.";
    RELOADS = Counter "sluice_reloads_total" ["result"] "Attempts to change the configuration in place: accepted or refused.";
    RELOAD_LAST_SUCCESS = Gauge "sluice_reload_last_success_timestamp_seconds" [] "When the configuration that runs was loaded.";
    CONFIG_INFO = Gauge "sluice_config_info" ["hash"] "The configuration that runs.";
    LOG_LINES = Counter "sluice_access_log_lines_total" [] "Access-log lines written.";
    LOG_DROPPED = Counter "sluice_access_log_dropped_total" [] "Access-log lines lost: the reader was too slow or the disk full.";
    LOG_LEFT_OUT = Counter "sluice_access_log_left_out_total" [] "Access-log lines of requests that went well that access_log.sample left out.";
    LOG_BYTES = Counter "sluice_access_log_bytes_total" [] "Bytes of access log written.";
    LOG_ERRORS = Counter "sluice_access_log_errors_total" [] "Writes and reopenings of the access log that failed.";
    // The process.
    BUILD_INFO = Gauge "sluice_build_info" ["version"] "The version that runs.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" [] "Total user and system CPU time spent in seconds.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" [] "Resident memory size in bytes.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" [] "Virtual memory size in bytes.";
    PROCESS_OPEN_FDS = Gauge "process_open_fds" [] "Number of open file descriptors.";
    PROCESS_MAX_FDS = Gauge "process_max_fds" [] "Maximum number of open file descriptors.";
    PROCESS_START = Gauge "process_start_time_seconds" [] "Start time of the process since unix epoch in seconds.";
}

// === impl Samples ===

impl Samples {
    pub(super) fn of(family: &'static Family) -> Self {
        Samples { family, metrics: Vec::new() }
    }

    /// One value. `labels` has a value for each label of the family, in its order.
    pub fn put(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.metric(labels);
        match self.family.kind {
            Sort::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Sort::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Sort::Histogram => return debug_assert!(false, "`{}` is a histogram", self.family.name),
        }
        self.metrics.push(metric);
    }

    pub(super) fn put_histogram<const N: usize>(&mut self, labels: &[&str], histogram: &Histogram<N>) {
        let mut count = 0;
        let buckets = histogram.buckets().map(|(bound_us, within)| {
            count += within;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound_us as f64 / 1e6);
            bucket.set_cumulative_count(count);
            bucket
        });
        let mut proto = HistogramProto::default();
        proto.set_bucket(buckets.collect());
        proto.set_sample_count(count + histogram.beyond());
        proto.set_sample_sum(histogram.sum_us() as f64 / 1e6);
        let mut metric = self.metric(labels);
        metric.set_histogram(proto);
        self.metrics.push(metric);
    }

    fn metric(&self, values: &[&str]) -> Metric {
        debug_assert_eq!(self.family.labels.len(), values.len(), "labels of `{}`", self.family.name);
        let pairs = self.family.labels.iter().zip(values).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        Metric::from_label(pairs.collect())
    }

    /// Appends the family in the text format; nothing where it has no samples.
    pub(super) fn encode(self, text: &mut String) -> Result<(), Error> {
        if self.metrics.is_empty() {
            return Ok(());
        }
        let mut family = MetricFamily::default();
        family.set_name(self.family.name.to_owned());
        family.set_help(self.family.help.to_owned());
        family.set_field_type(match self.family.kind {
            Sort::Counter => MetricType::COUNTER,
            Sort::Gauge => MetricType::GAUGE,
            Sort::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(self.metrics);
        TextEncoder::new().encode_utf8(&[family], text)
    }
}
