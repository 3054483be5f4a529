//! From a request head to a route: request id, trace context, client address, canonical form, route. In this order.

pub mod canonical;
pub mod client_ip;
pub mod query;
pub mod request_id;
pub mod route;
pub mod trace_context;

#[cfg(test)]
pub(crate) mod testing {
    //! What the tests of this chapter share.

    use std::sync::Arc;

    use crate::config::diagnostic::{Place, Source};
    use crate::config::types::At;

    /// A small generator (xorshift64*): the same numbers in every run.
    pub struct Prng(u64);

    impl Prng {
        pub fn new(seed: u64) -> Self {
            Prng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
        }

        pub fn next(&mut self) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
        }

        pub fn below(&mut self, end: usize) -> usize {
            self.next() as usize % end
        }

        pub fn chance(&mut self, of_ten: usize) -> bool {
            self.below(10) < of_ten
        }
    }

    /// A place in no file.
    pub fn place(line: u32) -> Place {
        let source = Arc::new(Source { path: "test.yaml".into(), text: String::new() });
        Place { source, line, column: 1, width: 1 }
    }

    pub fn at<T>(value: T) -> At<T> {
        At { value, place: place(1) }
    }
}
