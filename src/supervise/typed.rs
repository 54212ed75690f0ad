//! Commands for people to paste: with the store and the group that they are about.

use std::path::Path;

/// What stands behind a command that is told as the next step.
#[derive(Clone, Debug, Default)]
pub struct Typed {
    data_dir: String,
}

impl Typed {
    /// Commands about the store in `data_dir`: absolute, as who pastes them may be elsewhere.
    #[must_use]
    pub fn about(data_dir: &Path) -> Typed {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        Typed { data_dir: quoted(&absolute.to_string_lossy()) }
    }

    /// `spillq VERB --data-dir DIR REST`.
    #[must_use]
    pub fn spillq(&self, verb: &str, rest: &str) -> String {
        let space = if rest.is_empty() { "" } else { " " };
        format!("spillq {verb} --data-dir {}{space}{rest}", self.data_dir)
    }

    /// The folder, quoted where a shell would take it apart.
    #[must_use]
    pub fn data_dir(&self) -> &str {
        &self.data_dir
    }
}

/// As one word of a POSIX shell.
#[must_use]
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_it_as_one_word() {
        for word in ["/var/lib/q", "a b", "it's", "$HOME", "", "*", "a\\b", "ä\"`x`"] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf '%s' {}", quoted(word))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), word);
        }
        let typed = Typed::about(Path::new("/a b"));
        assert_eq!(
            typed.spillq("inspect", "--from 3 --limit 1"),
            "spillq inspect --data-dir '/a b' --from 3 --limit 1"
        );
    }
}
