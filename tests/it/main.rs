//! What spillq does as a whole, with real processes and files.

mod exec;
