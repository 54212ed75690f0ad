//! `spillq bench`: figures of this machine, each beside a yardstick taken in the same run.

pub mod generate;
