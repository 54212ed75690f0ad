//! Standard input and FIFOs, whose bytes can be read once.

pub(crate) mod pipe;
pub(crate) mod stream;
pub(crate) mod streams;
pub(crate) mod wait;
