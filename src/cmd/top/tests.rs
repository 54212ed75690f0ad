//! The screen as text, at sizes that people have, of a service whose figures are known.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::draw::draw;
use super::keys::{Pressed, pressed};
use super::model::{HISTORY_MAX, Model};
use crate::http::{AdminJson, DoctorJson, StatusJson};
use crate::plain::{UNSAFE, needs_escape};
use crate::supervise::State;

/// An answer after `second` seconds: 1,000 lines a second come in, 400 of them are acked by fills.
fn answer(second: u64, names: &[&str]) -> (StatusJson, DoctorJson) {
    let groups: Vec<_> = names
        .iter()
        .map(|name| {
            serde_json::json!({
                "group": name, "state": "crashing", "reason": null, "ack_floor": 400 * second,
                "lag_lines": 600 * second, "lag_bytes": 600 * 350 * second, "lag_seconds": 90.0, "leased": 500,
                "leases": [], "dead_letters": 2, "acked_lines": 400 * second, "last_failure": null,
            })
        })
        .collect();
    let status = serde_json::json!({
        "from": "service", "pid": 7, "findings": [], "groups": groups,
        "log": {
            "first_seq": 1, "next_seq": 1_000 * second + 1, "segments": 3, "disk_bytes": 100_000_000, "limit_bytes": 50_u64 << 30, "appended_bytes": 0,
            "full": null, "window_bytes": 0, "runs": 1, "commits": 0, "large_commits": 0, "rotations": 0, "segments_removed": 0, "lines_relocated": 0,
        },
        "sources": [{ "source": 1, "path": "/a", "offset": 1, "size": 2, "state": "reading", "error": null }],
        "losses": serde_json::to_value(crate::http::LossesJson::default()).unwrap(),
        "process": { "resident_bytes": 40_000_000, "peak_bytes": 50_000_000, "open_files": 20 },
    });
    let verdicts: Vec<_> = names
        .iter()
        .map(|name| {
            serde_json::json!({
                "group": name, "state": "crashing", "hypothesis": "B", "cause": "crashing",
                "summary": format!("the processor of group {name} crashes: 4 times in a row"),
                "evidence": ["stderr: \u{1b}[2Jlast words\nfake: well"], "next": "spillq inspect --data-dir /q --from 5 --limit 1",
            })
        })
        .collect();
    let doctor = serde_json::json!({ "healthy": false, "from": "service", "groups": verdicts, "findings": [], "last_run": null });
    (serde_json::from_value(status).unwrap(), serde_json::from_value(doctor).unwrap())
}

#[test]
fn what_came_of_a_key_is_said_and_cannot_act_on_the_terminal() {
    let mut model = model(2, &["fills"]);
    let ask = AdminJson::DeadLetters { group: "fills".to_owned(), from: 0 };
    let letter = serde_json::json!({ "seq": 42, "attempts": 8, "time": "2026-01-01T00:00:00Z", "reason": "\u{1b}[2Jno coin" });
    let answer = serde_json::json!({ "lines": 0, "dead_letters": [letter] });
    model.done(&ask, Ok(serde_json::from_value(answer).unwrap()));
    let found = screen(&model, 80, 24).join("\n");
    assert!(found.contains("  line 42, 8 attempts, 2026-01-01T00:00:00Z: "), "{found}");
    assert!(found.contains("no coin") && !found.contains('\u{1b}'), "{found}");
    model.done(&ask, Err("no service runs on it".to_owned()));
    let found = screen(&model, 80, 24).join("\n");
    assert!(found.contains("! failed: no service runs on it"), "{found}");
}

fn model(seconds: u64, names: &[&str]) -> Model {
    let mut model = Model::new("/var/lib/q".to_owned(), false);
    for second in 0..seconds {
        model.take(Ok(Box::new(answer(second, names))), Duration::from_secs(second));
    }
    model
}

/// The screen, a string a row, without what follows the last word.
fn screen(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(row).collect()
}

