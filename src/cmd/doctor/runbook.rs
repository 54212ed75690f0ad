//! The runbook: a section of docs/how-to/operate.md for each cause, printed by `doctor --explain`.

use crate::supervise::Cause;

const OPERATIONS: &str = include_str!("../../../docs/how-to/operate.md");

/// What to do about a cause: what is seen, what it means, what to type, and when it is over.
pub(super) fn section(cause: Cause) -> &'static str {
    let heading = format!("### {cause}\n");
    let Some((_, rest)) = OPERATIONS.split_once(&heading) else {
        // A test wants one for each.
        return "";
    };
    let end = rest.find("\n### ").into_iter().chain(rest.find("\n## ")).min();
    rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::Seen;

    #[test]
    fn every_cause_has_a_section_with_all_its_parts_and_its_alert() {
        for cause in Cause::ALL.iter().copied() {
            let text = section(cause);
            for part in ["**You see** `", "**It means** ", "**Type** ", "**It is over** "] {
                assert!(text.contains(part), "{cause} has no {part}: {text:?}");
            }
            let words = cause.word().split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            let alert = format!("`Spillq{}`", words.collect::<String>());
            assert!(cause.seen() == Seen::OnDemand || text.contains(&alert), "{cause} does not name {alert}");
        }
    }
}
