//! HTTP/2 from clients: what is served, refused, bounded and logged.

mod fuzz;
mod harm;
mod malformed;
mod peers;
mod serve;
