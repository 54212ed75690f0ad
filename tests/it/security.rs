//! What the service does, seen from outside: which programs it starts, what it connects to, what it writes, and
//! who can read that.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::support::{Bounded, SMALL_STORE, Service, binary, needs, program, spillq, write_config};

fn config(folder: &Path) -> PathBuf {
    write_config(
        folder,
        &format!(
            r#"
        data_dir = "q"
        {SMALL_STORE}
        [[follow]]
        include = ["*.log"]
        [[group]]
        name = "default"
        [[group]]
        name = "copy"
        [[processor]]
        group = "default"
        kind = "exec"
        command = ["/bin/cat"]
        [[processor]]
        group = "copy"
        kind = "file"
        path = "out"
        "#
        ),
    )
}

/// The first quoted argument in a line of strace.
fn quoted(call: &str) -> &str {
    call.split('"').nth(1).unwrap_or_default()
}

#[test]
fn it_starts_only_what_is_configured_connects_nowhere_and_writes_only_its_files() {
    needs!("strace");
    let folder = tempfile::tempdir().unwrap();
    // Names and lines that would be commands, options or paths if they were interpreted.
    fs::write(folder.path().join("$(touch pwned).log"), "$(touch pwned)\n; touch pwned\n").unwrap();
    fs::write(folder.path().join("--help `id`.log"), "../../../../etc/passwd\n\0\x1b[2J\n").unwrap();
    let (config, calls) = (config(folder.path()), folder.path().join("calls"));
    let output = program("strace")
        .args([
            "-f",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=execve,execveat,connect,bind,sendto,openat,open,creat",
        ])
        .arg("-o")
        .arg(&calls)
        .arg(binary())
        .args(["run", "--once", "--config"])
        .arg(&config)
        .current_dir(folder.path())
        .finished();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 4, "all lines were delivered");
    assert!(!folder.path().join("pwned").exists());

    // The service does not open the loader and libraries of `cat`: calls count up to the start of the command.
    let text = fs::read_to_string(&calls).unwrap();
    let mut commands = BTreeSet::new();
    let (mut started, mut sockets, mut written) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
    for line in text.lines().filter(|line| !line.contains("resumed>") && !line.contains(" --- SIG")) {
        let (pid, call) = line.split_once(char::is_whitespace).unwrap();
        let call = call.trim_start();
        if call.starts_with("exec") {
            started.insert(quoted(call).to_owned());
            if quoted(call) == "/bin/cat" {
                commands.insert(pid);
            }
        } else if commands.contains(pid) {
            continue;
        } else if call.starts_with("open") || call.starts_with("creat") {
            if ["O_WRONLY", "O_RDWR", "O_CREAT", "creat("].iter().any(|flag| call.contains(flag)) {
                written.insert(quoted(call).to_owned());
            }
        } else if !call.starts_with("sendto") || call.contains("sun_path") || call.contains("sin") {
            sockets.push(call.to_owned());
        }
    }
    let own = binary().to_str().unwrap().to_owned();
    let known: BTreeSet<String> = [own, "/proc/self/exe".to_owned(), "/bin/cat".to_owned()].into();
    assert!(started.contains("/bin/cat") && started.is_subset(&known), "{started:?}");
    let ours = |call: &String| call.starts_with("bind(") && call.contains("spillq.sock");
    assert!(sockets.iter().all(ours), "{sockets:#?}");
    let (root, data_dir) = (folder.path().to_str().unwrap(), folder.path().join("q"));
    let data_dir = data_dir.to_str().unwrap();
    // The file processor's output, and its sidecar while it has no name yet.
    let own =
        [data_dir.to_owned(), format!("{root}/out"), format!("{root}/.spillq-"), "/dev/null".to_owned()];
    let mine = |path: &&String| own.iter().any(|own| path.starts_with(own));
    assert!(written.iter().any(|path| path.starts_with(data_dir)), "{written:?}");
    let foreign: Vec<_> = written.iter().filter(|path| !mine(path)).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Everything below a folder, and itself.
