use model::{Incarnation, NodeKey, Role, ServiceName, Time};
use redundancy::NodeRecord;
use sysmgr::ExitStatus;
use wire::supervision::{Activity, Answer, Ask, FromService, Posture, ToService};

use super::{Start, Supervisor, SupervisorInput, SupervisorOutput};

/// A node whose shell does at once what it is asked, and whose services apply every posture.
struct Rig {
    supervisor: Supervisor,
    now: Time,
    next_pid: u32,
    seen: Vec<SupervisorOutput>,
}

impl Rig {
    fn new(role: Role) -> Self {
        let record = NodeRecord {
            role,
            ..NodeRecord::default()
        };
        let supervisor = Supervisor::new(Start {
            record,
            incarnation: Incarnation(7),
            node: NodeKey([1; 32]),
            links: 2,
            history: Default::default(),
        });
        Self {
            supervisor,
            now: Time::from_ms(1),
            next_pid: 100,
            seen: Vec::new(),
        }
    }

    fn tell(&mut self, input: SupervisorInput) {
        self.supervisor.handle(self.now, input);
        while let Some(output) = self.supervisor.poll_output() {
            self.seen.push(output.clone());
            self.carry_out(output);
        }
        self.supervisor.check().expect("invariants hold");
    }

    fn says(&mut self, service: ServiceName, message: FromService) {
        self.tell(SupervisorInput::FromService { service, message });
    }

    fn carry_out(&mut self, output: SupervisorOutput) {
        match output {
            SupervisorOutput::Spawn { service } => {
                let pid = self.next_pid;
                self.next_pid += 1;
                self.supervisor
                    .handle(self.now, SupervisorInput::Spawned { service, pid });
                let message = FromService::Handshake { service };
                self.supervisor
                    .handle(self.now, SupervisorInput::FromService { service, message });
            }
            SupervisorOutput::ToService {
                service,
                message: ToService::Posture(Posture { sequence, .. }),
            } => {
                let message = FromService::Applied { sequence };
                self.supervisor
                    .handle(self.now, SupervisorInput::FromService { service, message });
            }
            SupervisorOutput::Persist { write, .. } => {
                self.supervisor
                    .handle(self.now, SupervisorInput::Persisted { write });
            }
            _ => {}
        }
    }

    fn answers(&self) -> Vec<(ServiceName, u64, Answer)> {
        let answers = self.seen.iter().filter_map(|output| match output {
            SupervisorOutput::ToService {
                service,
                message: ToService::Answer { question, answer },
            } => Some((*service, *question, answer.clone())),
            _ => None,
        });
        answers.collect()
    }
}

#[test]
fn a_standalone_node_starts_its_services_and_acts() {
    let mut rig = Rig::new(Role::Standalone);
    rig.tell(SupervisorInput::Tick);
    let epoch = rig.supervisor.acting().expect("a standalone node leads");
    assert_eq!(rig.supervisor.health(), sysmgr::Health::Ready);
    let spawned: Vec<_> = rig
        .seen
        .iter()
        .filter_map(|output| match output {
            SupervisorOutput::Spawn { service } => Some(*service),
            _ => None,
        })
        .collect();
    assert_eq!(spawned[..2], [ServiceName::Mts, ServiceName::Pss]);
    assert_eq!(spawned.len(), ServiceName::ALL.len());
    let told = rig.seen.iter().any(|output| {
        matches!(output, SupervisorOutput::ToService {
            service: ServiceName::PolicyEngine,
            message: ToService::Posture(posture),
        } if posture.activity == Activity::Active(epoch))
    });
    assert!(told);
}