#[test]
fn all_of_it_fits_on_80_by_24() {
    let found = screen(&model(60, &["audit", "fills"]), 80, 24);
    let expected = [
        "spillq  ! unhealthy  /var/lib/q",
        "59,000 lines so far, 1 file (1 reading), disk 95.4 MiB, memory 38.1 MiB",
        "  group            state        lag lines     lag        oldest  leased  dead",
        "! audit            crashing     35,400        11.8 MiB   90 s    500     2",
        "! fills            crashing     35,400        11.8 MiB   90 s    500     2",
        "lines in: 1,000/s (most 1,000/s)         acked by audit: 400/s (most 400/s)",
    ];
    assert_eq!(found[..6], expected, "{}", found.join("\n"));
    let has =
        |text: &str| assert!(found.iter().any(|row| row.contains(text)), "{text}:\n{}", found.join("\n"));
    has("lag of audit: 35,400 (most 35,400)");
    has("disk: 95.4 MiB (most 95.4 MiB)");
    has("┄┄ limit 50.0 GiB ┄┄┄┄");
    has("-38 s ");
    has(" now");
    has("memory: 38.1 MiB (most 38.1 MiB)");
    has("! crashing: the processor of group audit crashes: 4 times in a row");
    has("  do: spillq inspect --data-dir /q --from 5 --limit 1");
    has(r"  - stderr: \x1b[2Jlast words\nfake: well");
    assert_eq!(found[23], "q quit   ↑ ↓ Tab choose a group   p pause   r resume   d dead letters");
}

#[test]
fn consumers_of_the_chosen_group_are_listed_below_what_is_wrong() {
    let held = |at: u64| serde_json::json!({ "first": at, "last": at + 9, "consumer": "w1\u{1b}[2J", "held_ms": 2_000, "expires_ms": 28_000 });
    let seen = |at: u64| serde_json::json!({ "name": format!("w{at}"), "seen_ms_ago": 240_000, "asked": 9, "leased": 8, "settled": 8, "expired": 0, "acked_lines": 1_000 });
    let (mut status, doctor) = answer(60, &["audit"]);
    status.groups[0].held = (0..7).map(|at| serde_json::from_value(held(10 * at)).unwrap()).collect();
    status.groups[0].consumers = (1..=2).map(|at| serde_json::from_value(seen(at)).unwrap()).collect();
    let mut model = Model::new("/var/lib/q".to_owned(), true);
    model.take(Ok(Box::new((status, doctor))), Duration::from_secs(60));
    let rows = screen(&model, 80, 40);
    let at = rows.iter().position(|row| row.starts_with("lines 0-9:")).unwrap();
    assert!(rows[..at].iter().any(|row| row.contains("! crashing")), "{}", rows.join("\n"));
    assert_eq!(rows[at], r"lines 0-9: held by w1\x1b[2J for 2.0 s of 30.0 s");
    let expected = [
        "and 2 more leases",
        "consumer w1: seen 4 min ago, 1,000 lines acknowledged",
        "consumer w2: seen 4 min ago, 1,000 lines acknowledged",
    ];
    assert_eq!(rows[at + 5..at + 8], expected, "{}", rows.join("\n"));
}

#[test]
fn it_is_drawn_at_any_size() {
    let long = "g".repeat(64);
    let names: Vec<&str> = vec![long.as_str(); 40];
    for (width, height) in [(140, 40), (80, 24), (40, 10), (20, 5), (3, 2), (1, 1), (300, 100)] {
        screen(&model(400, &names), width, height);
        screen(&model(0, &[]), width, height);
    }
    let large = screen(&model(60, &["audit"]), 140, 40);
    assert!(large[3].len() > 100 && large.len() == 40, "{}", large.join("\n"));
}

#[test]
fn what_others_chose_does_nothing_on_the_screen() {
    let mut wild = model(3, &["audit"]);
    wild.place = "/q\x1b[2J\n\u{202e}".to_owned();
    wild.take(Err("refused\x1b]0;title\x07".to_owned()), Duration::from_secs(9));
    let found = screen(&wild, 140, 40).join("");
    assert!(!found.contains(needs_escape), "{found:?}");
    assert!(found.contains(r"/q\x1b[2J\n\u{202e}") && found.contains(r"refused\x1b]0;title"), "{found}");
}

