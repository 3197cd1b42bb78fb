//! Who waits until there is room: a line for each namespace; of those who stand at a head, and fit, the one who came first
//! is next.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::task::Context;
use std::task::Waker;

use crate::limits;
use crate::types::Namespace;

/// Who stands in a line.
#[derive(Debug)]
struct Waiter {
    /// In the order of arrival, over all lines.
    number: u64,
    /// Bytes of room that it waits for.
    bytes: u64,
    waker: Option<Waker>,
}

/// What there is for somebody at the head of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Enough.
    Enough,
    /// Not enough, and no end of a write will change that.
    None,
    /// Not enough now.
    Later,
}

/// All lines. None is empty.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lines: RefCell<BTreeMap<Namespace, VecDeque<Waiter>>>,
    n: Cell<usize>,
    next: Cell<u64>,
}

impl Waiting {
    /// A place at the end of the line of `namespace`, which may be as long as all places that are left. Whoever has nobody
    /// before it gets one, too: it may not have to wait.
    pub(super) fn stand(&self, namespace: &Namespace, bytes: u64) -> Option<u64> {
        let mut lines = self.lines.borrow_mut();
        let n_own = lines.get(namespace).map_or(0, VecDeque::len);
        if n_own > 0 && n_own >= limits::PARKED_MAX.saturating_sub(self.n.get()) {
            return None;
        }
        let number = self.next.get();
        self.next.set(number + 1);
        self.n.set(self.n.get() + 1);
        let waiter = Waiter { number, bytes, waker: None };
        lines.entry(namespace.clone()).or_default().push_back(waiter);
        Some(number)
    }

    /// Give up the place with this number.
    pub(super) fn leave(&self, namespace: &Namespace, number: u64) {
        let mut lines = self.lines.borrow_mut();
        if let Some(line) = lines.get_mut(namespace) {
            line.retain(|it| it.number != number);
            if line.is_empty() {
                lines.remove(namespace);
            }
        }
        self.n.set(self.n.get() - 1);
    }

    /// What there is for `number`, if it is its turn: [`Room::Later`] if it is not. `room` says what there is for so many
    /// bytes more of a namespace.
    pub(super) fn look(
        &self,
        namespace: &Namespace,
        number: u64,
        room: impl Fn(&Namespace, u64) -> Room,
    ) -> Room {
        let lines = self.lines.borrow();
        let head = lines.get(namespace).and_then(VecDeque::front);
        let Some(head) = head.filter(|it| it.number == number) else { return Room::Later };
        match room(namespace, head.bytes) {
            Room::Enough if next(&lines, room) != Some(number) => Room::Later,
            it => it,
        }
    }

    /// Whether nobody has waited longer.
    pub(super) fn is_oldest(&self, number: u64) -> bool {
        self.heads_min() == Some(number)
    }

    fn heads_min(&self) -> Option<u64> {
        self.lines.borrow().values().filter_map(|it| it.front()).map(|it| it.number).min()
    }

    /// Wake this task when something has changed for `number`.
    pub(super) fn wait(&self, namespace: &Namespace, number: u64, cx: &Context<'_>) {
        let mut lines = self.lines.borrow_mut();
        let line = lines.get_mut(namespace).expect("who waits stands in a line");
        let own = line.iter_mut().find(|it| it.number == number).expect("who waits has a place");
        own.waker = Some(cx.waker().clone());
    }

    /// There may be more room, or less: wake who is next, who has waited longest (and looks at the clock for all), and
    /// those for whom there will be none.
    pub(super) fn wake(&self, room: impl Fn(&Namespace, u64) -> Room) {
        let oldest = self.heads_min();
        let lines = self.lines.borrow();
        let next = next(&lines, &room);
        for (namespace, line) in lines.iter() {
            let Some(Waiter { number, bytes, waker: Some(waker) }) = line.front() else { continue };
            let is_asked = Some(*number) == next || Some(*number) == oldest;
            if is_asked || room(namespace, *bytes) == Room::None {
                waker.wake_by_ref();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lines.borrow().is_empty() && self.n.get() == 0
    }
}

/// Of the heads for whom there is enough, the one who came first.
fn next(
    lines: &BTreeMap<Namespace, VecDeque<Waiter>>,
    room: impl Fn(&Namespace, u64) -> Room,
) -> Option<u64> {
    let heads = lines.iter().filter_map(|(namespace, line)| Some((namespace, line.front()?)));
    let fit = heads.filter(|(namespace, it)| room(namespace, it.bytes) == Room::Enough);
    fit.map(|(_, it)| it.number).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    #[test]
    fn of_those_who_fit_the_first_to_come_is_next() {
        let waiting = Waiting::default();
        let [a, b, c] = ["a", "b", "c"].map(namespace);
        let first = waiting.stand(&c, 10).unwrap();
        let second = waiting.stand(&a, 10).unwrap();
        let third = waiting.stand(&b, 1).unwrap();
        let behind = waiting.stand(&b, 1).unwrap();
        let room = |_: &Namespace, bytes| if bytes <= 10 { Room::Enough } else { Room::Later };
        assert_eq!(waiting.look(&a, second, room), Room::Later, "whatever their names are");
        assert_eq!(waiting.look(&c, first, room), Room::Enough);
        assert!(waiting.is_oldest(first) && !waiting.is_oldest(second));
        waiting.leave(&c, first);
        assert_eq!(waiting.look(&a, second, room), Room::Enough);
        // Who does not fit keeps nobody else.
        let little = |_: &Namespace, bytes| if bytes <= 1 { Room::Enough } else { Room::Later };
        assert_eq!(waiting.look(&a, second, little), Room::Later);
        assert_eq!(waiting.look(&b, third, little), Room::Enough);
        assert_eq!(waiting.look(&b, behind, little), Room::Later, "it stands behind");
        let none = |_: &Namespace, _| Room::None;
        assert_eq!(waiting.look(&a, second, none), Room::None);
        for (namespace, number) in [(&a, second), (&b, third), (&b, behind)] {
            waiting.leave(namespace, number);
        }
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_long_line_leaves_places_to_others() {
        let waiting = Waiting::default();
        let [a, b] = ["a", "b"].map(namespace);
        let n_of =
            |it: &Namespace| (0..10_000).take_while(|_| waiting.stand(it, 1).is_some()).count();
        assert_eq!(n_of(&a), limits::PARKED_MAX / 2);
        assert_eq!(n_of(&b), limits::PARKED_MAX / 4);
        // Who has nobody before it may not have to wait at all.
        for n in 0..limits::PARKED_MAX {
            assert!(waiting.stand(&namespace(&format!("n{n}")), 1).is_some());
        }
        assert!(waiting.stand(&a, 1).is_none());
    }
}
