//! A quota cell that is held across replicas by a store: this replica grants from slices of the limit that it leased
//! there, and asks for the next one before it is used up. A slice may be used for a tenth of the window and counts, in
//! the store, for a whole window after that; so no window sees more than the limit, whoever grants, and a replica that
//! dies takes with it only what it hadn't used yet, until that time is over.

use std::collections::VecDeque;

use crate::cells::{Charge, Grant};

const TICKS: u64 = 10;
/// After which an unanswered question is asked again, in nanoseconds.
const LOST: u64 = 5_000_000_000;
/// After which the store counts as away for who has waited, in nanoseconds.
const SILENT: u64 = 400_000_000;

/// Between two questions to a store that gives no answer, in nanoseconds.
const PAUSE: u64 = 1_000_000_000;

/// What a charge may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// The store's answer.
    Waits,
    /// Nothing: it has waited. It gets what is free, or, when the store doesn't answer, what this replica can give alone.
    Waited,
    /// Nothing: there is nobody to ask the store.
    Alone,
}

/// What is to be asked of the store for one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Names the cell.
    pub cell: Vec<u8>,
    /// Of the slice, and unique among those of this process.
    pub id: u64,
    /// The limit.
    pub max: i64,
    /// Its window in nanoseconds.
    pub window: u64,
    /// Windows begin at multiples of their length instead of rolling.
    pub is_fixed: bool,
    /// How much; less is welcome.
    pub amount: i64,
    /// How long a slice may be used, in nanoseconds.
    pub life: u64,
    /// Slices whose time is over and of which something else was used than the store knows.
    pub settled: Vec<Used>,
}

/// What became of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// The slice's.
    pub id: u64,
    /// How much was used.
    pub used: i64,
    /// Until when that counts.
    pub counted: u64,
}

/// What the store gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The want's.
    pub id: u64,
    /// How much; zero: there is nothing left.
    pub amount: i64,
    /// Until when it may be used.
    pub until: u64,
    /// Until when it counts.
    pub counted: u64,
    /// When it got less than wanted: the time before which there is no use in asking again.
    pub more_at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    slices: VecDeque<Slice>,
    /// The question under way: when it was asked, and what it tells.
    asked: Option<(u64, Want)>,
    /// Amounts that requests wait for.
    waiting: i64,
    /// The store has nothing before this time.
    none_before: u64,
    /// The store gave no answer the last time: requests don't wait for it.
    is_away: bool,
    /// It isn't asked before this time.
    ask_after: u64,
}

#[derive(Debug)]
struct Slice {
    id: u64,
    amount: i64,
    used: i64,
    until: u64,
    counted: u64,
    /// What the store takes for used.
    told: i64,
}

impl Slice {
    fn free(&self, now: u64) -> i64 {
        if now < self.until { self.amount - self.used } else { 0 }
    }
}

impl Account {
    /// None: the request waits until the store has answered, and charges again.
    pub(crate) fn charge(
        &mut self,
        charge: &Charge,
        now: u64,
        patience: Patience,
        next_id: &mut u64,
    ) -> (Option<Grant>, Option<Want>) {
        self.slices.retain(|slice| now < slice.counted);
        if charge.amount <= 0 {
            let granted = self.release(charge.amount.saturating_neg());
            return (Some(self.grant(granted, 0, now)), None);
        }
        if charge.max <= 0 || (charge.amount > charge.max && !charge.best_effort) {
            return (Some(Grant::default()), None);
        }
        let amount = charge.amount.min(charge.max);
        let mut free = self.free(now);
        if free < amount && now >= self.none_before {
            let is_silent = |(at, _): &(u64, Want)| now.saturating_sub(*at) >= SILENT;
            self.is_away |= patience == Patience::Waited && self.asked.as_ref().is_some_and(is_silent);
            if self.is_away || patience == Patience::Alone {
                self.stand_in(charge, now, next_id);
                free = self.free(now);
            } else if patience == Patience::Waits {
                self.waiting = self.waiting.saturating_add(amount);
                return (None, self.want(charge, now, next_id));
            }
        }
        let granted = match charge.amount <= free {
            true => charge.amount,
            false if charge.best_effort => free,
            false => 0,
        };
        let counted = self.take(granted, now);
        let valid = match charge.is_fixed {
            _ if granted == 0 => 0,
            true => counted.saturating_sub(now),
            false => charge.window,
        };
        // A store that is away is asked again and again: so it is found to be back.
        let want = (self.is_away || self.is_low(charge, now)).then(|| self.want(charge, now, next_id));
        (Some(self.grant(granted, valid, now)), want.flatten())
    }

