//! The configuration: read, checked, printed, compared and documented.
//!
//! Two stages. As written: a TOML file whose unknown keys are refused, and `SPILLQ_...` variables. Checked: [`Settings`],
//! plain data with every default filled. All problems are found at once, each with its line, key, value and what is
//! expected. Precedence: command line, environment, file, default.
//!
//! Everything about a key is one row in `keys`; the other files work from these rows.
//!
//! **Variables.** A setting outside the repeated sections (`[[follow]]`, `[[group]]`, `[[processor]]`) that is not a list
//! can be overridden by `SPILLQ_` and its key in capitals, with `_` for the dot: `disk.limit` by `SPILLQ_DISK_LIMIT`,
//! `data_dir` by `SPILLQ_DATA_DIR`. Relative paths in variables are relative to the working directory; an empty variable
//! counts as not set.
//!
//! This is the only module that reads configuration; it never creates, opens or looks up what the settings name.

mod again;
mod check;
mod destination;
mod documented;
mod key;
mod keys;
mod load;
mod paths;
mod problem;
mod read;
mod server;
mod settings;
mod show;
mod sources;
mod types;
mod value;
mod written;

pub use again::{Again, Change, load_again};
pub use documented::documented;
#[cfg(feature = "fuzzing")]
pub use load::load_given;
pub use load::{Loaded, load, read_text};
pub use problem::{ConfigError, Problem};
pub use settings::{
    Command, Consumers, DEFAULT_DATA_DIR, DEFAULT_GROUP, Http, IN_FLIGHT_MAX, Input, Kind, LEASED_BYTES_MAX,
    Listen, OutFile, Processor, SECTIONS_MAX, Service, Settings,
};
pub use show::{as_json, as_toml};
pub use sources::{Origin, Origins, Overrides, Sources, environment};
pub use value::{GIB, KIB, MIB, duration_text, parse_duration, parse_size, size_text};

#[cfg(test)]
mod tests;
