use core::time::Duration;

use model::{Epoch, Incarnation, LinkId, Lsn, Role, Time};
use wire::heartbeat::{Content, Datagram, Gasp, Heartbeat, State};

use super::{GASPS_MAX, HeartbeatPath};

fn content(revision: u64, state: State) -> Content {
    Content {
        revision,
        pair: None,
        role: Role::Primary,
        incarnation: Incarnation(1),
        state,
        epoch: Epoch::default(),
        reserved: None,
        grant: false,
        lsn: Lsn(revision),
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

fn beats(path: &mut HeartbeatPath, now: Time) -> Vec<Heartbeat> {
    core::iter::from_fn(|| path.poll_send(now))
        .filter_map(|(_, datagram)| match datagram {
            Datagram::Heartbeat(frame) => Some(frame),
            Datagram::Gasp(_) | Datagram::GaspHeard(_) => None,
        })
        .collect()
}

#[test]
fn a_beat_leaves_on_every_link_each_interval_and_at_once_on_a_change_of_state() {
    let mut path = HeartbeatPath::new(Time(0), 2);
    assert!(
        beats(&mut path, Time(0)).is_empty(),
        "nothing is said before there is a content"
    );
    path.set_content(Time(0), content(1, State::Initializing));
    assert_eq!(beats(&mut path, Time(0)).len(), 2);
    assert_eq!(path.next_deadline(), Time::from_ms(100));
    path.set_content(Time::from_ms(10), content(2, State::Initializing));
    assert!(
        beats(&mut path, Time::from_ms(10)).is_empty(),
        "a position waits for the next beat"
    );
    path.set_content(Time::from_ms(20), content(3, State::Active));
    assert_eq!(beats(&mut path, Time::from_ms(20)).len(), 2);
}

#[test]
fn a_stuck_main_loop_silences_the_node() {
    let mut path = HeartbeatPath::new(Time(0), 1);
    path.set_content(Time(0), content(1, State::Active));
    for ms in (0..300).step_by(100) {
        assert_eq!(beats(&mut path, Time::from_ms(ms)).len(), 1);
    }
    assert!(beats(&mut path, Time::from_ms(300)).is_empty());
    path.main_loop_turned(Time::from_ms(350));
    assert_eq!(beats(&mut path, Time::from_ms(400)).len(), 1);
}

#[test]
fn a_change_of_the_interval_never_leaves_the_other_waiting() {
    for (before, after) in [(10_000, 10), (10, 10_000)] {
        let mut paths = [
            HeartbeatPath::new(Time(0), 1),
            HeartbeatPath::new(Time(0), 1),
        ];
        for path in &mut paths {
            path.set_timing(Time(0), before, 3);
            path.set_content(Time(0), content(1, State::Active));
        }
        let mut heard = [Time(0); 2];
        for ms in 0..120_000 {
            let now = Time::from_ms(ms);
            if ms == 60_000 {
                paths[0].set_timing(now, after, 3);
            }
            if ms == 60_777 {
                paths[1].set_timing(now, after, 3);
            }
            for sender in 0..2 {
                paths[sender].main_loop_turned(now);
                for frame in beats(&mut paths[sender], now) {
                    // Every second frame around the change is lost.
                    if (60_000..61_000).contains(&ms) && frame.sequence % 2 == 0 {
                        continue;
                    }
                    paths[1 - sender].received(now, LinkId(0), &frame);
                    heard[1 - sender] = now;
                }
                let silence = now.since(heard[sender]);
                assert!(
                    silence <= paths[sender].hold_time(),
                    "silent for {silence:?} at {now}"
                );
            }
        }
        assert_eq!(
            paths[0].hold_time(),
            Duration::from_millis(u64::from(after) * 3)
        );
    }
}

#[test]
fn old_and_repeated_frames_are_not_passed_on_and_losses_are_counted() {
    let mut sender = HeartbeatPath::new(Time(0), 1);
    let mut receiver = HeartbeatPath::new(Time(0), 1);
    sender.set_content(Time(0), content(1, State::Active));
    receiver.set_content(Time(0), content(1, State::Standby));
    let mut frames = Vec::new();
    for ms in (0..500).step_by(100) {
        sender.main_loop_turned(Time::from_ms(ms));
        frames.extend(beats(&mut sender, Time::from_ms(ms)));
    }
    assert!(
        receiver
            .received(Time::from_ms(1), LinkId(0), &frames[0])
            .is_some()
    );
    assert!(
        receiver
            .received(Time::from_ms(401), LinkId(0), &frames[4])
            .is_some()
    );
    assert!(
        receiver
            .received(Time::from_ms(402), LinkId(0), &frames[1])
            .is_none()
    );
    assert!(
        receiver
            .received(Time::from_ms(402), LinkId(0), &frames[4])
            .is_none()
    );
    let status = receiver.status(Time::from_ms(402), &["ha0".to_owned()], Ok(()));
    assert_eq!((status.links[0].received, status.links[0].lost), (2, 3));
    assert!(
        receiver.received(Time(0), LinkId(7), &frames[4]).is_none(),
        "no such link"
    );
    let mut restarted = frames[0].clone();
    restarted.content.incarnation = Incarnation(2);
    assert!(
        receiver
            .received(Time::from_ms(500), LinkId(0), &restarted)
            .is_some()
    );
}

#[test]
fn the_echo_gives_the_round_trip_and_names_the_beat_that_was_heard() {
    let mut paths = [
        HeartbeatPath::new(Time(0), 1),
        HeartbeatPath::new(Time(0), 1),
    ];
    for path in &mut paths {
        path.set_content(Time(0), content(1, State::Active));
    }
    let first = beats(&mut paths[0], Time(0)).remove(0);
    paths[1].received(Time(2_000_000), LinkId(0), &first);
    let answer = beats(&mut paths[1], Time(5_000_000)).remove(0);
    let told = paths[0]
        .received(Time(8_000_000), LinkId(0), &answer)
        .expect("new frame");
    assert_eq!(told.echo, Time(0));
    let second = beats(&mut paths[0], Time::from_ms(100)).remove(0);
    paths[1].received(Time::from_ms(102), LinkId(0), &second);
    paths[1].main_loop_turned(Time::from_ms(105));
    let answer = beats(&mut paths[1], Time::from_ms(105)).remove(0);
    let told = paths[0]
        .received(Time::from_ms(108), LinkId(0), &answer)
        .expect("new frame");
    assert_eq!(told.echo, Time::from_ms(100));
    let status = paths[0].status(Time::from_ms(108), &[], Ok(()));
    assert_eq!(status.links[0].round_trip_us, 5_000);
}

#[test]
fn a_gasp_is_repeated_until_heard_and_not_for_ever() {
    let gasp = Gasp {
        epoch: Epoch::default(),
        incarnation: Incarnation(1),
    };
    let mut path = HeartbeatPath::new(Time(0), 2);
    path.start_gasp(Time(0), gasp.clone());
    let sent = |path: &mut HeartbeatPath, now| core::iter::from_fn(|| path.poll_send(now)).count();
    assert_eq!(sent(&mut path, Time(0)), 2);
    assert_eq!(sent(&mut path, Time::from_ms(5)), 2);
    assert!(path.gasp_heard(&gasp));
    assert_eq!(sent(&mut path, Time::from_ms(10)), 0);
    path.start_gasp(Time(0), gasp);
    let total: usize = (0..5_000)
        .map(|ms| sent(&mut path, Time::from_ms(ms)))
        .sum();
    assert_eq!(total, 2 * usize::from(GASPS_MAX));
}
