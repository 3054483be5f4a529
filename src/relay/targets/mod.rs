//! Who an upstream is: its members as written, what is known of each while it runs, and where its addresses come from.
//!
//! From `members` (written) and `address` to a `target` with its `endpoint`s; `discovery` and `resolver` keep addresses current. `standing` says
//! whether one may take requests, `turns` carries that out, `figures` counts, `drain` takes out what the operator names,
//! `group` is the upstream as a whole, `pool` what a snapshot sees of it.

pub mod address;
pub mod discovery;
pub(in crate::relay) mod drain;
pub mod endpoint;
pub mod figures;
pub mod group;
pub mod members;
pub mod pool;
pub mod resolver;
pub mod standing;
pub mod target;
pub(in crate::relay) mod turns;
