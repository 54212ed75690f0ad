//! Where the parts of a load are, and the configuration that follows from it.
//!
//! The groups are a strict one that records each batch through `exec` (a campaign may choose `exec-stream`), an unordered one through `exec-stream` that
//! cannot process some lines, so that lines are relocated and dead letters made, one that appends to a file, and one that appends
//! the lines of the first source only.

use std::path::{Path, PathBuf};

/// The paths of a load.
#[derive(Clone, Debug)]
pub struct Places {
    /// Notes, messages, the recorded file and the configuration: never cut, never full.
    pub folder: PathBuf,
    /// The store.
    pub data_dir: PathBuf,
    /// The followed files.
    pub logs: PathBuf,
    /// The keys of `[disk]`.
    pub room: &'static str,
    /// More keys of the strict group.
    pub strict_options: &'static str,
    /// Whether the strict group has an `exec-stream` command.
    pub strict_stream: bool,
    /// More arguments of its receiver, as TOML.
    pub strict_receiver: String,
}

impl Places {
    /// All of it below `folder`.
    pub fn below(folder: &Path) -> Places {
        Places {
            folder: folder.to_owned(),
            data_dir: folder.join("q"),
            logs: folder.join("logs"),
            room: "min_free = \"16MiB\"\nreserve = \"8MiB\"",
            strict_options: "",
            strict_stream: false,
            strict_receiver: String::new(),
        }
    }

    /// The configuration; `receiver` is this program.
    pub fn config(&self, receiver: &Path) -> String {
        let Places { folder, data_dir, logs, room, strict_options, strict_stream, strict_receiver } = self;
        let (strict_kind, stream) =
            if *strict_stream { ("exec-stream", "\"--stream\", ") } else { ("exec", "") };
        let notes = folder.join("notes");
        format!(
            r#"data_dir = {data_dir:?}
[disk]
{room}
[[follow]]
include = ["{logs}/w*.log*"]
[[group]]
name = "strict"
{strict_options}
batch = {{ lines = 2000, bytes = "1MiB" }}
[[group]]
name = "holes"
order = "none"
in_flight = 2
batch = {{ lines = 2000, bytes = "1MiB" }}
retry = {{ initial = "20ms", max = "200ms", attempts = 4 }}
[[group]]
name = "record"
batch = {{ bytes = "1MiB" }}
[[group]]
name = "some"
include = ["{logs}/w0.log*"]
batch = {{ lines = 500, bytes = "1MiB" }}
[[processor]]
group = "strict"
kind = "{strict_kind}"
input = "ndjson"
command = [{receiver:?}, "receive", "--group", "strict", "--strict", {stream}{strict_receiver}"--notes", {notes:?}]
[[processor]]
group = "holes"
kind = "exec-stream"
input = "ndjson"
command = [{receiver:?}, "receive", "--group", "holes", "--stream", "--on-poison", "fail", "--outages", "--notes", {notes:?}]
[[processor]]
group = "record"
kind = "file"
path = "{folder}/recorded"
[[processor]]
group = "some"
kind = "file"
path = "{folder}/of-some"
"#,
            logs = logs.display(),
            folder = folder.display(),
        )
    }
}
