//! The thread that forks. The kernel's "signal when the parent dies" means the parent *thread*: a child that a
//! test's own thread had started would die with that thread, even when its [`Process`](super::Process) had
//! moved on to another. One thread that lives as long as this process starts them all.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

struct Job {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

static LAUNCHER: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts `command` in a process group of its own, in the network namespace `netns` if given, to be killed
/// when this process dies.
pub(super) fn launch(mut command: Command, netns: Option<OwnedFd>) -> io::Result<Child> {
    command.process_group(0);
    prepare_child(&mut command, netns);
    let (answer, result) = sync_channel(1);
    LAUNCHER
        .get_or_init(start_thread)
        .send(Job { command, answer })
        .map_err(|_| io::Error::other("the launcher thread is gone"))?;
    result
        .recv()
        .map_err(|_| io::Error::other("the launcher thread is gone"))?
}

fn start_thread() -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    std::thread::spawn(move || {
        for mut job in jobs {
            // The caller waits for the answer, so nobody missing it is no failure.
            let _ = job.answer.send(job.command.spawn());
        }
    });
    sender
}

#[allow(unsafe_code)]
fn prepare_child(command: &mut Command, netns: Option<OwnedFd>) {
    use std::os::fd::AsFd;
    let parent = getpid();
    let in_child = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above: then no signal comes.
        if getppid() != Some(parent) {
            return Err(io::Error::from(rustix::io::Errno::SRCH));
        }
        if let Some(netns) = &netns {
            move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes only system calls (prctl, getppid, setns) on values made
    // before the fork; it takes no lock and allocates nothing.
    unsafe { command.pre_exec(in_child) };
}
