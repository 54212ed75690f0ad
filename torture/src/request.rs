//! A request of a hostile client, and how the client ends.

/// One request, and what its client does then.
pub(crate) struct Request {
    pub(crate) kind: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) end: End,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum End {
    /// It reads the answer, which must come.
    Waits,
    /// It ends its side of the connection, then reads.
    Half,
    /// It leaves at once.
    Gone,
}
