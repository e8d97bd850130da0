//! Quota cells: how much of each limit is taken, by quota and dimensions. The promise is that no window, wherever it
//! begins, sees more granted than the limit: a rolling window forgets an amount a tenth of its length late rather than
//! early. What may be in it is bounded; when it is full of amounts still in use, new cells grant nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::hash::HashMap;
use crate::leased::{Account, Lease, Patience, Want};

const SHARDS: usize = 16;
/// Cells of one shard; as many deduplication ids are remembered.
const MAX_ENTRIES: usize = 16_384;
/// Between two sweeps of a shard, in nanoseconds: a full one must not be swept at every charge.
const SWEEP_PAUSE: u64 = 100_000_000;
const TICKS: u64 = 10;
const RING: usize = TICKS as usize + 1;

/// One charge on one cell, as the policy wants it; complete, so that another replica can serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Quota instance, name.namespace: for people.
    pub quota: String,
    /// Handler, instance, limit and dimensions: a limit that changes begins anew, one that stays survives a reload.
    pub cell: Vec<u8>,
    /// The limit.
    pub max: i64,
    /// Its window in nanoseconds; zero: until released.
    pub window: u64,
    /// Windows begin at multiples of their length instead of rolling.
    pub is_fixed: bool,
    /// Held across replicas by a store, of which this one leases slices; the window isn't zero then.
    pub is_leased: bool,
    /// Negative: a release.
    pub amount: i64,
    /// Take what there is when it is less than the amount.
    pub best_effort: bool,
    /// None: never a repetition. An empty id is an id like any other.
    pub deduplication_id: Option<String>,
    /// How long the id is remembered, in nanoseconds.
    pub min_deduplication: u64,
}

/// What a charge got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Grant {
    /// The amount, or what was given back for a release.
    pub granted: i64,
    /// How long it may be used, in nanoseconds.
    pub valid: u64,
    /// What the limit has left after it.
    pub left: i64,
    /// Until some of what is taken comes back, in nanoseconds; zero: nothing is taken, or it stays until released.
    pub reset: u64,
}

/// All cells of this replica.
#[derive(Debug)]
pub struct Cells {
    shards: Vec<Mutex<Shard>>,
    hasher: foldhash::fast::RandomState,
    refused_full: AtomicU64,
    has_store: AtomicBool,
}

impl Default for Cells {
    fn default() -> Self {
        Cells::bounded(MAX_ENTRIES)
    }
}

impl Cells {
    fn bounded(max_entries: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                max_entries,
                ..Shard::default()
            })
        };
        Cells {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: foldhash::fast::RandomState::default(),
            refused_full: AtomicU64::new(0),
            has_store: AtomicBool::new(false),
        }
    }

    /// From now on somebody leases from a store.
    pub fn expect_store(&self) {
        self.has_store.store(true, Ordering::Relaxed);
    }

    /// Whether somebody leases from a store.
    pub fn has_store(&self) -> bool {
        self.has_store.load(Ordering::Relaxed)
    }

    /// Charges a cell at `now`, in nanoseconds of any clock that never goes back. A leased one grants what it has.
    pub fn charge(&self, charge: &Charge, now: u64) -> Grant {
        let patience = if self.has_store() {
            Patience::Waited
        } else {
            Patience::Alone
        };
        self.try_charge(charge, now, patience).0.unwrap_or_default()
    }

    /// Charges a cell. None: it waits for what the store will say to a `Want`, this one or one before; charge again then,
    /// or without patience when that takes too long.
    pub fn try_charge(&self, charge: &Charge, now: u64, patience: Patience) -> (Option<Grant>, Option<Want>) {
        match self.shard(&charge.cell).charge(charge, now, patience) {
            Some(charged) => charged,
            None => {
                self.refused_full.fetch_add(1, Ordering::Relaxed);
                (Some(Grant::default()), None)
            }
        }
    }

    /// What the store said to a want; None: it gave no answer.
    pub fn answered(&self, cell: &[u8], id: u64, lease: Option<Lease>) {
        if let Some(Cell {
            kind: Kind::Leased(account),
            ..
        }) = self.shard(cell).cells.get_mut(cell)
        {
            account.answered(id, lease);
        }
    }

    fn shard(&self, cell: &[u8]) -> MutexGuard<'_, Shard> {
        use std::hash::BuildHasher;
        let shard = self.hasher.hash_one(cell) as usize % SHARDS;
        // A poisoned lock only means that a thread died; the numbers in it are whole.
        self.shards[shard]
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Cells in use, and charges refused because there were too many.
    pub fn statistics(&self) -> (usize, u64) {
        let count = |shard: &Mutex<Shard>| {
            shard
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .cells
                .len()
        };
        (
            self.shards.iter().map(count).sum(),
            self.refused_full.load(Ordering::Relaxed),
        )
    }
}

