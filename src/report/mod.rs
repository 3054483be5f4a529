//! What is written down: access log, process log. Always, exactly once a request.
//!
//! In order: the line is formatted (`access_log`, with `json` and `civil`), handed to the thread that writes it (`writer`).
//! What the process itself has to say goes through `process_log`.

pub mod access_log;
pub mod civil;
pub mod json;
pub mod process_log;
pub mod writer;
