//! The program that takes an agent's place.

use std::{
    convert::Infallible,
    env,
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use potemkin_service::runtime::chain;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

use super::{
    document::{FORMAT, VARIABLE},
    signal::Ignored,
};

/// How long the program may take to say what it can take over.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of what it says.
const SAID_BYTES_MAX: u64 = 64 << 10;

/// What a program says of itself.
#[derive(Debug, Deserialize, Serialize)]
struct Check {
    potemkin_front: CanTakeOver,
}

#[derive(Debug, Deserialize, Serialize)]
struct CanTakeOver {
    version: String,
    /// Formats that it reads.
    formats: Vec<u32>,
}

/// Says which agents this program can take over from, for the one that asks.
pub(crate) fn print_check() -> io::Result<()> {
    let check = Check {
        potemkin_front: CanTakeOver {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            formats: vec![FORMAT],
        },
    };
    let line = serde_json::to_string(&check)?;
    io::Write::write_all(&mut io::stdout(), format!("{line}\n").as_bytes())
}

/// A program, and how it is to be run.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    args: Vec<OsString>,
}

impl Program {
    /// What stands now where this process was started from. Not the file that runs: that may have been replaced.
    pub(super) fn find() -> Result<Self, String> {
        let args: Vec<_> = env::args_os().collect();
        let name = Path::new(args.first().ok_or("this process has no name")?);
        let path = if name.components().count() > 1 {
            name.to_owned()
        } else {
            let folders = env::var_os("PATH").unwrap_or_default();
            let mut found = env::split_paths(&folders).map(|folder| folder.join(name));
            let found = found.find(|path| access(path, Access::EXEC_OK).is_ok());
            found.ok_or_else(|| format!("{} is not in PATH any more", name.display()))?
        };
        Ok(Self { path, args })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it with our configuration, and asks whether it can take over.
    pub(super) async fn check(&self) -> Result<(), String> {
        let failed = |problem: String| format!("{}: {problem}", self.path.display());
        let checked = tokio::time::timeout(CHECK_TIMEOUT, self.ask()).await;
        let line = checked
            .map_err(|_| failed("it does not say what it can take over".to_owned()))?
            .map_err(failed)?;
        let check: Check = serde_json::from_str(&line)
            .map_err(|_| failed("it is no front agent, or too old to take over".to_owned()))?;
        let CanTakeOver { version, formats } = check.potemkin_front;
        if !formats.contains(&FORMAT) {
            return Err(failed(format!(
                "version {version} cannot take over from {}: it reads formats {formats:?} of the state, not {FORMAT}",
                env!("CARGO_PKG_VERSION")
            )));
        }
        Ok(())
    }

    async fn ask(&self) -> Result<String, String> {
        let mut child = Command::new(&self.path)
            .args(self.args.iter().skip(1))
            .arg("--upgrade-check")
            .env_remove(VARIABLE)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("it cannot be run: {error}"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (said, complained) = tokio::join!(bounded(out), bounded(err));
        let status = child.wait().await.map_err(|error| chain(&error))?;
        if !status.success() {
            return Err(format!(
                "it cannot take over: {status}: {}",
                complained.trim_end()
            ));
        }
        Ok(said.lines().next().unwrap_or_default().to_owned())
    }

    /// Executes it in this process, with the state in `memfd`. Returns only when that fails; then nothing has changed.
    #[allow(unsafe_code)]
    pub(super) fn execute(&self, memfd: OwnedFd) -> io::Result<Infallible> {
        // Of its own, open in the other program.
        let handed = rustix::io::dup(&memfd)?;
        let path = text(self.path.clone().into_os_string())?;
        let args = self.args.iter().cloned().map(text);
        let args = args.collect::<io::Result<Vec<_>>>()?;
        let mut variables: Vec<_> = env::vars_os()
            .filter(|(name, _)| name != VARIABLE)
            .collect();
        variables.push((VARIABLE.into(), handed.as_raw_fd().to_string().into()));
        let variables = variables.into_iter().map(|(mut variable, value)| {
            variable.push("=");
            variable.push(value);
            text(variable)
        });
        let variables = variables.collect::<io::Result<Vec<_>>>()?;
        let (args, variables) = (pointers(&args), pointers(&variables));
        let ignored = Ignored::new();
        // SAFETY: The path is a C string; the arrays are of C strings, end with a null, and live until the call returns.
        unsafe { libc::execve(path.as_ptr(), args.as_ptr(), variables.as_ptr()) };
        let error = io::Error::last_os_error();
        drop(ignored);
        Err(error)
    }
}

fn text(text: OsString) -> io::Result<CString> {
    Ok(CString::new(text.into_vec())?)
}

fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    let pointers = texts.iter().map(|text| text.as_ptr());
    pointers.chain([std::ptr::null()]).collect()
}

/// What a pipe brings, up to a bound; the writer of more finds it closed.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What was read before an error is all there is.
        let _ = pipe.take(SAID_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
