//! The measuring side, in the client VM: one thread for the millisecond clock
//! (stream and UDP flow), one for connections.

use super::connections::{Connections, Plan};
use super::records::RecordLog;
use super::stream::StreamSender;
use super::udp::UdpSender;
use crate::clock::{NS_PER_MS, now_ns, sleep_until};
use crate::sys;

/// Most ticks sent at once after a late wake-up; beyond, they are skipped, and
/// the report shows how late the generator was.
const CATCH_UP_MAX: u64 = 100;

/// Asks for real time; says so in the process's log when refused.
pub fn ask_real_time(role: &str) {
    if let Err(error) = sys::ask_real_time() {
        eprintln!("{role}: no real-time priority ({error}): measurements are less exact");
    }
}

/// Runs both threads until `until_ns`.
///
/// # Errors
/// When either cannot start or go on.
pub fn run(
    mut stream: StreamSender,
    mut udp: UdpSender,
    plan: Plan,
    measured: RecordLog,
    forbidden: RecordLog,
) -> anyhow::Result<()> {
    let until_ns = plan.until_ns;
    let mut connections = Connections::new(&plan, measured, forbidden)?;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            ask_real_time("stream and UDP");
            tick_until(until_ns, &mut stream, &mut udp);
        });
        ask_real_time("connections");
        connections.run()
    })
}

fn tick_until(until_ns: u64, stream: &mut StreamSender, udp: &mut UdpSender) {
    let mut due_ns = now_ns();
    while due_ns < until_ns {
        sleep_until(due_ns);
        let late_ticks = (now_ns() - due_ns) / NS_PER_MS;
        if late_ticks > CATCH_UP_MAX {
            due_ns += (late_ticks - CATCH_UP_MAX) * NS_PER_MS;
        }
        stream.tick();
        udp.tick();
        udp.settle(now_ns());
        due_ns += NS_PER_MS;
    }
}