#[derive(Debug, Default)]
struct Shard {
    cells: HashMap<Vec<u8>, Cell>,
    /// By cell and id: the grant, until when it may be used, and until when it is repeated.
    repeats: HashMap<(Vec<u8>, String), (Grant, u64, u64)>,
    max_entries: usize,
    /// Entries at which a sweep is due; sweeps so cost a constant share of the inserts.
    sweep_at: usize,
    /// And not before this time.
    sweep_after: u64,
    /// The last id of a want.
    wants: u64,
}

impl Shard {
    /// None: too many cells in use.
    fn charge(&mut self, charge: &Charge, now: u64, patience: Patience) -> Option<(Option<Grant>, Option<Want>)> {
        let repeat = charge
            .deduplication_id
            .as_ref()
            .map(|id| (charge.cell.clone(), id.clone()));
        if let Some((grant, expires, until)) = repeat.as_ref().and_then(|key| self.repeats.get(key))
            && now < *until
        {
            let grant = Grant {
                valid: expires.saturating_sub(now),
                ..*grant
            };
            return Some((Some(grant), None));
        }
        let entries = self.cells.len().max(self.repeats.len());
        if entries >= self.sweep_at.max(1024).min(self.max_entries) && now >= self.sweep_after {
            self.sweep(now);
        }
        if self.cells.len() >= self.max_entries && !self.cells.contains_key(&charge.cell) {
            return None;
        }
        let cell = self
            .cells
            .entry(charge.cell.clone())
            .or_insert_with(|| Cell::new(charge));
        // The policy may have changed how the limit is held.
        if matches!(cell.kind, Kind::Leased(_)) != charge.is_leased {
            *cell = Cell::new(charge);
        }
        let (grant, want) = match &mut cell.kind {
            Kind::Leased(account) => account.charge(charge, now, patience, &mut self.wants),
            _ => (Some(cell.charge(charge, now)), None),
        };
        let Some(grant) = grant else {
            return Some((None, want));
        };
        // Without room to remember, a repetition is charged again: never too much is granted.
        if let Some(key) = repeat
            && self.repeats.len() < self.max_entries
        {
            let until = now.saturating_add(charge.min_deduplication);
            self.repeats
                .insert(key, (grant, now.saturating_add(grant.valid), until));
        }
        Some((Some(grant), want))
    }

    fn sweep(&mut self, now: u64) {
        self.cells.retain(|_, cell| cell.is_used(now));
        self.repeats.retain(|_, (_, _, until)| now < *until);
        self.sweep_at = 2 * self.cells.len().max(self.repeats.len());
        self.sweep_after = now.saturating_add(SWEEP_PAUSE);
    }
}

#[derive(Debug)]
struct Cell {
    used: i64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    UntilReleased,
    Fixed {
        length: u64,
        number: u64,
    },
    Rolling {
        tick_length: u64,
        tick: u64,
        ring: [i64; RING],
    },
    Leased(Account),
}

impl Cell {
    fn new(charge: &Charge) -> Self {
        let kind = match (charge.window, charge.is_fixed) {
            _ if charge.is_leased => Kind::Leased(Account::default()),
            (0, _) => Kind::UntilReleased,
            (length, true) => Kind::Fixed { length, number: 0 },
            (length, false) => Kind::Rolling {
                tick_length: length.div_ceil(TICKS),
                tick: 0,
                ring: [0; RING],
            },
        };
        Cell { used: 0, kind }
    }

    fn charge(&mut self, charge: &Charge, now: u64) -> Grant {
        self.advance(now);
        if charge.amount < 0 {
            let released = charge.amount.saturating_neg().min(self.used);
            self.release(released);
            return self.grant(charge, released, 0, now);
        }
        let available = charge.max.saturating_sub(self.used).max(0);
        let granted = match charge.amount <= available {
            true => charge.amount,
            false if charge.best_effort => available,
            false => 0,
        };
        self.used += granted;
        if let Kind::Rolling { tick, ring, .. } = &mut self.kind {
            ring[*tick as usize % RING] += granted;
        }
        let valid = match self.kind {
            _ if granted == 0 => 0,
            Kind::UntilReleased | Kind::Leased(_) => 0,
            Kind::Fixed { length, number } => (number + 1).saturating_mul(length).saturating_sub(now),
            Kind::Rolling { .. } => charge.window,
        };
        self.grant(charge, granted, valid, now)
    }