    /// `left` is what this replica has leased: the store may have more.
    fn grant(&self, granted: i64, valid: u64, now: u64) -> Grant {
        let first = self.slices.iter().map(|slice| slice.counted).min();
        Grant {
            granted,
            valid,
            left: self.free(now),
            reset: first.unwrap_or(now).max(self.none_before).saturating_sub(now),
        }
    }

    /// The store's answer; None: it gave none.
    pub(crate) fn answered(&mut self, id: u64, lease: Option<Lease>) {
        let Some((at, want)) = self.asked.take_if(|(_, want)| want.id == id) else {
            return;
        };
        self.waiting = 0;
        let Some(lease) = lease else {
            self.is_away = true;
            self.ask_after = at.saturating_add(PAUSE);
            return;
        };
        self.is_away = false;
        for told in want.settled {
            if let Some(slice) = self.slices.iter_mut().find(|slice| slice.id == told.id) {
                slice.told = told.used;
            }
        }
        if lease.amount > 0 {
            // What was granted before this answer came is granted from it.
            let mut used = 0;
            for slice in self.slices.iter_mut().filter(|slice| slice.told == 0) {
                let part = slice.used.min(lease.amount - used);
                used += part;
                slice.used -= part;
                slice.amount = slice.used;
            }
            self.slices.push_back(Slice {
                id,
                amount: lease.amount,
                used,
                until: lease.until,
                counted: lease.counted,
                told: lease.amount,
            });
        }
        if lease.amount < want.amount {
            self.none_before = lease.more_at;
        }
    }

    pub(crate) fn is_used(&mut self, now: u64) -> bool {
        self.slices.retain(|slice| now < slice.counted);
        !self.slices.is_empty() || self.asked.is_some()
    }

    fn free(&self, now: u64) -> i64 {
        self.slices.iter().map(|slice| slice.free(now)).sum()
    }

    /// Little is left, or little time to use it.
    fn is_low(&self, charge: &Charge, now: u64) -> bool {
        let soon = now.saturating_add(life(charge) / 4);
        now >= self.none_before && self.free(soon) < share(charge.max) / 2
    }

    fn want(&mut self, charge: &Charge, now: u64, next_id: &mut u64) -> Option<Want> {
        let is_asked = self
            .asked
            .as_ref()
            .is_some_and(|(at, _)| now.saturating_sub(*at) < LOST);
        if is_asked || now < self.ask_after {
            return None;
        }
        *next_id += 1;
        let settled = self
            .slices
            .iter()
            .filter(|slice| now >= slice.until && slice.used != slice.told)
            .map(|slice| Used {
                id: slice.id,
                used: slice.used,
                counted: slice.counted,
            });
        let want = Want {
            cell: charge.cell.clone(),
            id: *next_id,
            max: charge.max,
            window: charge.window,
            is_fixed: charge.is_fixed,
            amount: self.waiting.saturating_add(share(charge.max)).min(charge.max),
            life: life(charge),
            settled: settled.collect(),
        };
        self.asked = Some((now, want.clone()));
        Some(want)
    }

    /// A slice that no store knows of: what is left of the limit by what this replica granted itself. It is told to the
    /// store when it is back.
    fn stand_in(&mut self, charge: &Charge, now: u64, next_id: &mut u64) {
        let taken: i64 = self
            .slices
            .iter()
            .map(|slice| if now < slice.until { slice.amount } else { slice.used })
            .sum();
        let amount = charge.max.saturating_sub(taken);
        if amount <= 0 {
            return;
        }
        *next_id += 1;
        let until = now.saturating_add(life(charge));
        self.slices.push_back(Slice {
            id: *next_id,
            amount,
            used: 0,
            until,
            counted: until.saturating_add(charge.window),
            told: 0,
        });
    }

    /// From the slice that ends first; returns until when what was taken counts.
    fn take(&mut self, mut amount: i64, now: u64) -> u64 {
        let mut counted = now;
        while amount > 0 {
            let first = self
                .slices
                .iter_mut()
                .filter(|slice| slice.free(now) > 0)
                .min_by_key(|slice| slice.until);
            let Some(slice) = first else { break };
            let part = slice.free(now).min(amount);
            slice.used += part;
            amount -= part;
            counted = slice.counted;
        }
        counted
    }

    /// Gives back the newest amounts first.
    fn release(&mut self, amount: i64) -> i64 {
        let mut left = amount;
        for slice in self.slices.iter_mut().rev() {
            let part = slice.used.min(left);
            slice.used -= part;
            left -= part;
        }
        amount - left
    }
}

fn life(charge: &Charge) -> u64 {
    (charge.window / TICKS).max(1)
}

