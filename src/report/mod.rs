//! What is written down: access log, metrics. Always, exactly once a request.

pub mod access_log;
