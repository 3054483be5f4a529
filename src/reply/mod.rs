//! What the client gets: response headers of an upstream's answer, or a problem document.

pub mod fixed;
pub mod grpc;
pub mod headers;
pub mod location;
pub mod own;
pub mod problem;
pub mod render;