    fn grant(&self, charge: &Charge, granted: i64, valid: u64, now: u64) -> Grant {
        let reset = match &self.kind {
            _ if self.used == 0 => 0,
            Kind::UntilReleased | Kind::Leased(_) => 0,
            Kind::Fixed { length, number } => (number + 1).saturating_mul(*length).saturating_sub(now),
            Kind::Rolling {
                tick_length,
                tick,
                ring,
            } => {
                // What was taken in a tick is forgotten when its place in the ring is needed again.
                let oldest = (1..=RING as u64).find(|step| ring[(*tick + step) as usize % RING] > 0);
                oldest.map_or(0, |step| {
                    (*tick + step).saturating_mul(*tick_length).saturating_sub(now)
                })
            }
        };
        Grant {
            granted,
            valid,
            left: charge.max.saturating_sub(self.used).max(0),
            reset,
        }
    }

    /// Forgets what has left the window.
    fn advance(&mut self, now: u64) {
        match &mut self.kind {
            Kind::UntilReleased | Kind::Leased(_) => {}
            Kind::Fixed { length, number } => {
                if now / *length > *number {
                    (*number, self.used) = (now / *length, 0);
                }
            }
            Kind::Rolling {
                tick_length,
                tick,
                ring,
            } => {
                let current = (now / *tick_length).max(*tick);
                for step in 1..=(current - *tick).min(RING as u64) {
                    let place = (*tick + step) as usize % RING;
                    self.used -= std::mem::take(&mut ring[place]);
                }
                *tick = current;
            }
        }
    }

    /// Gives back the newest amounts first, so that the rest keeps its age.
    fn release(&mut self, mut amount: i64) {
        self.used -= amount;
        if let Kind::Rolling { tick, ring, .. } = &mut self.kind {
            for age in 0..RING {
                let place = (*tick as usize + RING - age % RING) % RING;
                let part = ring[place].min(amount);
                ring[place] -= part;
                amount -= part;
            }
        }
    }

