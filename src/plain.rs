//! Text for people: numbers in sentences, and text from outside made safe to show. Uses nothing else of the crate.

mod counted;
mod duration;
mod json;
mod terminal;
mod time;

pub use counted::{counted, number, size, span, waiting};
pub use duration::{axis_duration, duration, rough_duration};
pub use json::json_line;
pub(crate) use terminal::beginning;
pub use terminal::{UNSAFE, escape, escape_but_tabs, escape_path, harmless, needs_escape};
pub use time::rfc3339;