fn all(path: &Path) -> Vec<PathBuf> {
    let below = fs::read_dir(path).into_iter().flatten().flat_map(|entry| all(&entry.unwrap().path()));
    std::iter::once(path.to_owned()).chain(below).collect()
}

#[test]
fn what_it_writes_is_private_and_a_data_dir_that_is_not_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.log"), "a secret\n").unwrap();
    let config = config(folder.path());
    let config = config.to_str().unwrap();
    let data_dir = folder.path().join("q");
    // With the mode of `mkdir`.
    fs::create_dir(&data_dir).unwrap();
    fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).unwrap();
    let mut service = Service::start(&data_dir, &["--config", config]);
    service.wait("the line is out", |status| status.groups.iter().all(|group| group.ack_floor == 1));
    for path in all(&data_dir).into_iter().chain([folder.path().join("out")]) {
        let Ok(entry) = fs::symlink_metadata(&path) else {
            // Created and removed while it works.
            continue;
        };
        assert_eq!(entry.mode() & 0o077, 0, "{} has mode {:o}", path.display(), entry.mode());
    }
    assert_eq!(service.stop(), 0);

    let refused_with = |expected: &str| {
        for command in [vec!["run", "--once", "--config", config], vec!["repair", "--data-dir", "q"]] {
            let output = spillq(&command).current_dir(folder.path()).finished();
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    };
    let before = all(&data_dir);
    fs::set_permissions(&data_dir, Permissions::from_mode(0o750)).unwrap();
    refused_with("is open to other users (mode 0750)");
    fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&data_dir, Some(65_534), None).unwrap();
        refused_with("belongs to user 65534");
        std::os::unix::fs::chown(&data_dir, Some(0), None).unwrap();
    }
    assert_eq!(all(&data_dir), before, "nothing was changed");
    let again = spillq(&["run", "--once", "--config", config]).current_dir(folder.path()).finished();
    assert_eq!(again.status.code(), Some(0), "{}", String::from_utf8_lossy(&again.stderr));
}

/// Commands had the umask of spillq, 077: a web server, say, could not read what they wrote.
#[test]
fn what_a_command_creates_follows_the_umask_of_the_start_and_what_spillq_creates_is_private() {
    for (umask, mode) in [("022", 0o644), ("027", 0o640), ("077", 0o600)] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.log"), "a secret\n").unwrap();
        let exec =
            |kind: &str, script: &str| format!("kind = \"{kind}\"\ncommand = [\"sh\", \"-c\", {script:?}]\n");
        let text = format!(
            "data_dir = \"q\"\n{SMALL_STORE}[[follow]]\ninclude = [\"*.log\"]\n\
             [[group]]\nname = \"a\"\n[[group]]\nname = \"b\"\n[[group]]\nname = \"c\"\n\
             [[processor]]\ngroup = \"a\"\n{}[[processor]]\ngroup = \"b\"\n{}\
             [[processor]]\ngroup = \"c\"\nkind = \"file\"\npath = \"private\"\n",
            exec("exec", "cat > by_exec"),
            exec("exec-stream", "read header; read line; echo $line > by_stream; echo OK; read end"),
        );
        let config = write_config(folder.path(), &text);
        let output = program("sh")
            .args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")])
            .arg(binary())
            .args(["run", "--once", "--allow-volatile", "--config"])
            .arg(&config)
            // Commands do not run in its working directory: they write to the folder of the configuration.
            .current_dir("/")
            .finished();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mode_of = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o777;
        for name in ["by_exec", "by_stream"] {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "a secret\n");
            assert_eq!(mode_of(&folder.path().join(name)), mode, "{name} with umask {umask}");
        }
        let own = ["private", "private.spillq"].map(|name| folder.path().join(name));
        for path in all(&folder.path().join("q")).into_iter().chain(own) {
            assert_eq!(mode_of(&path) & 0o077, 0, "{} with umask {umask}", path.display());
        }
    }
}