/// What is leased at once when nobody waits for more.
fn share(max: i64) -> i64 {
    (max as u64).div_ceil(TICKS) as i64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn charge(amount: i64, max: i64, best_effort: bool) -> Charge {
        Charge {
            quota: "requests.demo".into(),
            cell: b"cell".to_vec(),
            max,
            window: SECOND,
            is_fixed: false,
            is_leased: true,
            amount,
            best_effort,
            deduplication_id: None,
            min_deduplication: SECOND,
        }
    }

    /// What the Python side does, on a store in memory: by holder and slice, the amount and until when it counts.
    #[derive(Default)]
    struct Store(BTreeMap<(usize, u64), (i64, u64)>);

    impl Store {
        fn lease(&mut self, holder: usize, want: &Want, now: u64) -> Lease {
            self.0.retain(|_, (_, counted)| now < *counted);
            for settled in want.settled.iter().filter(|settled| now < settled.counted) {
                self.0.insert((holder, settled.id), (settled.used, settled.counted));
            }
            let taken: i64 = self.0.values().map(|(amount, _)| amount).sum();
            let amount = want.amount.min(want.max - taken).max(0);
            let until = now + want.life;
            let counted = until + want.window;
            if amount > 0 {
                self.0.insert((holder, want.id), (amount, counted));
            }
            let more_at = self.0.values().map(|(_, counted)| *counted).min().unwrap_or(now);
            Lease {
                id: want.id,
                amount,
                until,
                counted,
                more_at,
            }
        }
    }

    struct Replica {
        account: Account,
        asked: Option<Want>,
        ids: u64,
    }

    fn replicas(count: usize) -> Vec<Replica> {
        let new = |_| Replica {
            account: Account::default(),
            asked: None,
            ids: 0,
        };
        (0..count).map(new).collect()
    }

    #[test]
    fn a_request_waits_for_the_first_slice_and_the_next_is_asked_for_ahead() {
        let (mut store, mut replica) = (Store::default(), replicas(1).remove(0));
        let Replica { account, ids, .. } = &mut replica;
        let (grant, want) = account.charge(&charge(1, 100, false), 0, Patience::Waits, ids);
        let want = want.unwrap();
        assert!(grant.is_none() && want.amount == 11);
        assert!(account.charge(&charge(1, 100, false), 0, Patience::Waits, ids) == (None, None));
        account.answered(want.id, Some(store.lease(0, &want, 0)));
        for number in 1..=6 {
            let (grant, want) = account.charge(&charge(1, 100, false), 0, Patience::Waits, ids);
            assert_eq!((grant.unwrap().granted, want.is_none()), (1, true), "{number}");
        }
        let (grant, ahead) = account.charge(&charge(1, 100, false), 0, Patience::Waits, ids);
        assert_eq!((grant.unwrap().granted, ahead.unwrap().amount), (1, 10));
    }

    #[test]
    fn a_slice_that_ends_early_used_is_settled() {
        let (mut store, mut ids) = (Store::default(), 0);
        let mut account = Account::default();
        let mut granted = 0;
        // Eleven tenths of a window, each with one request: ten slices of ten would be the whole limit.
        for tick in 0..11 {
            let now = tick * SECOND / 10;
            loop {
                match account.charge(&charge(1, 100, false), now, Patience::Waits, &mut ids) {
                    (Some(grant), _) => break granted += grant.granted,
                    (None, Some(want)) => account.answered(want.id, Some(store.lease(0, &want, now))),
                    (None, None) => unreachable!(),
                }
            }
        }
        assert_eq!(granted, 11);
        let kept: i64 = store.0.values().map(|(amount, _)| amount).sum();
        assert!(kept <= 11 + 10, "{kept}");
    }

    #[test]
    fn without_a_store_the_limit_is_this_replicas_own() {
        let mut ids = 0;
        let mut account = Account::default();
        let (grant, want) = account.charge(&charge(4, 10, false), 0, Patience::Waits, &mut ids);
        assert!(grant.is_none());
        account.answered(want.unwrap().id, None);
        let mut grants = Vec::new();
        for now in [0, SECOND / 2, SECOND * 9 / 10, SECOND * 3] {
            grants.push(
                account
                    .charge(&charge(4, 10, false), now, Patience::Alone, &mut ids)
                    .0
                    .unwrap()
                    .granted,
            );
        }
        assert_eq!(grants, [4, 4, 0, 4]);
        // When the store is back it hears what was granted meanwhile.
        let unanswered = account.asked.clone().unwrap().1;
        account.answered(unanswered.id, None);
        let (_, want) = account.charge(&charge(1, 10, false), SECOND * 405 / 100, Patience::Alone, &mut ids);
        let settled: Vec<i64> = want.unwrap().settled.iter().map(|settled| settled.used).collect();
        assert_eq!(settled, [4]);
    }

    #[test]
    fn who_has_waited_gets_what_is_free_from_a_store_that_answers() {
        let (mut store, mut ids) = (Store::default(), 0);
        let mut account = Account::default();
        // Another replica has all but three.
        store.0.insert((9, 9), (7, 10 * SECOND));
        let want = account
            .charge(&charge(5, 10, true), 0, Patience::Waits, &mut ids)
            .1
            .unwrap();
        account.answered(want.id, Some(store.lease(0, &want, 0)));
        let mut granted = |amount, best_effort, patience| {
            let grant = account
                .charge(&charge(amount, 10, best_effort), 1, patience, &mut ids)
                .0;
            grant.map(|grant| grant.granted)
        };
        assert_eq!(granted(5, true, Patience::Waited), Some(3));
        assert_eq!(granted(1, false, Patience::Waits), Some(0));
        assert_eq!(granted(11, false, Patience::Waits), Some(0));
    }

    #[test]
    fn a_store_that_is_silent_counts_as_away() {
        let mut ids = 0;
        let mut account = Account::default();
        assert!(
            account
                .charge(&charge(1, 10, false), 0, Patience::Waits, &mut ids)
                .0
                .is_none()
        );
        let late = account.charge(&charge(1, 10, false), SECOND / 2, Patience::Waited, &mut ids);
        assert_eq!(late.0.unwrap().granted, 1);
        // Nobody waits for it any more.
        assert_eq!(
            account
                .charge(&charge(9, 10, false), SECOND / 2, Patience::Waits, &mut ids)
                .0
                .unwrap()
                .granted,
            9
        );
    }

    #[test]
    fn a_release_can_be_granted_again() {
        let (mut store, mut ids) = (Store::default(), 0);
        let mut account = Account::default();
        let want = account
            .charge(&charge(10, 10, false), 0, Patience::Waits, &mut ids)
            .1
            .unwrap();
        account.answered(want.id, Some(store.lease(0, &want, 0)));
        assert_eq!(
            account
                .charge(&charge(10, 10, false), 0, Patience::Waits, &mut ids)
                .0
                .unwrap()
                .granted,
            10
        );
        assert_eq!(
            account
                .charge(&charge(-4, 10, false), 0, Patience::Waits, &mut ids)
                .0
                .unwrap()
                .granted,
            4
        );
        assert_eq!(
            account
                .charge(&charge(3, 10, false), 0, Patience::Waits, &mut ids)
                .0
                .unwrap()
                .granted,
            3
        );
        assert_eq!(
            account
                .charge(&charge(-99, 10, false), 0, Patience::Waits, &mut ids)
                .0
                .unwrap()
                .granted,
            9
        );
    }

    proptest! {
        /// Whoever asks whichever replica, whenever the store answers, and whichever replica dies.
        #[test]
        fn no_window_sees_more_than_the_limit(
            calls in prop::collection::vec(
                (0..SECOND / 8, 0..3usize, 1..8i64, any::<bool>(), prop::sample::select(vec!['c', 'c', 'c', 'a', 'd'])),
                1..300,
            ),
            max in 1..40i64,
        ) {
            let (mut store, mut all) = (Store::default(), replicas(3));
            let (mut now, mut grants, mut lives) = (0, Vec::<(u64, i64)>::new(), 0);
            for (pause, number, amount, best_effort, event) in calls {
                now += pause;
                let replica = &mut all[number];
                match event {
                    'd' => {
                        // Another process in its place; what it had leased stays in the store.
                        lives += 1;
                        *replica = Replica { account: Account::default(), asked: None, ids: lives << 32 };
                    }
                    'a' => {
                        if let Some(want) = replica.asked.take() {
                            let lease = store.lease(number, &want, now);
                            replica.account.answered(want.id, Some(lease));
                        }
                    }
                    _ => {
                        let (grant, want) = replica.account.charge(&charge(amount, max, best_effort), now, Patience::Waits, &mut replica.ids);
                        if want.is_some() {
                            replica.asked = want;
                        }
                        if let Some(grant) = grant {
                            prop_assert!(grant.granted <= amount && (best_effort || grant.granted % amount == 0));
                            grants.push((now, grant.granted));
                        }
                    }
                }
                let within: i64 = grants.iter().filter(|(at, _)| now - at < SECOND).map(|(_, granted)| granted).sum();
                prop_assert!(within <= max, "{within} of {max}");
            }
        }
    }
}
