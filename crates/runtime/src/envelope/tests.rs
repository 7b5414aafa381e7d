//! Two ends with the same exported bytes, and what an attacker can do in between.

use super::{Envelope, ExportedKeys, GUARDIAN_COUNTERS, Refused, ReplayWindow, WINDOW_BITS};

fn exported(seed: u8) -> ExportedKeys {
    ExportedKeys::new(core::array::from_fn(|i| {
        seed.wrapping_mul(31).wrapping_add(i as u8)
    }))
}

/// A server and a client after one TLS connection and the client's first control message.
fn pair() -> (Envelope, Envelope) {
    let (mut server, mut client) = (Envelope::default(), Envelope::default());
    let id = server.install(&exported(1), true);
    client.install(&exported(1), false);
    server.activate(id);
    (server, client)
}

fn sealed(from: &mut Envelope, text: &[u8]) -> Vec<u8> {
    let mut out = [0; 1200];
    let length = from.seal(text, &mut out).expect("a key");
    out[..length].to_vec()
}

fn open(by: &mut Envelope, mut datagram: Vec<u8>) -> Result<Vec<u8>, Refused> {
    by.open(&mut datagram).map(<[u8]>::to_vec)
}

#[test]
fn both_directions_pass_once_the_server_has_spoken() {
    let (mut server, mut client) = pair();
    assert_eq!(client.seal(b"early", &mut [0; 99]), None);
    let first = sealed(&mut server, b"hello");
    assert_eq!(open(&mut client, first), Ok(b"hello".to_vec()));
    let answer = sealed(&mut client, b"hello too");
    assert_eq!(open(&mut server, answer), Ok(b"hello too".to_vec()));
}

#[test]
fn a_replayed_datagram_is_refused_and_a_late_one_is_not() {
    let (mut server, mut client) = pair();
    let datagrams: Vec<_> = (0..10_u8).map(|i| sealed(&mut server, &[i])).collect();
    for i in [3, 1, 9, 0] {
        assert_eq!(open(&mut client, datagrams[i].clone()), Ok(vec![i as u8]));
        assert_eq!(
            open(&mut client, datagrams[i].clone()),
            Err(Refused::Replayed)
        );
    }
    for _ in 0..WINDOW_BITS {
        let next = sealed(&mut server, b"x");
        assert!(open(&mut client, next).is_ok());
    }
    assert_eq!(
        open(&mut client, datagrams[5].clone()),
        Err(Refused::TooOld),
        "too old to tell"
    );
}

#[test]
fn any_changed_bit_is_refused_and_harms_nothing() {
    let (mut server, mut client) = pair();
    let datagram = sealed(&mut server, b"state");
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(open(&mut client, changed).is_err(), "bit {bit}");
    }
    for length in 0..datagram.len() {
        assert!(
            open(&mut client, datagram[..length].to_vec()).is_err(),
            "cut to {length}"
        );
    }
    assert_eq!(open(&mut client, datagram), Ok(b"state".to_vec()));
}

#[test]
fn a_datagram_sent_back_to_its_sender_is_refused() {
    let (mut server, _) = pair();
    let own = sealed(&mut server, b"mirror");
    assert_eq!(open(&mut server, own), Err(Refused::Tag));
}

#[test]
fn the_old_key_goes_on_until_the_new_one_is_used() {
    let (mut server, mut client) = pair();
    let first = sealed(&mut server, b"1");
    assert!(open(&mut client, first).is_ok());
    // The client ends its second handshake first; the server has not heard of it.
    client.install(&exported(2), false);
    let under_old = sealed(&mut client, b"2");
    assert!(open(&mut server, under_old).is_ok());
    let in_flight = sealed(&mut client, b"in flight");
    let id = server.install(&exported(2), true);
    let still_old = sealed(&mut server, b"3");
    assert!(open(&mut client, still_old).is_ok());
    server.activate(id);
    let under_new = sealed(&mut server, b"4");
    assert!(open(&mut client, under_new).is_ok());
    assert!(
        open(&mut server, in_flight).is_ok(),
        "the server hears the old key until the new"
    );
    let under_new = sealed(&mut client, b"5");
    assert!(open(&mut server, under_new).is_ok());
}

#[test]
fn connections_of_two_links_may_finish_in_either_order() {
    let (mut server, mut client) = (Envelope::default(), Envelope::default());
    client.install(&exported(1), false);
    client.install(&exported(2), false);
    let two = server.install(&exported(2), true);
    server.activate(two);
    let beat = sealed(&mut server, b"2");
    assert!(open(&mut client, beat).is_ok());
    let one = server.install(&exported(1), true);
    server.activate(one);
    let beat = sealed(&mut server, b"1");
    assert!(open(&mut client, beat).is_ok());
    let beat = sealed(&mut client, b"1");
    assert!(open(&mut server, beat).is_ok());
}

#[test]
fn handshakes_that_never_finish_do_not_push_out_the_key_in_use() {
    let (mut server, mut client) = pair();
    let first = sealed(&mut server, b"1");
    assert!(open(&mut client, first).is_ok());
    for seed in 2..50 {
        server.install(&exported(seed), true);
        client.install(&exported(seed), false);
    }
    let beat = sealed(&mut client, b"2");
    assert!(open(&mut server, beat).is_ok());
    let beat = sealed(&mut server, b"3");
    assert!(open(&mut client, beat).is_ok());
}

#[test]
fn a_gasp_is_single_use_and_never_shares_a_nonce_with_a_beat() {
    let (mut server, mut client) = pair();
    let mut out = [0; 200];
    let length = server.seal_for_guardian(b"gasp", &mut out).expect("a key");
    let gasp = out[..length].to_vec();
    assert!(gasp[8..16] > GUARDIAN_COUNTERS.to_le_bytes()[..]);
    for _ in 0..2 * WINDOW_BITS {
        let beat = sealed(&mut server, b"beat");
        assert!(open(&mut client, beat).is_ok());
    }
    assert_eq!(
        open(&mut client, gasp.clone()),
        Ok(b"gasp".to_vec()),
        "kept, sent much later"
    );
    assert_eq!(open(&mut client, gasp), Err(Refused::Replayed));
    let beat = sealed(&mut server, b"beat");
    assert!(open(&mut client, beat).is_ok(), "beats go on as before");
}

#[test]
fn the_window_agrees_with_a_set() {
    let mut window = ReplayWindow::default();
    let mut seen = std::collections::BTreeSet::new();
    let mut highest = 0_u64;
    let mut state = 1_u64;
    for _ in 0..20_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let counter = (highest + 40).saturating_sub(state >> 54).max(1);
        let new = counter + (WINDOW_BITS as u64) > highest && !seen.contains(&counter);
        assert_eq!(window.is_new(counter), new, "{counter} of {highest}");
        if new {
            window.mark(counter);
            seen.insert(counter);
            highest = highest.max(counter);
        }
    }
}
