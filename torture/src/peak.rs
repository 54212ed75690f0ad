//! Peaks of what is bounded: memory, descriptors, the time of opening.

use std::time::Duration;

/// From a start to the first answer. A journal is read and copied; the machine may be loaded.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// Peaks of what is bounded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Peak {
    /// Resident, KiB.
    pub memory_kib: u64,
    /// Open.
    pub descriptors: u64,
    /// Until the first answer.
    pub opening: Duration,
}

impl Peak {
    /// Which peaks are above their limits.
    pub fn beyond(&self, memory_kib_max: u64, descriptors_max: u64) -> Vec<String> {
        let mut broken = Vec::new();
        if self.memory_kib > memory_kib_max {
            broken.push(format!("I8 {} KiB resident, the limit is {memory_kib_max}", self.memory_kib));
        }
        if self.descriptors > descriptors_max {
            broken.push(format!("I8 {} open descriptors, the limit is {descriptors_max}", self.descriptors));
        }
        if self.opening > OPENING_MAX {
            broken.push(format!("I8 opening took {:?}", self.opening));
        }
        broken
    }

    /// The higher peaks of both.
    pub fn max(&mut self, other: &Peak) {
        self.memory_kib = self.memory_kib.max(other.memory_kib);
        self.descriptors = self.descriptors.max(other.descriptors);
        self.opening = self.opening.max(other.opening);
    }
}
