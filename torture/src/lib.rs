//! Campaigns against the real program: kills, cuts, full disks, damage. `docs/contributing/torture.md` says how they work.

/// Each line of rotated files is accounted for.
pub mod account;
/// The command line.
pub mod args;
/// Disks with bad sectors.
pub mod bad_disk;
/// Errors of the block device.
pub mod block;
/// Cases counted, folders kept, the last line.
pub mod campaign;
/// A limit on memory.
pub mod cgroup;
/// Clocks that jump.
pub mod clock;
mod consumers;
/// Flipped bits, cut and zeroed files.
pub mod damage;
/// Block devices made for a campaign.
pub mod device;
/// Small file systems.
pub mod disk;
/// Power cuts of the followed files.
pub mod followed;
/// Full disks.
pub mod full;
/// Kills while lines are handed to another system.
pub mod handoff;
/// Hostile clients.
pub mod http;
/// A fault at each system call in turn.
pub mod inject;
/// Random kills.
pub mod kill;
/// Lines that kill.
pub mod killer;
/// What a power cut left of followed files.
pub mod left;
/// Lines that identify themselves.
pub mod line;
/// Rotation by logrotate.
pub mod logrotate;
/// A backlog that is much larger than memory.
pub mod memory;
/// What a campaign needs of the machine.
pub mod need;
/// What receivers note.
pub mod notes;
/// The out-of-memory killer.
pub mod oom;
/// The invariants.
pub mod oracle;
/// Receivers that fail for a while.
pub mod outage;
/// Hostile paths.
pub mod paths;
/// Peaks of what is bounded.
pub mod peak;
/// Which phases were hit.
pub mod phases;
/// Where the parts of a load are.
pub mod places;
/// Poison lines and receivers that hang.
pub mod poison;
/// Every state that a power cut can leave of a block device.
pub mod power;
/// The command that spillq runs.
pub mod receive;
/// Rotated lines in the log, the files and the messages.
pub mod recorded;
/// Writers that reopen their files when they are signalled.
pub mod reopen;
mod request;
/// Rotation of every kind.
pub mod rotate;
/// A case of logrotate, and what became of it.
pub mod rotation_case;
/// The modes in which logrotate rotates.
pub mod rotation_mode;
/// One case of logrotate.
pub mod rotation_stage;
/// Whether the campaigns can fail.
pub mod self_check;
/// The program under test.
pub mod service;
/// Power cuts.
pub mod shutdown;
/// Load for minutes and hours.
pub mod soak;
/// One load and its history.
pub mod trial;
/// Why a campaign stopped.
pub mod trouble;
/// Counts in sentences.
pub mod words;
/// Writers of the followed files.
pub mod writer;
