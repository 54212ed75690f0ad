//! The settings of the groups: at the start, and of a running owner.

use spillq_storage::{Error, Seq};

use super::Owner;
use crate::queue::group::Group;
use crate::queue::settings::{Configuration, GroupSettings};

impl Owner {
    /// Applies a configuration. No lease ends, and new groups are durable.
    pub(super) fn configure(&mut self, to: Configuration) -> Result<(), Error> {
        // Earlier commands are carried out under the earlier settings.
        self.make_durable()?;
        self.log.set_limits(to.disk);
        self.when_full = to.when_full;
        self.set_groups(&to.groups)
    }

    /// Creates the groups that are missing, durably, and sets all of them.
    pub(super) fn set_groups(&mut self, groups: &[GroupSettings]) -> Result<(), Error> {
        for settings in groups {
            if self.log.state().group(&settings.name).is_none() {
                let floor = self.first_floor(settings.from_beginning);
                self.commit.add_groups.push((settings.name.clone(), floor));
            }
        }
        self.make_durable()?;
        self.removes_by_age =
            self.log.keeps_by_age() || groups.iter().any(|group| group.max_lag.age_ms.is_some());
        let mut has_other_sources = false;
        for (id, state) in self.log.state().groups() {
            let settings = groups.iter().find(|settings| settings.name == state.name()).cloned();
            let settings = settings.unwrap_or_else(|| GroupSettings::named(state.name()));
            match self.groups.get_mut(id) {
                Some(group) => {
                    has_other_sources |= group.settings().sources != settings.sources;
                    group.set(settings);
                }
                None => {
                    has_other_sources |= !settings.sources.is_all();
                    self.groups.insert(*id, Group::new(settings, state));
                }
            }
        }
        if has_other_sources {
            self.set_sources();
        }
        Ok(())
    }

    /// The ack floor of a new group.
    pub(super) fn first_floor(&self, from_beginning: bool) -> Seq {
        let state = self.log.state();
        if from_beginning { state.first_seq().prev() } else { state.next_seq().prev() }
    }
}
