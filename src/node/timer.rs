//! Wakes the driver when its state machine wants to be called.
//!
//! The next timeout moves with almost every request, mostly to later. So the alarm is set again only for an
//! earlier time; one that rings too early costs a turn that does nothing.

use std::rc::Rc;
use std::time::Duration;

use glommio::timer::TimerActionOnce;

use crate::node::mesh::Mesh;
use crate::types::Instant;

/// Shortest time worth setting an alarm for.
const DELAY_MIN: Duration = Duration::from_millis(1);

pub(super) struct Timer {
    mesh: Rc<Mesh>,
    alarm: Option<(Instant, TimerActionOnce<()>)>,
}

impl Timer {
    pub(super) fn new(mesh: Rc<Mesh>) -> Self {
        Self { mesh, alarm: None }
    }

    /// Have the driver woken at `at`.
    pub(super) fn arm(&mut self, at: Option<Instant>, now: Instant) {
        let Some(at) = at else { return };
        if self.alarm.as_ref().is_some_and(|(set, _)| *set <= at && *set > now) {
            return;
        }
        if let Some((_, alarm)) = self.alarm.take() {
            alarm.destroy();
        }
        let mesh = Rc::clone(&self.mesh);
        let delay = at.since(now).max(DELAY_MIN);
        let alarm = TimerActionOnce::do_in(delay, async move { mesh.wake() });
        self.alarm = Some((now.after(delay), alarm));
    }
}
