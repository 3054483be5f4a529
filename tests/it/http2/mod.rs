//! HTTP/2 from clients: what is served, refused, bounded and logged.

mod serve;
