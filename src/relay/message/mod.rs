//! Heads on their way upstream and back: what a route changes of them, and what may never pass.
//!
//! Upstream (`send`): the path is rewritten (`rewrite`, `template`), headers that only the gateway may set are taken out (`strip`), those of one hop
//! go (`hop_by_hop`), the route's are written (`edits`, `head`). Back (`receive`): the length must mean one thing to everybody (`framing`).

pub mod edits;
pub mod framing;
pub mod head;
pub mod hop_by_hop;
pub mod receive;
pub mod rewrite;
pub mod send;
pub mod strip;
pub mod template;
