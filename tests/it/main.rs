//! What spillq does as a whole, with real processes and files.

#![allow(
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise, and so may its helpers"
)]

mod exec;
