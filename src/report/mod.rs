//! What is written down: access log, metrics, process log. Always, exactly once a request.
//!
//! In order: the line is formatted (`access_log`, with `json` and `civil`), handed to the thread that writes it (`writer`).
//! Beside it, everything is counted (`metrics`). What the process itself has to say goes through `process_log`.

pub mod access_log;
pub mod civil;
pub mod json;
pub mod metrics;
pub mod process_log;
pub mod writer;