#[test]
fn no_unsafe_character_reaches_the_screen() {
    for c in UNSAFE.into_iter().flat_map(|(range, _)| range) {
        let wild = format!("a{c}b");
        let (mut status, mut doctor) = answer(3, &[&wild]);
        status.log.full = Some(wild.clone());
        status.groups[0].state.clone_from(&wild);
        let verdict = &mut doctor.groups[0];
        verdict.cause = Some(wild.clone());
        (verdict.summary, verdict.next, verdict.or) = (wild.clone(), wild.clone(), wild.clone());
        verdict.evidence = vec![wild.clone()];
        doctor.findings = doctor.groups.clone();
        let mut model = Model::new(wild.clone(), false);
        model.take(Ok(Box::new((status, doctor))), Duration::from_secs(3));
        let answered = screen(&model, 140, 40).join("");
        model.take(Err(wild.clone()), Duration::from_secs(4));
        model.ask_to_pause(wild.clone());
        model.notice = vec![wild];
        let asked = screen(&model, 140, 40).join("");
        assert!(
            !answered.contains(needs_escape) && !asked.contains(needs_escape),
            "{c:?}: {answered:?} {asked:?}"
        );
    }
}

#[test]
fn a_service_that_is_gone_is_told_and_its_last_figures_stay() {
    let mut model = model(10, &["fills"]);
    model.take(Err("no service runs on it".to_owned()), Duration::from_secs(10));
    model.take(Err("no service runs on it".to_owned()), Duration::from_secs(15));
    let found = screen(&model, 80, 24);
    assert_eq!(found[0], "spillq  ! no answer for 5 s: no service runs on it; retrying  /var/lib/q");
    assert!(found[3].contains("fills"), "{}", found.join("\n"));
    model.take(Ok(Box::new(answer(11, &["fills"]))), Duration::from_secs(16));
    assert!(screen(&model, 80, 24)[0].contains("! unhealthy"));
    // A service that hangs is shown too, before it is known whether it will answer.
    assert!(!model.tick(Duration::from_secs(20)) && model.tick(Duration::from_secs(21)));
    assert!(screen(&model, 80, 24)[0].contains("! no answer for 5 s: waiting for its answer"));
    model.take(Ok(Box::new(answer(21, &["fills"]))), Duration::from_secs(22));
    assert!(!model.tick(Duration::from_secs(23)));
    // A restart makes no spike, whatever was counted before it.
    let mut other = answer(0, &["fills"]);
    other.0.pid = 8;
    model.take(Ok(Box::new(other)), Duration::from_secs(24));
    assert_eq!((model.lines_in().last(), model.lines_out("fills").last()), (Some(&0), Some(&0)));
}

#[test]
fn history_is_bounded_and_the_choice_goes_round() {
    let mut model = model(2 * HISTORY_MAX as u64, &["a", "b", "c"]);
    assert_eq!((model.lag("a").len(), model.lines_in().len()), (HISTORY_MAX, HISTORY_MAX - 1));
    assert!(
        model.lines_in().iter().all(|rate| *rate == 1_000)
            && model.lines_out("b").iter().all(|rate| *rate == 400)
    );
    for (by, expected) in [(1, 1), (1, 2), (1, 0), (-1, 2), (-1, 1)] {
        model.choose(by);
        assert_eq!(model.chosen(), expected);
    }
    // Groups that are removed do not leave a choice behind.
    model.choose(1);
    model.take(Ok(Box::new(answer(1, &["a"]))), Duration::from_secs(1_000));
    assert_eq!(model.chosen_group().unwrap().group, "a");
    model.take(Ok(Box::new(answer(1, &[]))), Duration::from_secs(1_001));
    assert!(model.chosen_group().is_none());
}

#[test]
fn without_colour_nothing_is_coloured_and_what_is_ill_is_marked_all_the_same() {
    let coloured = |colour: bool| {
        let mut model = model(5, &["fills"]);
        model.colour = colour;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &model)).unwrap();
        let cells = terminal.backend().buffer().content();
        cells.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count()
    };
    assert_eq!(coloured(false), 0);
    assert!(coloured(true) > 0);
}

/// A group for each state, as many as the list shows.
fn with_states(states: &[State]) -> Model {
    let names: Vec<&str> = states.iter().map(|state| state.word()).collect();
    let mut model = Model::new("/q".to_owned(), false);
    let (mut status, doctor) = answer(60, &names);
    for (group, state) in status.groups.iter_mut().zip(states) {
        group.group = "g".repeat(64);
        group.state = state.word().to_owned();
        group.lag_lines = 123_456_789;
        (group.leased, group.dead_letters) = (100_000, 100_000);
    }
    model.take(Ok(Box::new((status, doctor))), Duration::from_secs(60));
    model
}

