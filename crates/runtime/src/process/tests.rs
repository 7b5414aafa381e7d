//! Real children: this test program again, in the part of [`child_body`].

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use rustix::process::Signal;
use wire::Channel;

use super::{Process, Spawn, inherited_socket};
use crate::seqpacket::{PacketBuffer, Seqpacket};

const PATIENCE: Duration = Duration::from_secs(20);
const PART: &str = "TWINWALL_TEST_PART";

/// What a child says of itself: its process number, whether it may gain privileges, and how many
/// descriptors it has beyond its standard streams.
type Report = (u32, bool, Vec<String>);

fn start(part: &str, new_pid_namespace: bool, socket: &OwnedFd) -> Process {
    let arguments = [
        "--exact",
        "process::tests::child_body",
        "--ignored",
        "--nocapture",
    ];
    Spawn {
        name: "child",
        arguments: arguments.iter().map(OsStr::new).collect(),
        environment: vec![(PART, part.to_owned())],
        socket: socket.as_fd(),
        new_pid_namespace,
    }
    .start()
    .expect("a child")
}

/// Not a test: the child's side, started by the tests below.
#[tokio::test]
#[ignore = "the children of other tests run this"]
async fn child_body() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let socket = Seqpacket::from_fd(inherited_socket().expect("inherited")).expect("a socket");
    let no_new_privileges = rustix::thread::no_new_privs().expect("prctl");
    let open = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let sockets = open
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|target| target.to_str().map(str::to_owned))
        .filter(|target| target.starts_with("socket:"));
    let report: Report = (std::process::id(), no_new_privileges, sockets.collect());
    if part == "parent" {
        let (ours, theirs) = Seqpacket::pair().expect("a pair");
        let child = start("leaf", false, &theirs);
        let host_pid = child.host_pid().expect("a number");
        let mut buffer = PacketBuffer::default();
        let theirs: Option<Report> = ours
            .receive(Channel::Supervision, &mut buffer)
            .await
            .expect("a report");
        assert!(theirs.is_some());
        socket
            .send(Channel::Supervision, &(report.clone(), host_pid))
            .await
            .expect("sent");
        std::future::pending::<()>().await;
    }
    socket
        .send(Channel::Supervision, &report)
        .await
        .expect("sent");
    std::future::pending::<()>().await;
}

async fn receive<T: serde::de::DeserializeOwned>(socket: &Seqpacket) -> T {
    let mut buffer = PacketBuffer::default();
    let received = socket.receive(Channel::Supervision, &mut buffer);
    let received = tokio::time::timeout(PATIENCE, received)
        .await
        .expect("a report in time");
    received.expect("a sound message").expect("an open socket")
}

async fn ended(child: &Process) -> std::process::ExitStatus {
    let notice = child.exit_notice().expect("a notice");
    tokio::time::timeout(PATIENCE, notice.ended())
        .await
        .expect("an end in time");
    child
        .try_wait()
        .expect("not reaped before")
        .expect("an ended child")
}

fn exists(host_pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{host_pid}")).exists()
}

#[tokio::test]
async fn a_child_has_its_socket_no_more_privileges_and_an_end() {
    let (ours, theirs) = Seqpacket::pair().expect("a pair");
    let (_bystander, other) = Seqpacket::pair().expect("a pair that is not inherited");
    let name = |fd: &OwnedFd| {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        link.expect("its name").to_str().expect("text").to_owned()
    };
    let (inherited, other) = (name(&theirs), name(&other));
    let child = start("leaf", false, &theirs);
    drop(theirs);
    let (pid, no_new_privileges, sockets): Report = receive(&ours).await;
    assert_eq!(pid, child.pid());
    assert!(no_new_privileges);
    assert!(
        sockets.contains(&inherited) && !sockets.contains(&other),
        "{sockets:?}"
    );
    assert_eq!(
        child.host_pid(),
        Some(child.pid()),
        "no PID namespace, no other number"
    );
    assert_eq!(child.try_wait().expect("running"), None);
    child.kill();
    assert_eq!(ended(&child).await.signal(), Some(9));
    assert!(child.try_wait().is_err(), "it is reaped once");
    child.signal(Signal::TERM);
}

/// Needs CAP_SYS_ADMIN, as the node itself does.
#[tokio::test]
async fn the_death_of_a_namespaces_first_process_ends_all_below_it_and_another_can_follow() {
    for _ in 0..2 {
        let (ours, theirs) = Seqpacket::pair().expect("a pair");
        let child = start("parent", true, &theirs);
        drop(theirs);
        let ((pid, ..), grandchild): (Report, u32) = receive(&ours).await;
        assert_eq!(pid, 1, "the first process of its namespace");
        assert!(exists(grandchild), "its number is the host's");
        child.kill();
        assert_eq!(ended(&child).await.signal(), Some(9));
        assert!(
            !exists(grandchild),
            "the kernel ended it before its parent's end was told"
        );
    }
}
