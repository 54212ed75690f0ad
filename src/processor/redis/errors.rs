//! What an error reply of Redis means. It hardly ever is about the lines.

use super::super::trouble::{Fault, Trouble};

/// Words of errors that pass by themselves, or once an operator has repaired the server. Before Redis 7 an error within a
/// script has them in the middle.
const PASSING: [&str; 9] =
    ["LOADING", "BUSY", "MASTERDOWN", "READONLY", "MISCONF", "OOM", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS"];

/// What the error reply means.
pub(super) fn judge(error: &str) -> Trouble {
    let mut words = error.split(|c: char| !c.is_ascii_alphanumeric());
    let fault = if words.any(|word| PASSING.contains(&word)) || error.contains("max number of clients") {
        Fault::Server
    } else if error.contains("Protocol error") {
        // `proto-max-bulk-len` bounds a line, `client-query-buffer-limit` a command.
        Fault::Size
    } else {
        Fault::Setup
    };
    Trouble::new(fault, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_size_is_the_fault_of_lines() {
        for passing in [
            "LOADING Redis is loading the dataset in memory",
            "OOM command not allowed when used memory > 'maxmemory'. script: 9f, on @user_script:14.",
            "ERR Error running script (call to f_9f): @user_script:14: @user_script: 14: -OOM command not allowed",
            "READONLY You can't write against a read only replica.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(judge(passing).fault, Fault::Server, "{passing}");
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
            assert_eq!(judge(refused).fault, Fault::Setup, "{refused}");
        }
        assert_eq!(judge("ERR Protocol error: invalid bulk length").fault, Fault::Size);
    }
}