#[test]
fn no_state_and_no_figure_is_cut_off_at_any_usual_width() {
    for states in State::ALL.chunks(6) {
        let model = with_states(states);
        for (width, height) in [(60, 24), (80, 24), (100, 24), (140, 40)] {
            let found = screen(&model, width, height);
            for (row, state) in found[3..].iter().zip(states) {
                let words: Vec<&str> = row.split_whitespace().collect();
                assert!(words.contains(&state.word()), "{state:?} at {width}: {row}");
                assert!(words.contains(&"123,456,789"), "{width}: {row}");
                assert!(words.contains(&"100,000"), "{width}: {row}");
            }
        }
    }
}

#[test]
fn a_pause_is_asked_about_and_only_y_pauses() {
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let mut model = model(5, &["audit", "fills"]);
    model.choose(1);
    assert!(matches!(pressed(&mut model, key(KeyCode::Char('p'))), Pressed::Shown));
    for (width, height) in [(80, 24), (60, 24)] {
        let found = screen(&model, width, height);
        assert_eq!(found.last().unwrap(), "pause group fills? y/n", "{}", found.join("\n"));
        let text = found.join(" ");
        assert!(text.contains("No more lines are delivered to it") && text.contains("even after"), "{text}");
    }
    // A key that would end the screen, or move the choice, is a no.
    for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Char('q'), KeyCode::Down, KeyCode::Char('Y')] {
        model.ask_to_pause("fills".to_owned());
        assert!(matches!(pressed(&mut model, key(no)), Pressed::Shown), "{no:?}");
        assert!(screen(&model, 80, 24).join(" ").contains("group fills was not paused"), "{no:?}");
        assert_eq!(model.chosen(), 1, "{no:?}");
    }
    model.ask_to_pause("fills".to_owned());
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(matches!(pressed(&mut model, control_c), Pressed::End));
    let Pressed::Order(AdminJson::Pause { name, paused: true }) =
        pressed(&mut model, key(KeyCode::Char('y')))
    else {
        panic!("y pauses")
    };
    assert_eq!(name, "fills");
    assert!(matches!(pressed(&mut model, key(KeyCode::Char('y'))), Pressed::Shown), "asked once");
    assert!(matches!(pressed(&mut model, key(KeyCode::Char('q'))), Pressed::End));
}

#[test]
fn the_header_names_a_paused_group_and_p_does_not_ask_again() {
    let title = |states: &[State]| screen(&with_states(states), 100, 24)[0].clone();
    assert!(!title(&[State::Running, State::Idle]).contains("paused"));
    let one = title(&[State::Paused, State::Idle]);
    assert!(one.contains(&format!("  paused: group {}", "g".repeat(64))), "{one}");
    assert!(title(&[State::Paused, State::Paused]).contains("  paused: 2 groups"));
    let mut model = with_states(&[State::Paused]);
    pressed(&mut model, KeyEvent::new(KeyCode::Char('p'), KeyModifiers::NONE));
    assert!(model.to_pause.is_none() && model.notice[0].ends_with("is paused already; r resumes it"));
}

#[test]
fn the_limit_is_drawn_where_it_is_and_only_where_it_is_known() {
    let with_limit = |limit: Option<u64>| {
        let mut model = Model::new("/q".to_owned(), false);
        for second in 0..60 {
            let (mut status, doctor) = answer(second, &["fills"]);
            status.log.limit_bytes = limit;
            model.take(Ok(Box::new((status, doctor))), Duration::from_secs(second));
        }
        screen(&model, 80, 24).join("\n")
    };
    assert!(!with_limit(None).contains('┄'));
    // Far below it there is something to see all the same.
    let far = with_limit(Some(50 << 30));
    assert!(far.contains("┄┄ limit 50.0 GiB ┄") && far.contains("▁▁▁▁"), "{far}");
    // At the limit bars cover the line.
    let full = with_limit(Some(100_000_000));
    assert!(!full.contains('┄'), "{full}");
}