    fn is_used(&mut self, now: u64) -> bool {
        if let Kind::Leased(account) = &mut self.kind {
            return account.is_used(now);
        }
        self.advance(now);
        self.used > 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn charge(amount: i64) -> Charge {
        Charge {
            quota: "requests.demo".into(),
            cell: b"cell".to_vec(),
            max: 10,
            window: SECOND,
            is_fixed: false,
            is_leased: false,
            amount,
            best_effort: false,
            deduplication_id: None,
            min_deduplication: SECOND,
        }
    }

    #[test]
    fn strict_gets_all_or_nothing_and_best_effort_the_rest() {
        let cells = Cells::default();
        let reset = SECOND / 10 * 11;
        assert_eq!(
            cells.charge(&charge(7), 0),
            Grant {
                granted: 7,
                valid: SECOND,
                left: 3,
                reset,
            }
        );
        assert_eq!(
            cells.charge(&charge(4), 0),
            Grant {
                granted: 0,
                valid: 0,
                left: 3,
                reset,
            }
        );
        assert_eq!(
            cells
                .charge(
                    &Charge {
                        best_effort: true,
                        ..charge(4)
                    },
                    0
                )
                .granted,
            3
        );
        assert_eq!(
            cells
                .charge(
                    &Charge {
                        best_effort: true,
                        ..charge(4)
                    },
                    0
                )
                .granted,
            0
        );
        assert_eq!(cells.charge(&charge(-4), 0).granted, 4);
        assert_eq!(cells.charge(&charge(4), 0).granted, 4);
    }

    #[test]
    fn a_repeated_id_gets_the_first_grant_again_even_when_empty() {
        let cells = Cells::default();
        for id in ["", "call-1"] {
            let first = Charge {
                deduplication_id: Some(id.into()),
                ..charge(3)
            };
            let grant = cells.charge(&first, 0);
            assert_eq!((grant.granted, grant.valid), (3, SECOND));
            let again = Charge {
                amount: 9,
                ..first.clone()
            };
            let grant = cells.charge(&again, SECOND / 4);
            assert_eq!((grant.granted, grant.valid), (3, SECOND / 4 * 3));
        }
        assert_eq!(cells.charge(&charge(5), SECOND / 4).granted, 0);
        assert_eq!(cells.charge(&charge(4), SECOND / 4).granted, 4);
    }

    #[test]
    fn a_grant_tells_what_is_left_and_when_more_comes_back() {
        for is_fixed in [false, true] {
            let cells = Cells::default();
            let charge = |amount| Charge {
                is_fixed,
                ..charge(amount)
            };
            cells.charge(&charge(6), SECOND / 2);
            let full = cells.charge(&charge(5), SECOND / 4 * 3);
            assert_eq!((full.granted, full.left), (0, 4));
            let again = SECOND / 4 * 3 + full.reset;
            assert_eq!(cells.charge(&charge(5), again - 1).granted, 0, "fixed: {is_fixed}");
            assert_eq!(cells.charge(&charge(5), again).granted, 5, "fixed: {is_fixed}");
        }
    }

    #[test]
    fn what_is_never_released_stays_taken() {
        let cells = Cells::default();
        let lasting = |amount| Charge {
            window: 0,
            ..charge(amount)
        };
        assert_eq!(cells.charge(&lasting(10), 0).granted, 10);
        assert_eq!(cells.charge(&lasting(1), u64::MAX).granted, 0);
        assert_eq!(cells.charge(&lasting(-50), u64::MAX).granted, 10);
        assert_eq!(cells.charge(&lasting(1), u64::MAX).granted, 1);
    }

    #[test]
    fn idle_cells_make_room_and_full_ones_grant_nothing_new() {
        let cells = Cells::bounded(100);
        let numbered = |number: usize| Charge {
            cell: number.to_le_bytes().to_vec(),
            ..charge(1)
        };
        let granted: i64 = (0..SHARDS * 200)
            .map(|number| cells.charge(&numbered(number), 0).granted)
            .sum();
        let (count, refused) = cells.statistics();
        assert!(count <= SHARDS * 100 && refused > 0);
        assert_eq!(granted as u64 + refused, (SHARDS * 200) as u64);
        assert_eq!(cells.charge(&numbered(usize::MAX), 10 * SECOND).granted, 1);
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_limit(
            calls in prop::collection::vec((0..SECOND, -5..15i64, any::<bool>()), 1..200), max in 0..30i64
        ) {
            let cells = Cells::default();
            let (mut now, mut grants) = (0, Vec::new());
            for (pause, amount, best_effort) in calls {
                now += pause / 4;
                let grant = cells.charge(&Charge { amount, best_effort, max, ..charge(0) }, now).granted;
                prop_assert!(grant >= 0);
                if amount >= 0 {
                    prop_assert!(grant <= amount);
                    grants.push((now, grant));
                } else {
                    // Releases give back the newest first.
                    let mut left = grant;
                    for (_, granted) in grants.iter_mut().rev() {
                        let part = left.min(*granted);
                        *granted -= part;
                        left -= part;
                    }
                }
                let within: i64 = grants.iter().filter(|(at, _)| now - at < SECOND).map(|(_, granted)| granted).sum();
                prop_assert!(within <= max, "{within} of {max}");
            }
        }

        #[test]
        fn no_fixed_window_sees_more_than_the_limit(
            calls in prop::collection::vec((0..SECOND, 0..15i64), 1..200), max in 0..30i64
        ) {
            let cells = Cells::default();
            let (mut now, mut sums) = (0, std::collections::HashMap::new());
            for (pause, amount) in calls {
                now += pause / 4;
                let granted = cells.charge(&Charge { amount, best_effort: true, is_fixed: true, max, ..charge(0) }, now);
                let sum = sums.entry(now / SECOND).or_insert(0);
                *sum += granted.granted;
                prop_assert!(*sum <= max);
            }
        }

        #[test]
        fn any_numbers_are_charged(
            amount: i64, max: i64, window: u64, now: u64, is_fixed: bool, best_effort: bool, min_deduplication: u64
        ) {
            let cells = Cells::default();
            let id = Some(String::new());
            let any = Charge { amount, max, window, is_fixed, best_effort, min_deduplication, deduplication_id: id, ..charge(0) };
            for now in [now, now.wrapping_add(window), 0, u64::MAX] {
                let grant = cells.charge(&any, now);
                prop_assert!(grant.granted >= 0 && grant.granted <= max.max(0));
            }
        }
    }
}
