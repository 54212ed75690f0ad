//! Where dead letters are read: from a running service, or from a stopped store, which is not changed.

use std::io;

use spillq_storage::Seq;

use super::{Failure, Store, store};
use crate::http::{AdminJson, AnswerJson, DeadLetterJson, LineJson, SourceNames};
use crate::queue::DEAD_LETTERS_SHOWN_MAX;

/// The group to use if a store has several and none is named.
const USUAL: &str = "default";

impl Store {
    /// The names of all groups.
    fn groups(&self) -> Result<Vec<String>, Failure> {
        Ok(self.status()?.groups.into_iter().map(|group| group.group).collect())
    }

    /// The groups to list: the named one, the only one, `default`, or all.
    pub(super) fn listed(&self, named: Option<&str>) -> Result<Vec<String>, Failure> {
        Ok(match named {
            Some(name) => vec![name.to_owned()],
            None => usual(self.groups()?).map_or_else(|all| all, |one| vec![one]),
        })
    }

    /// The group to work on: the named one, the only one, or `default`.
    pub(super) fn chosen(&self, named: Option<&str>) -> Result<String, Failure> {
        match named {
            Some(name) => Ok(name.to_owned()),
            None => usual(self.groups()?).map_err(|all| {
                if all.is_empty() {
                    return Failure::could_not_run("the store has no group");
                }
                Failure::could_not_run(format!("the store has several groups: {}", all.join(", ")))
                    .hint("name one with --group")
            }),
        }
    }

    /// The next dead letters of a group from a seq on; empty at the end.
    fn page(&self, group: &str, from: u64) -> Result<Vec<DeadLetterJson>, Failure> {
        match self {
            Store::Service(service) => {
                let request = AdminJson::DeadLetters { group: group.to_owned(), from };
                Ok(service.post::<AnswerJson>("/v1/admin", &request)?.dead_letters)
            }
            Store::Disk(_, view, _) => {
                let Some((id, _)) = view.state().group(group) else {
                    return Err(Failure::could_not_run(format!("group {group} does not exist"))
                        .hint("`spillq group list` prints those that exist"));
                };
                let letters =
                    view.dead_letters(id, Seq(from), DEAD_LETTERS_SHOWN_MAX).map_err(store::failure)?;
                Ok(letters.iter().map(Into::into).collect())
            }
        }
    }

    /// A line, or why it cannot be read.
    pub(super) fn line(&self, seq: u64) -> Result<Option<LineJson>, String> {
        match self {
            Store::Service(service) => {
                service.get(&format!("/v1/line?seq={seq}")).map_err(|error| error.to_string())
            }
            Store::Disk(_, view, labels) => {
                let block = view.reader().block(Seq(seq)).map_err(|error| error.to_string())?;
                let names = SourceNames::of(view.state()).with_labels(labels.clone());
                let line = block.lines().find(|line| line.seq == Seq(seq));
                Ok(line.map(|line| LineJson::new(&line, &names, &block)))
            }
        }
    }

    /// All dead letters of a group, a page at a time.
    pub(super) fn each(
        &self,
        group: &str,
        mut take: impl FnMut(&DeadLetterJson) -> Result<io::Result<()>, Failure>,
    ) -> Result<io::Result<()>, Failure> {
        let mut from = 0;
        loop {
            let page = self.page(group, from)?;
            let Some(last) = page.last() else { return Ok(Ok(())) };
            from = last.seq + 1;
            for letter in &page {
                if let Err(error) = take(letter)? {
                    return Ok(Err(error));
                }
            }
        }
    }
}

/// The group that needs no name; otherwise all groups.
fn usual(groups: Vec<String>) -> Result<String, Vec<String>> {
    match groups.as_slice() {
        [only] => Ok(only.clone()),
        several if several.iter().any(|name| name == USUAL) => Ok(USUAL.to_owned()),
        _ => Err(groups),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_group_and_default_need_no_name() {
        let usual = |names: &[&str]| usual(names.iter().map(ToString::to_string).collect());
        assert_eq!(usual(&["fills"]), Ok("fills".to_owned()));
        assert_eq!(usual(&["audit", "default"]), Ok("default".to_owned()));
        assert_eq!(usual(&["audit", "fills"]), Err(vec!["audit".to_owned(), "fills".to_owned()]));
    }
}
