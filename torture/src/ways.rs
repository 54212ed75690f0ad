//! The ways in which logrotate rotates here, and the configuration that follows from each.

use std::fmt;
use std::path::Path;

/// More than any case makes: nothing is deleted unless that is the way.
const KEPT: u64 = 50;
/// The script that tells writers gives up after so many looks, 10 ms apart: a writer has died then.
const LOOKS_MAX: u64 = 12_000;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
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

impl Way {
    /// All of them.
    pub const ALL: [Way; 12] = [
        Way::Create,
        Way::Nocreate,
        Way::Dateext,
        Way::Compress,
        Way::Delaycompress,
        Way::Copytruncate,
        Way::CopytruncateCompress,
        Way::Olddir,
        Way::OlddirElsewhere,
        Way::OlddirElsewhereCopytruncate,
        Way::Renamecopy,
        Way::RotateZero,
    ];

    /// Writers keep their file open all the time, and are not told.
    pub fn truncates(self) -> bool {
        matches!(self, Way::Copytruncate | Way::CopytruncateCompress | Way::OlddirElsewhereCopytruncate)
    }

    /// The file that a writer may still have open is deleted: what it writes there is in no file afterwards.
    pub fn deletes(self) -> bool {
        matches!(self, Way::Compress | Way::OlddirElsewhere | Way::Renamecopy | Way::RotateZero)
    }

    /// The rotated files are in another folder.
    pub fn moves(self) -> bool {
        matches!(self, Way::Olddir) || self.is_elsewhere()
    }

    /// That folder is on another device.
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Way::OlddirElsewhere | Way::OlddirElsewhereCopytruncate)
    }

    /// Names have the second: two rotations are not in the same.
    pub fn is_dated(self) -> bool {
        self == Way::Dateext
    }

    fn options(self) -> &'static str {
        match self {
            Way::Create | Way::Olddir => "create",
            Way::Nocreate => "nocreate",
            Way::Dateext => "create\n    dateext\n    dateformat -%Y%m%d-%s",
            Way::Compress => "create\n    compress",
            Way::Delaycompress => "create\n    compress\n    delaycompress",
            Way::Copytruncate | Way::OlddirElsewhereCopytruncate => "copytruncate",
            Way::CopytruncateCompress => "copytruncate\n    compress",
            Way::OlddirElsewhere | Way::Renamecopy => "create\n    renamecopy",
            Way::RotateZero => "create",
        }
    }

    /// The configuration of logrotate for the followed files `logs`/w*.log. Its script makes each of the files `signals` and waits until
    /// they are gone, as one that tells a daemon to reopen its file and waits for that.
    pub fn config(self, logs: &Path, olddir: &Path, is_root: bool, signals: &[String]) -> String {
        let count = if self == Way::RotateZero { 0 } else { KEPT };
        // Without it logrotate refuses folders that others than root may write.
        let su = if is_root { "su root root" } else { "" };
        let olddir =
            if self.moves() { format!("olddir {}", olddir.display()) } else { "noolddir".to_owned() };
        let tell = if self.truncates() { String::new() } else { script(signals) };
        let options = self.options();
        format!(
            "\"{logs}/w*.log\" {{\n    {su}\n    rotate {count}\n    missingok\n    {options}\n    {olddir}\n{tell}}}\n",
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

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Create => "create",
            Way::Nocreate => "nocreate",
            Way::Dateext => "dateext",
            Way::Compress => "compress",
            Way::Delaycompress => "delaycompress",
            Way::Copytruncate => "copytruncate",
            Way::CopytruncateCompress => "copytruncate compress",
            Way::Olddir => "olddir",
            Way::OlddirElsewhere => "olddir on another device",
            Way::OlddirElsewhereCopytruncate => "olddir on another device copytruncate",
            Way::Renamecopy => "renamecopy",
            Way::RotateZero => "rotate 0",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(way: Way) -> String {
        way.config(Path::new("/l"), Path::new("/o"), true, &["/s0".to_owned(), "/s1".to_owned()])
    }

    #[test]
    fn writers_are_told_unless_the_file_is_truncated() {
        for way in Way::ALL {
            let text = config(way);
            assert_eq!(text.contains("postrotate"), !way.truncates(), "{way}");
            assert_eq!(text.contains(" olddir /o\n"), way.moves(), "{way}");
            assert_eq!(text.contains("rotate 0\n"), way == Way::RotateZero, "{way}");
        }
        assert!(config(Way::Create).contains("touch /s0 /s1\n"));
        assert!(config(Way::Create).contains("while [ -e /s0 ] || [ -e /s1 ]; do"));
    }

    #[test]
    fn a_way_has_a_name_and_a_configuration_of_its_own() {
        let distinct = |of: &dyn Fn(Way) -> String| {
            Way::ALL.iter().map(|way| of(*way)).collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(distinct(&|way| way.to_string()), Way::ALL.len());
        assert_eq!(distinct(&config), Way::ALL.len());
    }
}
