//! What an error reply of Redis says about the lines: mostly nothing.

use crate::plain::harmless;

/// Why lines were not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The server is away or cannot take anything now. It passes.
    Away(String),
    /// It is set up in such a way that this never goes on by itself.
    Refused(String),
    /// It takes no command, or no line, of this size.
    TooLarge(String),
}

/// Words of errors that pass by themselves, or when somebody sees to the server. Before Redis 7 an error within a
/// script has them in the middle.
const PASSING: [&str; 9] =
    ["LOADING", "BUSY", "MASTERDOWN", "READONLY", "MISCONF", "OOM", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS"];

/// What the error that a server replied means.
pub(super) fn judge(error: &str) -> Trouble {
    let told = harmless(error);
    let mut words = error.split(|c: char| !c.is_ascii_alphanumeric());
    if words.any(|word| PASSING.contains(&word)) || error.contains("max number of clients") {
        Trouble::Away(told)
    } else if error.contains("Protocol error") {
        // `proto-max-bulk-len` bounds a line, `client-query-buffer-limit` a command.
        Trouble::TooLarge(told)
    } else {
        Trouble::Refused(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_size_is_held_against_lines() {
        for passing in [
            "LOADING Redis is loading the dataset in memory",
            "OOM command not allowed when used memory > 'maxmemory'. script: 9f, on @user_script:14.",
            "ERR Error running script (call to f_9f): @user_script:14: @user_script: 14: -OOM command not allowed",
            "READONLY You can't write against a read only replica.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "ERR max number of clients reached",
        ] {
            assert!(matches!(judge(passing), Trouble::Away(_)), "{passing}");
        }
        for refused in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'eval' command",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "MOVED 3999 127.0.0.1:6381",
            "ERR DB index is out of range",
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
            "ERR unknown command 'EVAL'",
        ] {
            assert!(matches!(judge(refused), Trouble::Refused(_)), "{refused}");
        }
        assert!(matches!(judge("ERR Protocol error: invalid bulk length"), Trouble::TooLarge(_)));
    }
}
