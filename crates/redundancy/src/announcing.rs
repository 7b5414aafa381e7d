//! The lines that tell of a new active (chapter: the four log lines of a switchover begin here).

use crate::active::{Active, Entry};
use crate::context::Context;
use crate::phase::{Cause, Ended};

impl Active {
    pub(crate) fn announce(&self, ctx: &mut Context, how: Entry) {
        let epoch = self.epoch;
        match how {
            Entry::TakeOver(ended) => {
                let (ours, theirs) = (ctx.slot(), ctx.slot().other());
                // Heartbeats may tell before the order to take over arrives.
                if matches!(ended, Ended::HandedOver | Ended::Yielded) {
                    let text = format!(
                        "Two gateways are present: {ours} is becoming active, {theirs} has yielded \
                         and reloads to become standby."
                    );
                    ctx.log(2, "SWITCHOVER_INITIATED", text);
                }
                let start = "This supervisor is becoming active";
                ctx.log_as(
                    "SYSMGR",
                    2,
                    "HASWITCHOVER_PRE_START",
                    format!("{start} (pre-start phase)."),
                );
                ctx.log_as("SYSMGR", 2, "HASWITCHOVER_START", format!("{start}."));
                ctx.log(
                    5,
                    "ROLE_CHANGE",
                    format!(
                        "{ours} standby -> active under epoch {epoch}: {}.",
                        ended.words()
                    ),
                );
            }
            Entry::Cause(cause) => {
                let module = ctx.slot().module().0;
                let text = format!("Supervisor {module} is active (serial: )");
                ctx.log_as("MODULE", 5, "ACTIVE_SUP_OK", text);
                let slot = ctx.slot();
                ctx.log(
                    5,
                    "ROLE_CHANGE",
                    format!("{slot} -> active under epoch {epoch}: {}.", {
                        match cause {
                            Cause::Standalone => "standalone",
                            Cause::Negotiated => "negotiated with the other supervisor",
                            Cause::BootedAlone => "booted alone and may lead",
                            Cause::Forced => "forced by an operator",
                            Cause::Survived => "survived a conflict of two actives",
                            Cause::TakenBack => "the standby did not take over",
                            Cause::Paired => "paired with a supervisor that has led",
                            Cause::Promised => "the VEMs had been asked for another one",
                            Cause::Waited => "booted alone, and its wait is over",
                        }
                    }),
                );
            }
        }
    }
}