#[test]
fn a_dead_native_service_stops_the_node_in_the_same_turn() {
    let mut rig = Rig::new(Role::Standalone);
    rig.tell(SupervisorInput::Tick);
    let pid = rig
        .supervisor
        .rows()
        .find(|row| row.service == ServiceName::PolicyEngine)
        .and_then(|row| row.state.pid())
        .expect("it runs");
    rig.seen.clear();
    let status = ExitStatus::Signal(9);
    rig.tell(SupervisorInput::Exited {
        service: ServiceName::PolicyEngine,
        pid,
        status,
    });
    assert_eq!(rig.supervisor.acting(), None);
    let stop = rig.seen.iter().position(|output| {
        matches!(output, SupervisorOutput::ToService { message: ToService::Posture(posture), .. }
            if posture.activity == Activity::Idle)
    });
    let reset = rig
        .seen
        .iter()
        .position(|output| matches!(output, SupervisorOutput::Reset { .. }));
    assert!(stop.expect("services are stopped") < reset.expect("the node resets"));
}

#[test]
fn questions_are_answered_to_who_asked_and_the_shell_gets_its_own() {
    let mut rig = Rig::new(Role::Standalone);
    rig.tell(SupervisorInput::Tick);
    rig.seen.clear();
    let vshd = ServiceName::Vshd;
    rig.says(
        vshd,
        FromService::Ask {
            question: 5,
            ask: Ask::RedundancyStatus,
        },
    );
    rig.says(
        vshd,
        FromService::Ask {
            question: 6,
            ask: Ask::Switchover,
        },
    );
    rig.says(
        vshd,
        FromService::Ask {
            question: 7,
            ask: Ask::SetRole(Role::Secondary),
        },
    );
    rig.says(
        vshd,
        FromService::Ask {
            question: 8,
            ask: Ask::Processes,
        },
    );
    rig.tell(SupervisorInput::Tick);
    let answers = rig.answers();
    assert!(
        matches!(&answers[0], (ServiceName::Vshd, 5, Answer::RedundancyStatus(status))
        if status.this.internal_state == "Active with no standby" && status.other.is_none())
    );
    let refusal = "Failed to switchover (standby not ready to takeover in vdc 1)";
    assert_eq!(answers[1], (vshd, 6, Answer::Refused(refusal.to_owned())));
    let note = "Setting will be activated on next reload.";
    assert_eq!(answers[2], (vshd, 7, Answer::Noted(note.to_owned())));
    assert!(rig.seen.contains(&SupervisorOutput::Query {
        service: vshd,
        question: 8,
        ask: Ask::Processes
    }));
}

#[test]
fn a_service_is_believed_only_in_what_is_its_own() {
    let mut rig = Rig::new(Role::Standalone);
    rig.tell(SupervisorInput::Tick);
    rig.seen.clear();
    rig.says(ServiceName::Vshd, FromService::AskAlone { question: 1 });
    assert!(rig.answers().is_empty());
    rig.says(ServiceName::Pss, FromService::AskAlone { question: 1 });
    rig.tell(SupervisorInput::Tick);
    assert_eq!(rig.answers(), [(ServiceName::Pss, 1, Answer::Done)]);
}

#[test]
fn a_vem_that_refuses_a_clone_stops_the_node_in_the_same_turn() {
    let mut rig = Rig::new(Role::Standalone);
    rig.tell(SupervisorInput::Tick);
    assert!(rig.supervisor.acting().is_some());
    let report = wire::supervision::VemReport {
        registered: 1,
        connected: 1,
        clone_seen: true,
        ..Default::default()
    };
    rig.says(ServiceName::VemMgr, FromService::Vems(report));
    assert!(rig.supervisor.acting().is_none());
    let logged = rig.seen.iter().any(
        |output| matches!(output, SupervisorOutput::Log(record) if record.mnemonic == "CLONE"),
    );
    assert!(logged);
    rig.now = rig.now + core::time::Duration::from_secs(10);
    rig.tell(SupervisorInput::Tick);
    let reset = rig.seen.iter().any(
        |output| matches!(output, SupervisorOutput::Reset { reason } if reason.contains("clone")),
    );
    assert!(reset, "it ends, and its next start waits for an operator");
}
