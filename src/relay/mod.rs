//! From a decision to an answer of an upstream.
//!
//! In order: `choice` says which upstream, `admit` whether it takes the request now (`circuit`, `adaptive`, `gate`), `balance` which of its
//! `targets`; `message` makes the head that goes there; `attempt` opens (where there is `room`), sends and bounds; `retry` (by the rules of
//! `retries`) and `fallback` say what follows a failure; `message` makes the head that the client gets. Beside a request's way: `finding` (where
//! targets come from), `health` and `outliers` (which are out), `mirror` (copies), `translate` (gRPC-Web).

pub mod adaptive;
pub mod admit;
pub mod attempt;
pub mod balance;
pub mod choice;
pub mod circuit;
pub mod fallback;
pub mod finding;
pub mod gate;
pub mod health;
pub mod message;
pub mod mirror;
pub mod outliers;
pub mod retries;
pub mod retry;
pub mod room;
pub mod targets;
pub mod translate;
pub mod upstream;
