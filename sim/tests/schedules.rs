//! Every schedule comes out right.

#[test]
fn schedule_1() {
    assert_eq!(sim::schedules::ALL[0].run(false), Ok(()));
}

#[test]
fn schedule_2() {
    assert_eq!(sim::schedules::ALL[1].run(false), Ok(()));
}

#[test]
fn schedule_3() {
    assert_eq!(sim::schedules::ALL[2].run(false), Ok(()));
}

#[test]
fn schedule_4() {
    assert_eq!(sim::schedules::ALL[3].run(false), Ok(()));
}

#[test]
fn schedule_5() {
    assert_eq!(sim::schedules::ALL[4].run(false), Ok(()));
}

#[test]
fn schedule_6() {
    assert_eq!(sim::schedules::ALL[5].run(false), Ok(()));
}

#[test]
fn schedule_7() {
    assert_eq!(sim::schedules::ALL[6].run(false), Ok(()));
}

#[test]
fn schedule_8() {
    assert_eq!(sim::schedules::ALL[7].run(false), Ok(()));
}

#[test]
fn schedule_9() {
    assert_eq!(sim::schedules::ALL[8].run(false), Ok(()));
}

#[test]
fn schedule_10() {
    assert_eq!(sim::schedules::ALL[9].run(false), Ok(()));
}
