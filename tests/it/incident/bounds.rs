//! The limits of a group: ranges of acks, dead letters; and a data dir that others may read.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};

use spillq::http::{AdminJson, AnswerJson, Client};

use super::*;
use crate::support::SMALL_STORE;

/// `ACK_RANGES_MAX`.
const RANGES: u64 = 4_096;

#[test]
fn a_data_dir_that_others_may_read_is_reported_before_and_after_a_start() {
    let stage = staged(&processor("cat >> out"));
    let mut service = stage.start();
    service.wait("it works", |status| status.log.next_seq > LINES && status.groups[0].lag_lines == 0);
    let mode = |mode| fs::set_permissions(&stage.data_dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o750);
    let found = stage.finding("permissions");
    assert!(found.evidence.join("\n").contains("its mode is 750"), "{found:#?}");
    assert_eq!(service.stop(), 0);
    let found = stage.finding("permissions");
    assert_eq!(stage.start().ended(), 2, "as doctor reported, it does not start");
    stage.paste(&found.next);
    stage.is_healthy();
    // Root may write there, but its files would not belong to the owner.
    if rustix::process::geteuid().is_root() {
        chown(&stage.data_dir, Some(1_000), None).unwrap();
        let notes = stage.is_healthy().notes;
        let note = "belongs to user 1000: start the service as that user, not as root";
        assert!(notes.iter().any(|found| found.ends_with(note)), "{notes:?}");
        assert_eq!(stage.start().ended(), 2);
        chown(&stage.data_dir, Some(0), None).unwrap();
    }
    stage.is_cured(&mut stage.start());
}

/// A client of the service, once it answers.
fn client(data_dir: &Path) -> Client {
    wait_for(|| Client::connect(data_dir)).unwrap()
}

fn park(client: &Client, seq: u64) {
    let park = AdminJson::Park { group: "default".to_owned(), seqs: vec![(seq, seq)] };
    assert_eq!(client.post::<AnswerJson>("/v1/admin", &park).unwrap().lines, 1);
}

#[test]
fn too_many_ranges_of_acks_block_the_group_until_lines_between_them_are_acked() {
    let group = "[[group]]\nname = \"default\"\norder = \"none\"\nbatch = { lines = 100000, bytes = \"1MiB\" }\n\
                 retry = { initial = \"1h\", max = \"1h\" }\n";
    let stage = staged(&(group.to_owned() + &processor(&fails_until_cured("exit 3"))));
    let lines = 2 * RANGES + 100;
    stage.append("in.log", &(LINES..lines).map(|number| format!("node {number} fill\n")).collect::<String>());
    let mut service = stage.start();
    service.wait("all lines are in back-off", |status| {
        status.log.next_seq == lines + 1
            && status.groups[0].state == "retrying"
            && status.groups[0].leased == 0
    });
    // Every second line is parked, by several clients at once.
    std::thread::scope(|scope| {
        for number in 0..8 {
            let client = client(&stage.data_dir);
            let seqs = (1..=RANGES).filter(move |seq| seq % 8 == number).map(|seq| seq * 2);
            scope.spawn(move || seqs.for_each(|seq| park(&client, seq)));
        }
    });
    let verdict = stage.verdict("default", "blocked", Some("D"), "not_clearing");
    assert!(verdict.summary.contains("4,096 ranges of acks above line 1, "), "{verdict:#?}");
    stage.paste(&verdict.next);
    assert_eq!(service.stop(), 0);
    // Lines that failed are fresh after the restart: they are delivered, although the window is full.
    stage.cure();
    let mut service = stage.start();
    service.wait("lines between the dead letters are acked", |status| {
        status.groups[0].ack_floor >= 20 && status.groups[0].state != "blocked"
    });
    assert_eq!(service.stop(), 0);
    let arrived = &lines_by_source(&stage.path("out"))["node"];
    assert_eq!(arrived[..10], [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
}

#[test]
fn a_group_at_its_limit_of_dead_letters_is_blocked_until_some_are_discarded() {
    // 256 MiB is the limit of dead letters.
    const LONG: u64 = 17;
    const LONG_BYTES: usize = 16_000_000;
    let stage = staged("");
    let with = fs::read_to_string(stage.config()).unwrap();
    let with = with.replace("[[follow]]\n", "[[follow]]\nmax_line_bytes = \"16MiB\"\n");
    fs::write(stage.config(), with + SMALL_STORE).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut long = b"long ".to_vec();
    long.extend(std::iter::repeat_with(|| rng.u8(..)).filter(|byte| *byte != b'\n').take(LONG_BYTES));
    long.push(b'\n');
    let mut file = fs::File::create(stage.path("in-long.log")).unwrap();
    (0..LONG).for_each(|_| file.write_all(&long).unwrap());
    let mut service = stage.start();
    service.wait("all lines are in", |status| status.log.next_seq > LINES + LONG);
    let client = client(&stage.data_dir);
    let lines: Vec<u64> = (1..=LINES + LONG).collect();
    let is_long = |seq: &u64| {
        let line: Option<spillq::http::LineJson> = client.get(&format!("/v1/line?seq={seq}")).unwrap();
        line.unwrap().source.ends_with("in-long.log")
    };
    lines.into_iter().filter(is_long).for_each(|seq| park(&client, seq));
    assert_eq!(service.stop(), 0);

    stage.add_sections(
        "[[group]]\nname = \"default\"\norder = \"none\"\nretry = { initial = \"10ms\", max = \"10ms\", attempts = 1 }\n",
    );
    stage.add_sections(&processor(
        "cat > batch; test -e cured || ! grep -q '^other ' batch || exit 65; cat batch >> out",
    ));
    stage.append("in2.log", "other 0 fill\n");
    let mut service = stage.start();
    let verdict = stage.verdict("default", "blocked", None, "dead_letters_full");
    stage.paste(&verdict.next);
    let letters = |args: &[&str]| {
        let args = [&["dead-letter"], args, &["--all", "--data-dir"]].concat();
        let output = spillq(&args).arg(&stage.data_dir).finished();
        assert!(output.status.success(), "{output:?}");
    };
    letters(&["discard", "--discard-lines"]);
    // Another line must be acked before one that fails becomes a dead letter.
    stage.append("in3.log", "later 0 fill\n");
    service.wait("the line is a dead letter, and all others are acked", |status| {
        status.groups[0].lag_lines == 0 && status.groups[0].dead_letters == 1
    });
    stage.cure();
    letters(&["retry"]);
    service.wait("it is acked too", |status| {
        status.groups[0].lag_lines == 0 && status.groups[0].dead_letters == 0
    });
    let arrived = lines_by_source(&stage.path("out"));
    let mut nodes = arrived["node"].clone();
    nodes.sort_unstable();
    assert_eq!((nodes, &arrived["other"]), ((0..LINES).collect(), &vec![0]));
    let healthy = wait_for(|| stage.doctor().filter(|(doctor, exit)| doctor.healthy && *exit == 0));
    assert!(healthy.is_some(), "{:#?}", stage.doctor());
}
