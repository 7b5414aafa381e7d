//! The heartbeat thread allocates nothing while it beats and hears: counted by the allocator of
//! this test program, for that thread alone.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use model::{Epoch, Incarnation, LinkId, Lsn, Role};
use runtime::clock;
use runtime::envelope::ExportedKeys;
use runtime::heartbeat::{HeartbeatEvent, HeartbeatLink, Heartbeats};
use wire::heartbeat::{Content, State};

/// The thread that is watched; 0 is none.
static WATCHED: AtomicI32 = AtomicI32::new(0);
/// Allocations, growths and releases by it.
static TOUCHED: AtomicUsize = AtomicUsize::new(0);

struct Watching;

#[allow(unsafe_code, reason = "no safe wrapper")]
fn own_thread() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() }
}

fn touch() {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched != 0 && own_thread() == watched {
        TOUCHED.fetch_add(1, Ordering::Relaxed);
    }
}

#[allow(unsafe_code, reason = "an allocator is unsafe by nature")]
// SAFETY: every call is handed to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        touch();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        touch();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        touch();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

fn content(state: State, incarnation: u64) -> Content {
    Content {
        revision: 1,
        pair: None,
        role: Role::Primary,
        incarnation: Incarnation(incarnation),
        state,
        epoch: Epoch::default(),
        reserved: None,
        grant: false,
        lsn: Lsn(0),
        acked: Lsn(0),
        config_hash: 0,
        alone: false,
        canary: 0,
        base: Default::default(),
        contest: None,
        restart: None,
        down: None,
    }
}

fn ports() -> [SocketAddr; 2] {
    // Both at once, so that they differ.
    let free = || UdpSocket::bind("127.0.0.1:0").expect("a loopback port");
    [free(), free()].map(|socket| socket.local_addr().expect("its address"))
}

fn start(local: SocketAddr, peer: SocketAddr) -> (Heartbeats, i32) {
    let before = beating();
    let name = "control".to_owned();
    let links = vec![HeartbeatLink { name, local, peer }];
    let heartbeats = Heartbeats::start(links).expect("started");
    let thread = beating().into_iter().find(|id| !before.contains(id));
    (heartbeats, thread.expect("a new thread"))
}

/// The heartbeat threads of this process.
fn beating() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc");
    let of_a_heartbeat = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let id = path.file_name()?.to_str()?.parse().ok()?;
        (name.trim() == "heartbeat").then_some(id)
    };
    tasks
        .filter_map(|task| of_a_heartbeat(task.ok()?.path()))
        .collect()
}

#[tokio::test]
async fn beating_and_hearing_allocate_nothing() {
    let [a, b] = ports();
    let (mut server, server_thread) = start(a, b);
    let (mut client, client_thread) = start(b, a);
    let exported = ExportedKeys::new(core::array::from_fn(|i| i as u8));
    client.install_keys(exported, false).expect("a live thread");
    server.install_keys(exported, true).expect("a live thread");
    server.activate_keys(exported.id()).expect("a live thread");
    for (heartbeats, state, incarnation) in
        [(&server, State::Active, 1), (&client, State::Standby, 2)]
    {
        heartbeats.set_timing(10, 3).expect("a live thread");
        let content = content(state, incarnation);
        heartbeats.set_content(content).expect("a live thread");
    }
    // The first beats without a watch: what happens once is no steady path.
    for (thread, beats) in [(0, 50), (server_thread, 200), (client_thread, 200)] {
        WATCHED.store(thread, Ordering::Relaxed);
        let mut heard = [0; 2];
        let deadline = clock::now() + Duration::from_secs(60);
        while heard.iter().any(|heard| *heard < beats) {
            assert!(clock::now() < deadline, "{heard:?} of {beats} beats");
            for (index, heartbeats) in [&mut server, &mut client].into_iter().enumerate() {
                heartbeats.turned(clock::now());
                let event =
                    tokio::time::timeout(Duration::from_millis(3), heartbeats.next_event()).await;
                if let Ok(event) = event
                    && let HeartbeatEvent::Heartbeat { link, .. } = event.expect("a live thread")
                {
                    assert_eq!(link, LinkId(0));
                    heard[index] += 1;
                }
            }
        }
        WATCHED.store(0, Ordering::Relaxed);
    }
    assert_eq!(TOUCHED.load(Ordering::Relaxed), 0);
    // An operator's question is no steady path; it shows that the watch sees.
    WATCHED.store(server_thread, Ordering::Relaxed);
    server.ask_status(1).expect("a live thread");
    while TOUCHED.load(Ordering::Relaxed) == 0 {
        let _ = server.next_event().await.expect("a live thread");
    }
}
