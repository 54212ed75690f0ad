//! The owner is set otherwise while it works.

use std::sync::Arc;

use spillq_storage::{Error, GroupId};

use super::Owner;
use crate::queue::group::Group;
use crate::queue::settings::{Configuration, GroupSettings};

impl Owner {
    /// Makes the groups that are missing, durably, and sets all to what they are to be. Nobody's lease ends.
    pub(super) fn configure(&mut self, to: Configuration) -> Result<(), Error> {
        // What was gathered before was asked for under the settings before.
        self.make_durable()?;
        self.log.set_limits(to.disk);
        self.when_full = to.when_full;
        self.add_missing(&to.groups)?;
        self.ages = self.log.keeps_by_age() || to.groups.iter().any(|group| group.max_lag.age_ms.is_some());
        for (id, state) in &self.log.state().groups {
            let settings = to.groups.iter().find(|settings| settings.name == state.name).cloned();
            let settings = settings.unwrap_or_else(|| GroupSettings::named(&state.name));
            match self.groups.get_mut(id) {
                Some(group) => group.set(settings),
                None => drop(self.groups.insert(*id, Group::new(settings, state))),
            }
        }
        Ok(())
    }

    pub(super) fn add_missing(&mut self, groups: &[GroupSettings]) -> Result<(), Error> {
        for settings in groups {
            if self.log.state().group(&settings.name).is_none() {
                let floor = self.start(settings.from_beginning);
                self.commit.add_groups.push((settings.name.clone(), floor));
            }
        }
        self.make_durable()
    }

    /// The groups as they are.
    pub(super) fn group_settings(&self) -> Vec<(GroupId, Arc<GroupSettings>)> {
        self.groups.iter().map(|(id, group)| (*id, Arc::clone(group.settings()))).collect()
    }
}
