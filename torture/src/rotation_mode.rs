//! The modes in which logrotate rotates files here, and its configuration for each.

use std::fmt;
use std::path::Path;

/// More than any case makes: only `rotate 0` deletes.
const KEPT: u64 = 50;
/// The script that signals writers gives up after this many checks, 10 ms apart: a writer has died then.
const LOOKS_MAX: u64 = 12_000;

/// One mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Renamed, and an empty file created
    Create,
    /// Renamed; the writer creates the next
    Nocreate,
    /// Renamed to a name with the time
    Dateext,
    /// Renamed, and compressed at once
    Compress,
    /// Renamed, and compressed at the next rotation
    Delaycompress,
    /// Copied, and truncated
    Copytruncate,
    /// The same, and the copy is compressed at once
    CopytruncateCompress,
    /// Renamed into another folder
    Olddir,
    /// Renamed, copied to a folder on another device, and deleted
    OlddirElsewhere,
    /// Copied to a folder on another device, and truncated
    OlddirElsewhereCopytruncate,
    /// Renamed, copied and deleted
    Renamecopy,
    /// Deleted
    RotateZero,
}

impl Mode {
    /// All of them.
    pub const ALL: [Mode; 12] = [
        Mode::Create,
        Mode::Nocreate,
        Mode::Dateext,
        Mode::Compress,
        Mode::Delaycompress,
        Mode::Copytruncate,
        Mode::CopytruncateCompress,
        Mode::Olddir,
        Mode::OlddirElsewhere,
        Mode::OlddirElsewhereCopytruncate,
        Mode::Renamecopy,
        Mode::RotateZero,
    ];

    /// Writers keep their file open all the time, and are not signalled.
    pub fn truncates(self) -> bool {
        matches!(self, Mode::Copytruncate | Mode::CopytruncateCompress | Mode::OlddirElsewhereCopytruncate)
    }

    /// The file that a writer may still have open is deleted: what it writes there is in no file afterwards.
    pub fn deletes(self) -> bool {
        matches!(self, Mode::Compress | Mode::OlddirElsewhere | Mode::Renamecopy | Mode::RotateZero)
    }

    /// The rotated files are in another folder.
    pub fn moves(self) -> bool {
        matches!(self, Mode::Olddir) || self.is_elsewhere()
    }

    /// That folder is on another device.
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Mode::OlddirElsewhere | Mode::OlddirElsewhereCopytruncate)
    }

    /// Names have the second: two rotations are not in the same.
    pub fn is_dated(self) -> bool {
        self == Mode::Dateext
    }

    fn options(self) -> &'static str {
        match self {
            Mode::Create | Mode::Olddir => "create",
            Mode::Nocreate => "nocreate",
            Mode::Dateext => "create\n    dateext\n    dateformat -%Y%m%d-%s",
            Mode::Compress => "create\n    compress",
            Mode::Delaycompress => "create\n    compress\n    delaycompress",
            Mode::Copytruncate | Mode::OlddirElsewhereCopytruncate => "copytruncate",
            Mode::CopytruncateCompress => "copytruncate\n    compress",
            Mode::OlddirElsewhere | Mode::Renamecopy => "create\n    renamecopy",
            Mode::RotateZero => "create",
        }
    }

    /// The configuration of logrotate for the followed files `logs`/w*.log. Its script makes each of the files `signals` and waits until
    /// they are gone, as a script does that signals a daemon and waits until it has reopened its file.
    pub fn config(self, logs: &Path, olddir: &Path, is_root: bool, signals: &[String]) -> String {
        let count = if self == Mode::RotateZero { 0 } else { KEPT };
        // Without it logrotate refuses folders that others than root may write.
        let su = if is_root { "su root root" } else { "" };
        let olddir =
            if self.moves() { format!("olddir {}", olddir.display()) } else { "noolddir".to_owned() };
        let signal = if self.truncates() { String::new() } else { script(signals) };
        let options = self.options();
        format!(
            "\"{logs}/w*.log\" {{\n    {su}\n    rotate {count}\n    missingok\n    {options}\n    {olddir}\n{signal}}}\n",
            logs = logs.display(),
        )
    }
}

fn script(signals: &[String]) -> String {
    let files = signals.join(" ");
    let any = signals.iter().map(|file| format!("[ -e {file} ]")).collect::<Vec<_>>().join(" || ");
    format!(
        "    sharedscripts\n    postrotate\n        touch {files}\n        looks=0\n        while {any}; do\n            looks=$((looks + 1))\n            [ $looks -lt {LOOKS_MAX} ] || exit 1\n            sleep 0.01\n        done\n    endscript\n"
    )
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Create => "create",
            Mode::Nocreate => "nocreate",
            Mode::Dateext => "dateext",
            Mode::Compress => "compress",
            Mode::Delaycompress => "delaycompress",
            Mode::Copytruncate => "copytruncate",
            Mode::CopytruncateCompress => "copytruncate compress",
            Mode::Olddir => "olddir",
            Mode::OlddirElsewhere => "olddir on another device",
            Mode::OlddirElsewhereCopytruncate => "olddir on another device copytruncate",
            Mode::Renamecopy => "renamecopy",
            Mode::RotateZero => "rotate 0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: Mode) -> String {
        mode.config(Path::new("/l"), Path::new("/o"), true, &["/s0".to_owned(), "/s1".to_owned()])
    }

    #[test]
    fn writers_are_signalled_unless_the_file_is_truncated() {
        for mode in Mode::ALL {
            let text = config(mode);
            assert_eq!(text.contains("postrotate"), !mode.truncates(), "{mode}");
            assert_eq!(text.contains(" olddir /o\n"), mode.moves(), "{mode}");
            assert_eq!(text.contains("rotate 0\n"), mode == Mode::RotateZero, "{mode}");
        }
        assert!(config(Mode::Create).contains("touch /s0 /s1\n"));
        assert!(config(Mode::Create).contains("while [ -e /s0 ] || [ -e /s1 ]; do"));
    }

    #[test]
    fn a_mode_has_a_name_and_a_configuration_of_its_own() {
        let distinct = |of: &dyn Fn(Mode) -> String| {
            Mode::ALL.iter().map(|mode| of(*mode)).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(distinct(&|mode| mode.to_string()), Mode::ALL.len());
        assert_eq!(distinct(&config), Mode::ALL.len());
    }
}
