//! From a request head to a route: request id, trace context, client address, canonical form, route. In this order.

pub mod canonical;
pub mod client_ip;
pub mod request_id;
pub mod route;
pub mod trace_context;
