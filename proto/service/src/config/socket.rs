//! Paths of UNIX sockets.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::BadValue;

/// Longest path of a UNIX socket, in bytes: `sun_path` less its NUL (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Refuses a path at which no socket can be made: too long, or in a directory that is not there. `key` is the dotted name of
/// the key that it was given under.
pub fn check_socket(key: &str, path: &Path) -> Result<(), BadValue> {
    let bad = |problem: String| Err(BadValue::new(key, problem));
    let length = path.as_os_str().as_bytes().len();
    if length > SOCKET_PATH_BYTES_MAX {
        return bad(format!(
            "{} has {length} bytes: the path of a UNIX socket has at most {SOCKET_PATH_BYTES_MAX}",
            path.display()
        ));
    }
    if path.file_name().is_none() {
        return bad(format!("{} names no file", path.display()));
    }
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match folder.metadata() {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => bad(format!("{} is not a directory", folder.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bad(format!(
            "the directory {} does not exist: make it with `mkdir -p {}`{}",
            folder.display(),
            folder.display(),
            systemd_hint(folder)
        )),
        Err(error) => Err(BadValue::new(
            key,
            format!("cannot look at the directory {}", folder.display()),
        )
        .because(error)),
    }
}

/// What is in `/run` is gone after a reboot: a service has it made at each start.
fn systemd_hint(folder: &Path) -> String {
    match folder.strip_prefix("/run") {
        Ok(name) if name != Path::new("") => format!(
            ", in a systemd service with RuntimeDirectory={}",
            name.display()
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        check_socket("devices[0].socket", path)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn path_of_107_bytes_is_taken_and_of_108_refused() {
        let folder = tempfile::tempdir().unwrap();
        let fill = SOCKET_PATH_BYTES_MAX - folder.path().as_os_str().len() - 1;

        assert!(check_socket("s", &folder.path().join("n".repeat(fill))).is_ok());
        let said = refusal(&folder.path().join("n".repeat(fill + 1)));

        assert!(said.starts_with("devices[0].socket: "), "{said}");
        assert!(said.contains("has 108 bytes"), "{said}");
    }

    #[test]
    fn directory_that_is_not_there_is_named_with_the_command_that_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");

        let said = refusal(&absent.join("edu0.sock"));

        let command = format!("`mkdir -p {}`", absent.display());
        assert!(
            said.contains("does not exist") && said.contains(&command),
            "{said}"
        );
    }

    #[test]
    fn directory_below_run_is_systemds_to_make() {
        let said = refusal(Path::new("/run/potemkin-absent/admin.sock"));

        assert!(said.contains("RuntimeDirectory=potemkin-absent"), "{said}");
    }

    #[test]
    fn parent_that_is_a_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();

        assert!(refusal(&file.join("a.sock")).contains("is not a directory"));
    }
}
